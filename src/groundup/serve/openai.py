"""OpenAI's API: the models there are, chats and completions."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.serve.asking import read_body
from groundup.serve.errors import as_problem, error_body
from groundup.serve.models import Models, Served
from groundup.serve.openai_forms import ChatForm, CompletionForm, Form
from groundup.serve.openai_shapes import Asked, ChatAsked, CompletionAsked
from groundup.serve.streams import Streamed, as_event, unless_gone
from groundup.serve.texts import (
    begin,
    chat_ids,
    check_count,
    check_length,
    language_model,
    prompt_ids,
)


def routes(models: Models) -> list[BaseRoute]:
    """The routes of these."""

    async def listed(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(served) for served in models]})

    async def one(request: Request) -> Response:
        return JSONResponse(_model(models.get(request.path_params["name"])))

    async def chat(request: Request) -> Response:
        asked = await read_body(request, ChatAsked)
        asked.check()
        served = language_model(models, asked.model)
        ids = await chat_ids(served, asked.conversation)
        check_length(ids, served.context_length, "messages")
        writing = await begin(
            served,
            [ids],
            asked.sampling(asked.most, served.tokenizer.vocab_size),
            stop=[*served.style_stops, *asked.stops],
            logprobs=asked.top_logprobs or 0 if asked.logprobs else None,
            schema=asked.response_format.schema() if asked.response_format else None,
        )
        form = ChatForm(served, writing, logprobs=asked.logprobs)
        return await _respond(request, form, asked, len(ids))

    async def completions(request: Request) -> Response:
        asked = await read_body(request, CompletionAsked)
        asked.check()
        served = language_model(models, asked.model)
        check_count(served, len(asked.prompts), asked.n)
        prompts = [await prompt_ids(served, prompt) for prompt in asked.prompts]
        for ids in prompts:
            check_length(ids, served.context_length)
        writing = await begin(
            served,
            prompts,
            asked.sampling(asked.max_tokens, served.tokenizer.vocab_size),
            stop=asked.stops,
            logprobs=asked.logprobs,
        )
        form = CompletionForm(served, writing, logprobs=asked.logprobs is not None)
        if asked.echo:
            texts = map(served.tokenizer.decode, prompts)
            form.before = [text for text in texts for _ in range(asked.n)]
        return await _respond(request, form, asked, sum(map(len, prompts)))

    return [
        Route("/v1/models", listed),
        Route("/v1/models/{name:path}", one),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
    ]


async def _respond(request: Request, form: Form, asked: Asked, prompt_tokens: int) -> Response:
    """The texts, whole or as they are written; nothing more is written once nobody listens."""
    writing = form.writing

    def usage() -> dict[str, int]:
        written = writing.tokens
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": written,
            "total_tokens": prompt_tokens + written,
        }

    async def events() -> AsyncIterator[str]:
        for opening in form.opening():
            yield as_event(opening)
        try:
            async for piece in writing:
                if (chunk := form.chunk(piece)) is not None:
                    yield as_event(chunk)
        except Exception as error:  # the status is sent already
            yield as_event(error_body(request.scope["path"], as_problem(error)))
            return
        if asked.with_usage:
            yield as_event(form.usage_chunk(usage()))
        yield "data: [DONE]\n\n"

    if asked.stream:
        await unless_gone(request, writing.begun(), writing.stop)
        return Streamed(events(), "text/event-stream", writing.stop)
    pieces = await unless_gone(request, writing.all(), writing.stop)
    return JSONResponse(form.whole(pieces, usage()))


def _model(served: Served) -> dict[str, object]:
    return {
        "id": served.name,
        "object": "model",
        "created": int(served.since),
        "owned_by": "groundup",
    }
