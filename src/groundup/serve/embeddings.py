"""A text as one vector: the mean of the model's last hidden states over its tokens."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence

import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.model.door import device_of
from groundup.serve.asking import BadRequest, read_body
from groundup.serve.models import Models, Served
from groundup.serve.ollama import named
from groundup.serve.ollama_shapes import EmbedAsked
from groundup.serve.openai_shapes import EmbeddingsAsked, prompts_of
from groundup.serve.streams import unless_gone
from groundup.serve.texts import check_length, language_model, prompt_ids

MOST = 256
"""Texts of one request."""


def routes(models: Models) -> list[BaseRoute]:
    """The routes of both APIs."""

    async def openai(request: Request) -> Response:
        asked = await read_body(request, EmbeddingsAsked)
        served = language_model(models, asked.model)
        _check_size(asked.dimensions, served)
        vectors, tokens = await unless_gone(request, _embed(served, prompts_of(asked.input)))
        data = [
            {"object": "embedding", "index": i, "embedding": _as(asked.encoding_format, vector)}
            for i, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": served.name, "usage": usage})

    async def ollama(request: Request) -> Response:
        asked = await read_body(request, EmbedAsked)
        served = named(models, asked.model)
        _check_size(asked.dimensions, served)
        vectors, tokens = await unless_gone(request, _embed(served, prompts_of(asked.input)))
        return JSONResponse(
            {"model": asked.model, "embeddings": vectors, "prompt_eval_count": tokens}
        )

    return [
        Route("/v1/embeddings", openai, methods=["POST"]),
        Route("/api/embed", ollama, methods=["POST"]),
    ]


async def _embed(served: Served, texts: Sequence[str | list[int]]) -> tuple[list[list[float]], int]:
    """A vector for each text, and how many tokens they have together."""
    if not 1 <= len(texts) <= MOST:
        raise BadRequest(f"input has {len(texts)} texts; expected 1 to {MOST}", "input")
    if "" in texts or [] in texts:
        raise BadRequest("input has an empty text; expected one with at least a token", "input")
    prompts = [await prompt_ids(served, text) for text in texts]
    for ids in prompts:
        check_length(ids, served.context_length, "input")

    def mean(ids: list[int]) -> list[float]:
        hidden = served.model(torch.tensor([ids], device=device_of(served.model)), hidden=True)
        return hidden[0].float().mean(dim=0).tolist()

    # One at a time: what is being written goes on in between.
    vectors = [await served.work(lambda ids=ids: mean(ids)) for ids in prompts]
    return vectors, sum(map(len, prompts))


def _check_size(dimensions: int | None, served: Served) -> None:
    size = served.model.cfg.emb_dim
    if dimensions not in (None, size):
        raise BadRequest(
            f"dimensions is {dimensions}; the vectors of {served.name} have {size}", "dimensions"
        )


def _as(encoding: str, vector: list[float]) -> list[float] | str:
    if encoding == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
