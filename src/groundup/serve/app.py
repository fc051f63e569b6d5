"""The application: all routes, what stands before them, and how mistakes are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from groundup.errors import UserError
from groundup.serve import classify, embeddings, ollama, ollama_models, openai
from groundup.serve.asking import Problem
from groundup.serve.config import ServeConfig
from groundup.serve.errors import answer, as_problem
from groundup.serve.guard import Guard
from groundup.serve.metrics import Counting, Metrics
from groundup.serve.models import Models
from groundup.serve.page import classifier, judged, shell, tokenizer, training, xray
from groundup.serve.writing import Broken

ROUTES: list[Callable[[Models], Sequence[BaseRoute]]] = [
    openai.routes,
    embeddings.routes,
    ollama.routes,
    ollama_models.routes,
    classify.routes,
    shell.routes,
    xray.routes,
    tokenizer.routes,
    training.routes,
    classifier.routes,
    judged.routes,
]
"""What makes the routes of each part: one line per module."""


def make_app(models: Models, options: ServeConfig) -> Starlette:
    """The application that serves these models."""

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        models.close()

    metrics = Metrics(models)
    return Starlette(
        routes=[*metrics.routes(), *(route for part in ROUTES for route in part(models))],
        middleware=[Middleware(Counting, metrics=metrics), Middleware(Guard, options=options)],
        exception_handlers={
            UserError: _mistake,
            Broken: _mistake,
            HTTPException: _no_such_page,
            Exception: _bug,
        },
        lifespan=life,
    )


async def _mistake(request: Request, error: Exception) -> Response:
    return answer(request.scope["path"], as_problem(error))


async def _bug(request: Request, error: Exception) -> Response:
    """Whoever started the server sees the traceback; a client is told its kind."""
    told = f"the server failed ({type(error).__name__}); its own output says more"
    return answer(request.scope["path"], Problem(told, 500))


async def _no_such_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.scope["path"], request.method
    said = {404: f"there is nothing at {path:.200}", 405: f"{path:.200} takes no {method}"}
    response = answer(path, Problem(said.get(error.status_code, error.detail), error.status_code))
    response.headers.update(error.headers or {})
    return response
