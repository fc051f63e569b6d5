"""``groundup serve``: OpenAI's and Ollama's API for one's own models, and a page."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

from cyclopts import Parameter

from groundup.cli.app import Flag, app, opening_of, pick, with_options
from groundup.errors import UserError
from groundup.output import say
from groundup.serve.config import ServeConfig
from groundup.weights.open_config import OpenConfig

NEEDED = ("starlette", "uvicorn", "prometheus_client")


@app.command
@with_options(Opening=OpenConfig, Server=ServeConfig)
def serve(
    model: str,
    /,
    *more: str,
    no_auth: Flag = False,
    allow_origin: Annotated[list[str] | None, Parameter(negative=())] = None,
    given: dict[str, Any],
) -> None:
    """Serve models: OpenAI's API at /v1, Ollama's at /api, and a page at /.

    A model is called by its directory's name; NAME=MODEL gives another. Language models are
    chatted with and continue texts, classifiers sort them, and LoRA adapters of one model share
    its weights. Ctrl-C ends it, once what is being written is done.

    Args:
        model: a model directory, a GGUF file, a .pth of the course, or the name of a downloaded or
            imported model.
        more: further ones.
        no_auth: let anybody who reaches the server use it, without a key.
        allow_origin: a web page's origin that may call, such as https://example.org (may be given
            several times; no other page may, in a browser).
    """
    plain = [source for source in (model, *more) if "=" not in source]  # not NAME=MODEL
    opening = opening_of(given, *plain)
    options = ServeConfig(**pick(given, ServeConfig), no_auth=no_auth, allow_origin=allow_origin)
    options.check()
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            raise UserError(
                f"the server needs the library {name}; pip install 'groundup[serve]' brings it"
            ) from None

    from groundup.serve.app import make_app
    from groundup.serve.listening import address_of, listen, run
    from groundup.serve.opening import open_models

    with listen(options.host, options.port) as listener:  # before the models, which take longer
        models = open_models([model, *more], opening, options, say)
        address = address_of(listener)
        say(f"serving {', '.join(served.name for served in models)} at {address}")
        say(f"open it in a browser; OpenAI's API is at {address}/v1, Ollama's at {address}")
        say("Ctrl-C ends it")
        try:
            run(make_app(models, options), options, listener, models.stop)
        finally:
            models.close()
