"""What Ollama's API tells of the models that there are."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from torch import Tensor

from groundup import __version__
from groundup.errors import UserError
from groundup.model.quantized import QuantizedLinear
from groundup.serve.asking import BadRequest, read_body
from groundup.serve.models import Models, Served
from groundup.serve.ollama import LATEST, named, stamp
from groundup.serve.ollama_shapes import ShowAsked
from groundup.weights.architectures import architecture_of
from groundup.weights.tensors import weights_fingerprint

NEVER = "9999-12-31T23:59:59Z"
"""When a model leaves the memory."""


def routes(models: Models) -> list[BaseRoute]:
    """The routes of these."""
    digests: dict[str, str] = {}

    async def digest(served: Served) -> str:
        if served.name not in digests:
            digests[served.name] = await served.work(lambda: _digest(served))
        return digests[served.name]

    async def entry(served: Served) -> dict[str, Any]:
        name = served.name if ":" in served.name else served.name + LATEST
        return {
            "name": name,
            "model": name,
            "size": _size(served),
            "digest": await digest(served),
            "details": _details(served),
        }

    async def tags(request: Request) -> Response:
        told = [
            await entry(served) | {"modified_at": stamp(served.since)}
            for served in models
            if not served.is_classifier
        ]
        return JSONResponse({"models": told})

    async def running(request: Request) -> Response:
        told = [
            await entry(served)
            | {
                "expires_at": NEVER,
                "size_vram": 0 if _on_cpu(served) else _size(served),
                "context_length": served.context_length,
            }
            for served in models
            if not served.is_classifier
        ]
        return JSONResponse({"models": told})

    async def show(request: Request) -> Response:
        asked = await read_body(request, ShowAsked)
        name = asked.model or asked.name
        if not name:
            raise BadRequest("model is missing", "model")
        return JSONResponse(_shown(named(models, name)))

    async def version(request: Request) -> Response:
        return JSONResponse({"version": __version__})

    return [
        Route("/api/tags", tags),
        Route("/api/ps", running),
        Route("/api/show", show, methods=["POST"]),
        Route("/api/version", version),
    ]


def _shown(served: Served) -> dict[str, Any]:
    style, cfg = served.style, served.model.cfg
    family = _family(served)
    info = {
        "general.architecture": family,
        "general.parameter_count": served.parameters,
        f"{family}.context_length": cfg.context_length,
        f"{family}.embedding_length": cfg.emb_dim,
        f"{family}.block_count": cfg.n_layers,
        f"{family}.attention.head_count": cfg.n_heads,
        f"{family}.vocab_size": cfg.vocab_size,
    }
    return {
        "modelfile": "",
        "parameters": "".join(f"stop {json.dumps(stop)}\n" for stop in served.style_stops),
        "template": style.chat_template() if style is not None else "",
        "details": _details(served),
        "model_info": info,
        "capabilities": ["completion", "embedding"],
        "modified_at": stamp(served.since),
    }


def _details(served: Served) -> dict[str, Any]:
    count, family = served.parameters, _family(served)
    size = f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"
    quantized = _quantized(served)
    kind = quantized[0].kind if quantized else {2: "f16", 4: "f32"}[_tensors(served)[0].itemsize]
    return {
        "parent_model": "",
        "format": "groundup",
        "family": family,
        "families": [family],
        "parameter_size": size,
        "quantization_level": kind.upper(),
    }


def _quantized(served: Served) -> list[QuantizedLinear]:
    return [m for m in served.model.modules() if isinstance(m, QuantizedLinear)]


def _family(served: Served) -> str:
    try:
        return architecture_of(served.model.cfg).name
    except UserError:  # a mixture of parts
        return "gpt"


def _digest(served: Served) -> str:
    """What tells this model from another one: the SHA-256 of its files, or of its weights."""
    if served.facts.digests:
        said = json.dumps(served.facts.digests, sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()
    return weights_fingerprint(t for t in _tensors(served) if t.dim())


def _tensors(served: Served) -> list[Tensor]:
    return [*served.model.parameters(), *served.model.buffers()]


def _size(served: Served) -> int:
    return sum(tensor.nbytes for tensor in _tensors(served))


def _on_cpu(served: Served) -> bool:
    return _tensors(served)[0].device.type == "cpu"
