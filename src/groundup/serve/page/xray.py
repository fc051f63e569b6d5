"""Looking inside a model that is served: its X-ray of any text, step by step, and neighbours.

Each step has the model for a moment only, so that others' texts are written in between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.serve.asking import BadRequest, read_body
from groundup.serve.errors import as_problem, error_body
from groundup.serve.models import Models, Served
from groundup.serve.streams import Streamed, as_event
from groundup.xray.changes import Part
from groundup.xray.data import XRay
from groundup.xray.take import MAX_TOKENS, Reading, neighbours, words_of

LONGEST = 10_000
"""Characters; the tokens that it makes are counted then."""

WRITTEN = 24
"""So many tokens the model writes after the text, to show what it would say."""

AT_ONCE = 128
"""Tokens, in copies of the text, that a step computes: others wait for that long."""

NEIGHBOURS, LOOKED_UP = 12, 8


@dataclass
class Silenced:
    """A part of the model that gives nothing; layers and heads count from 0."""

    layer: int
    part: Literal["head", "attention", "feed_forward"]
    head: int | None = None


@dataclass
class Text:
    """What a model is to be seen reading."""

    model: str
    text: str
    silenced: list[Silenced] = field(default_factory=list)


@dataclass
class Lookup:
    """Tokens to find others for: those of a text, or one by its id."""

    model: str
    text: str | None = None
    id: int | None = None


def routes(models: Models) -> list[BaseRoute]:
    """X-rays and neighbours."""

    async def xray(request: Request) -> Response:
        asked = await read_body(request, Text)
        served = models.get(asked.model)
        check_length(asked.text, LONGEST)
        reading, seen = await served.work(lambda: _begin(served, asked))
        events = _events(served, reading, seen, alone=not asked.silenced)
        return Streamed(events, "text/event-stream", lambda: None)

    async def near(request: Request) -> Response:
        asked = await read_body(request, Lookup)
        served = models.get(asked.model)
        return JSONResponse(await served.work(lambda: _near(served, asked)))

    return [
        Route("/page/xray", xray, methods=["POST"]),
        Route("/page/neighbours", near, methods=["POST"]),
    ]


def check_length(text: str, longest: int) -> None:
    """Refuse a text of so many characters that its tokens need not be counted."""
    if len(text) > longest:
        raise BadRequest(
            f"the text has {len(text):,} characters; this page takes {longest:,} at most: give a "
            "shorter one",
            "text",
        )


def _begin(served: Served, asked: Text) -> tuple[Reading, XRay]:
    count = len(served.tokenizer.encode(asked.text))
    if count > MAX_TOKENS:
        raise BadRequest(
            f"the text has {count:,} tokens; an X-ray on this page has {MAX_TOKENS} at most, since "
            "attention grows with the square of them: give a shorter text, or write a file of a "
            "long one with groundup xray --max-tokens",
            "text",
        )
    silenced = list(dict.fromkeys(Part(s.layer, s.part, s.head) for s in asked.silenced))
    reading = Reading(
        served.model, served.tokenizer, asked.text, name=served.name, silenced=silenced
    )
    return reading, reading.xray()


async def _events(
    served: Served, reading: Reading, seen: XRay, *, alone: bool
) -> AsyncIterator[str]:
    """All that the page shows, as it becomes known: first what one call of the model says.

    Then what it writes, and, if nothing is silenced, what each of its parts does ``alone``.
    """
    yield f'data: {{"xray":{seen.json()}}}\n\n'
    try:
        for _ in range(WRITTEN):
            written = await served.work(reading.write_on)
            if written is None:
                break
            yield as_event({"written": written})
        for batch in reading.batches(AT_ONCE) if alone else ():
            changes = await served.work(lambda batch=batch: reading.changes(batch))
            told = [asdict(change) for change in changes]
            yield as_event({"changes": told, "words": reading.words(changes)})
        yield as_event({"done": True})
    except Exception as error:  # the status is sent already
        yield as_event(error_body("/page/xray", as_problem(error)))


def _near(served: Served, asked: Lookup) -> dict[str, Any]:
    """The tokens that a text has, or the one of an id, with those whose embeddings are alike."""
    if asked.id is not None:
        size = served.model.cfg.vocab_size
        if not 0 <= asked.id < size:
            raise BadRequest(f"id is {asked.id}; expected 0 to {size - 1}", "id")
        ids = [asked.id]
    else:
        check_length(asked.text or "", LONGEST)
        ids = served.tokenizer.encode(asked.text or "")[:LOOKED_UP]
        if not ids:
            raise BadRequest("there is nothing to look up; give text, or a token's id", "text")
    found = neighbours(served.model, ids, NEIGHBOURS)
    shown = [ids, *([i for i, _ in row] for row in found.values())]
    return {"tokens": ids, "words": words_of(served.tokenizer, shown), "neighbours": found}
