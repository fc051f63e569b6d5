"""Ollama's API: what its clients ask, the course's ``query_model`` and ``groundup judge`` too."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.prompts import Message
from groundup.serve.asking import read_body
from groundup.serve.errors import as_problem, error_body
from groundup.serve.models import Models, Served
from groundup.serve.ollama_shapes import Asked, ChatAsked, TextAsked
from groundup.serve.streams import Streamed, as_line, unless_gone
from groundup.serve.texts import begin, chat_ids, check_length, language_model, prompt_ids
from groundup.serve.writing import Piece, Writing

LATEST = ":latest"
"""What Ollama's clients write after a name without a tag."""


def routes(models: Models) -> list[BaseRoute]:
    """The routes that write texts; ``ollama_models.py`` has those that tell of models."""

    async def chat(request: Request) -> Response:
        asked = await read_body(request, ChatAsked)
        served = named(models, asked.model)
        form = Form(asked.model, "chat")
        if not asked.messages:
            return JSONResponse(form.line("", done=True) | {"done_reason": "load"})
        ids = await chat_ids(served, asked.conversation)
        return await _respond(request, form, served, asked, ids, served.style_stops)

    async def generate(request: Request) -> Response:
        asked = await read_body(request, TextAsked)
        served = named(models, asked.model)
        form = Form(asked.model, "text")
        if not asked.prompt:
            return JSONResponse(form.line("", done=True) | {"done_reason": "load"})
        if asked.raw or served.style is None:
            before = f"{asked.system}\n\n" if asked.system else ""
            ids = await prompt_ids(served, before + asked.prompt)
            return await _respond(request, form, served, asked, ids, ())
        messages: list[Message] = [{"role": "user", "content": asked.prompt}]
        if asked.system:
            messages.insert(0, {"role": "system", "content": asked.system})
        ids = await chat_ids(served, messages)
        return await _respond(request, form, served, asked, ids, served.style_stops)

    return [
        Route("/api/chat", chat, methods=["POST"]),
        Route("/api/generate", generate, methods=["POST"]),
    ]


def named(models: Models, name: str) -> Served:
    """The language model that a client calls so.

    Raises:
        NotServed: there is none.
        BadRequest: it is a classifier.
    """
    called_so = any(served.name == name for served in models)
    return language_model(models, name if called_so else name.removesuffix(LATEST))


def stamp(seconds: float) -> str:
    """A time as Ollama writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


@dataclass
class Form:
    """How an answer's lines look."""

    model: str
    kind: Literal["chat", "text"]
    arrived: float = field(default_factory=time.perf_counter)

    def line(self, text: str, *, done: bool = False) -> dict[str, Any]:
        """A line with a piece of text."""
        said: dict[str, Any] = {"response": text}
        if self.kind == "chat":
            said = {"message": {"role": "assistant", "content": text}}
        return {"model": self.model, "created_at": stamp(time.time()), **said, "done": done}

    def end(self, text: str, prompt_tokens: int, last: Piece, writing: Writing) -> dict[str, Any]:
        """The last line: why it ended, how many tokens there were, and nanoseconds."""
        now = time.perf_counter()
        first, ended = writing.first or now, writing.last or now
        return self.line(text, done=True) | {
            "done_reason": "length" if last.finish_reason == "length" else "stop",
            "total_duration": _nanoseconds(ended - self.arrived),
            "load_duration": 0,
            "prompt_eval_count": prompt_tokens,
            "prompt_eval_duration": _nanoseconds(first - writing.began),
            "eval_count": writing.tokens,
            "eval_duration": _nanoseconds(ended - first),
        }


async def _respond(
    request: Request,
    form: Form,
    served: Served,
    asked: Asked,
    ids: Sequence[int],
    stop: Sequence[str],
) -> Response:
    context = asked.options.context(served.context_length)
    check_length(ids, context)
    room = max(1, context - len(ids))
    writing = await begin(
        served,
        [ids],
        asked.options.sampling(room, served.tokenizer.vocab_size),
        stop=[*stop, *asked.options.stops],
        schema=asked.schema(),
    )

    async def lines() -> AsyncIterator[str]:
        try:
            async for piece in writing:
                if piece.finish_reason is not None:
                    yield as_line(form.end(piece.text, len(ids), piece, writing))
                elif piece.text:
                    yield as_line(form.line(piece.text))
        except Exception as error:  # the status is sent already
            yield as_line(error_body(request.scope["path"], as_problem(error)))

    if asked.stream:
        await unless_gone(request, writing.begun(), writing.stop)
        return Streamed(lines(), "application/x-ndjson", writing.stop)
    pieces = await unless_gone(request, writing.all(), writing.stop)
    text = "".join(piece.text for piece in pieces)
    return JSONResponse(form.end(text, len(ids), pieces[-1], writing))


def _nanoseconds(seconds: float) -> int:
    return max(0, int(seconds * 1e9))
