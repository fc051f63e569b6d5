"""The application: all routes, what stands before them, and how mistakes are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from groundup.errors import UserError
from groundup.serve import page, training
from groundup.serve.asking import Problem
from groundup.serve.config import ServeConfig
from groundup.serve.models import Models, NotServed
from groundup.serve.runner import Broken, Busy

ROUTES: list[Callable[[Models], list[BaseRoute]]] = [
    page.routes,
    training.routes,
]
"""What makes the routes of each part: one line per module."""


def make_app(models: Models, options: ServeConfig) -> Starlette:
    """The application that serves these models."""

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        models.close()

    return Starlette(
        routes=[route for part in ROUTES for route in part(models)],
        exception_handlers={
            UserError: _mistake,
            Broken: _mistake,
            HTTPException: _no_such_page,
        },
        lifespan=life,
    )


def as_problem(error: Exception) -> Problem:
    """What a client is told of an error."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, NotServed):
        return Problem(str(error), 404, "model", "model_not_found")
    if isinstance(error, Busy):
        return Problem(str(error), 503, wait=1)
    if isinstance(error, Broken):
        return Problem(str(error), 500)
    return Problem(str(error), 400)


def answer(path: str, problem: Problem) -> Response:
    """The problem in the form that the API of this path has for them."""
    headers = {} if problem.wait is None else {"Retry-After": str(problem.wait)}
    return JSONResponse(error_body(path, problem), problem.status, headers)


def error_body(path: str, problem: Problem) -> dict[str, object]:
    """The JSON of a problem."""
    if path.startswith("/api/"):
        return {"error": str(problem)}
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(problem.status, "invalid_request_error")
    if problem.status >= 500:
        kind = "server_error"
    return {
        "error": {
            "message": str(problem),
            "type": kind,
            "param": problem.field,
            "code": problem.code,
        }
    }


async def _mistake(request: Request, error: Exception) -> Response:
    return answer(request.url.path, as_problem(error))


async def _no_such_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    said = {404: f"there is nothing at {path:.200}", 405: f"{path:.200} takes no {method}"}
    response = answer(path, Problem(said.get(error.status_code, error.detail), error.status_code))
    response.headers.update(error.headers or {})
    return response
