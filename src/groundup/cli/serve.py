"""``groundup serve``: OpenAI's and Ollama's API for one's own models, and a page."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

from cyclopts import Parameter

from groundup.cli.app import Flag, WholeNumber, app, with_options
from groundup.config import PrecisionChoice, Quantization
from groundup.errors import UserError
from groundup.output import say
from groundup.serve.config import ServeConfig

NEEDED = ("starlette", "uvicorn", "prometheus_client")


@app.command
@with_options(Server=ServeConfig)
def serve(
    model: str,
    /,
    *more: str,
    style: str | None = None,
    device: str = "auto",
    precision: PrecisionChoice = "auto",
    tokenizer: str | None = None,
    n_heads: WholeNumber | None = None,
    checkpoint: str | None = None,
    quantize: Quantization | None = None,
    no_verify: Flag = False,
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
        style: the prompt style (alpaca, chatml, phi3, plain; model is its own chat template) of
            models that do not say it.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: fp32, bf16, or auto: bf16 where the hardware is fast at it.
        tokenizer: gpt2 or a directory, for a .pth that brings none.
        n_heads: attention heads, for a .pth that cannot say it.
        checkpoint: of a run: last, step-N, or history/step-N (its best one unless given).
        quantize: keep the matrices in fewer bytes, which is faster and a little less exact.
        no_verify: open it though a file is not as it was saved.
        no_auth: let anybody who reaches the server use it, without a key.
        allow_origin: a web page's origin that may call, such as https://example.org (may be given
            several times; no other page may, in a browser).
    """
    options = ServeConfig(**given, no_auth=no_auth, allow_origin=allow_origin)
    options.check()
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            raise UserError(
                f"the server needs the library {name}; pip install 'groundup[serve]' brings it"
            ) from None

    from groundup.runtime import resolve_runtime
    from groundup.serve.app import make_app
    from groundup.serve.listening import address_of, listen, run
    from groundup.serve.opening import Loading, open_models

    with listen(options.host, options.port) as listener:  # before the models, which take longer
        loading = Loading(
            resolve_runtime(device, precision),
            style=style,
            tokenizer=tokenizer,
            n_heads=n_heads,
            checkpoint=checkpoint,
            quantize=quantize,
            verify=not no_verify,
        )
        models = open_models([model, *more], loading, options, say)
        address = address_of(listener)
        say(f"serving {', '.join(served.name for served in models)} at {address}")
        say(f"OpenAI's API at {address}/v1, Ollama's at {address}; Ctrl-C ends it")
        try:
            run(make_app(models, options), options, listener, models.stop)
        finally:
            models.close()
