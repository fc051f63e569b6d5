"""``groundup export``: a model in somebody else's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from groundup.cli.app import app, opening_of, with_options
from groundup.output import say, show
from groundup.weights.open_config import OpenConfig


@app.command
@with_options(hide=["style", "device", "precision", "quantize"], Opening=OpenConfig)
def export(
    model: str,
    /,
    *,
    to: Literal["hf", "gguf", "course"],
    out: Path,
    dtype: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] | None = None,
    given: dict[str, Any],
) -> None:
    """Write a model for others: transformers, llama.cpp and Ollama, the course.

    It is read back and compared before it is called done.

    Args:
        model: a model directory, an adapter's directory (it is merged into its base model), a GGUF
            file, a .pth of the course, a ckpt.pt of nanoGPT, or the name of a downloaded or
            imported model. A classifier can only become hf.
        to: hf (a directory), gguf (a directory with Ollama's Modelfile), course (a .pth).
        out: what to write; it must not exist.
        dtype: of the weights in a GGUF file (f16 unless given); q8_0 to q4_0 take 8 to 4 bits each.
    """
    opening = opening_of(given, model)

    from groundup.weights.export import export as write
    from groundup.weights.load import load_model

    gpt, tokens = load_model(model, **opening.how)
    written = write(gpt, tokens, to, out, dtype=dtype)
    for path in written:
        show(path)
    if to == "gguf":
        say(f"for Ollama:\n  ollama create my-gpt -f {written[-1]}\n  ollama run my-gpt")
