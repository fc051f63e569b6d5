"""The page of judged runs: those that lie in the directory of a run that is served."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.judge.beside import read_beside, reports_in
from groundup.output import visible
from groundup.serve.asking import BadRequest, read_body
from groundup.serve.models import Models


@dataclass
class Judged:
    """A model's judged runs; one of them by its number."""

    model: str
    number: int = 0


def routes(models: Models) -> list[BaseRoute]:
    """What the page asks about judged runs."""

    async def judged(request: Request) -> Response:
        asked = await read_body(request, Judged)
        directory = models.get(asked.model).directory
        there = reports_in(directory) if directory is not None else []
        if not 0 <= asked.number < len(there):
            raise BadRequest(
                f"there is no judged run {asked.number} of {asked.model}; there are {len(there)}: "
                "groundup judge leaves one beside the responses",
                "number",
            )
        told = await asyncio.to_thread(read_beside, there[asked.number])
        return JSONResponse(told | {"names": [visible(path.name) for path in there]})

    return [Route("/page/judged", judged, methods=["POST"])]
