"""The live page at ``/``: its files, and what it asks about the models that are served."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.data.instructions import encode_prompt
from groundup.errors import UserError
from groundup.judge.beside import reports_in
from groundup.prompts import Message, PromptStyle
from groundup.serve.asking import BadRequest, read_body
from groundup.serve.models import Models, Served
from groundup.serve.ollama_shapes import Said
from groundup.serve.page.tokenizer import texts_of
from groundup.serve.page.xray import check_length
from groundup.train.history import snapshots
from groundup.train.tracking import METRICS
from groundup.xray.take import architecture

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The kinds of files that pages are made of."""

HEADERS = {
    # Scripts and styles are files of this server, so nothing that a model wrote can run.
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for anew, and answered by its ETag: updates show at once
}

LONGEST = 200_000
"""Characters of a prompt: each of its tokens is drawn."""

_PROBE = "Xanadu"


@dataclass
class Prompt:
    """What is to be shown as a model reads it: a conversation, or a text."""

    model: str
    messages: list[Said] = field(default_factory=list)
    text: str | None = None

    @property
    def conversation(self) -> list[Message]:
        """The messages."""
        return [{"role": said.role, "content": said.content} for said in self.messages]


def routes(models: Models) -> list[BaseRoute]:
    """The page, and what it asks the server."""

    async def list_models(request: Request) -> Response:
        return JSONResponse([facts_of(served) for served in models])

    async def prompt(request: Request) -> Response:
        asked = await read_body(request, Prompt)
        served = models.get(asked.model)
        check_length(
            "".join([asked.text or "", *(said.content for said in asked.messages)]), LONGEST
        )
        return JSONResponse(await served.work(lambda: prompt_of(served, asked)))

    return [
        Route("/", _file_of("index.html")),
        Route("/web/{name}", _web),
        Route("/page/models", list_models),
        Route("/page/prompt", prompt, methods=["POST"]),
    ]


def facts_of(served: Served) -> dict[str, Any]:
    """What the page says of a model, and chooses its tabs by."""
    cfg, directory = served.model.cfg, served.directory
    return {
        "name": served.name,
        "kind": "classifier" if served.is_classifier else "language model",
        "architecture": architecture(cfg),
        "parameters": served.parameters,
        "vocab_size": cfg.vocab_size,
        "context_length": cfg.context_length,
        "labels": served.facts.labels,
        "adapter": served.adapter,
        "prompt_style": served.style.name if served.style else None,
        "system": served.style is not None and takes_system(served.style),
        "default_system": served.style.default_system if served.style else None,
        "run": directory is not None and (directory / METRICS).is_file(),
        "history": len(snapshots(directory)) if directory else 0,
        "judged": len(reports_in(directory)) if directory else 0,
    }


def takes_system(style: PromptStyle) -> bool:
    """Whether a system message would reach the model."""
    said: list[Message] = [
        {"role": "system", "content": _PROBE},
        {"role": "user", "content": "Hi"},
    ]
    try:
        return _PROBE in style.format_turns(said)
    except UserError:  # a template that knows none
        return False


def prompt_of(served: Served, asked: Prompt) -> dict[str, Any]:
    """The tokens that the model would read before it writes.

    Raises:
        UserError: it is no conversation, or the model has no style to write one in.
    """
    tokenizer = served.tokenizer
    if asked.text is not None:
        ids = tokenizer.encode_alone(asked.text)
    elif served.style is None:
        raise BadRequest(
            f"{served.name} has no prompt style, so it reads no messages; give a text", "messages"
        )
    else:
        ids = encode_prompt(asked.conversation, tokenizer, served.style)
    special = set(tokenizer.special_tokens.values())
    return {
        "tokens": [
            {"id": index, "text": text, "special": index in special}
            for index, text in zip(ids, texts_of(tokenizer, ids), strict=True)
        ],
        "context_length": served.model.cfg.context_length,
        "stop": list(served.style.stop) if served.style else [],
    }


async def _web(request: Request) -> Response:
    name = request.path_params["name"]
    kind = name[name.rfind(".") :]
    folder = files("groundup") / "web"
    if kind not in TYPES or name not in {file.name for file in folder.iterdir()}:
        raise HTTPException(404)
    content = (folder / name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = HEADERS | {"ETag": tag}
    if tag in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers | {"Content-Type": TYPES[kind]})


def _file_of(name: str) -> Any:
    async def file(request: Request) -> Response:
        request.path_params["name"] = name
        return await _web(request)

    return file
