"""Models out to everyone else: Hugging Face, llama.cpp and Ollama, the course.

Every export is read back and compared before it is called done.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from groundup.errors import UserError
from groundup.facts import Facts
from groundup.model.classifier import is_classifier
from groundup.model.gpt import GPTModel
from groundup.tokenizers import Tokenizer
from groundup.weights.checkpoint import load_directory, save_model
from groundup.weights.gguf import DType, export_gguf
from groundup.weights.modelfile import modelfile
from groundup.weights.torch_files import load_torch_file, save_course_file

Format = Literal["hf", "gguf", "course"]


def export(
    model: GPTModel,
    tokenizer: Tokenizer,
    to: Format,
    out: str | Path,
    *,
    dtype: DType | None = None,
    facts: Facts | None = None,
) -> list[Path]:
    """Write a model in somebody else's format and read it back.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        to: ``hf`` writes a directory, ``gguf`` a directory with a ``.gguf`` and
            Ollama's ``Modelfile``, ``course`` a ``.pth``.
        out: where to; it must not exist, except as an empty directory.
        dtype: of the weights in a GGUF file (f16 by default); the other formats are fp32.
        facts: go into the model card and ``groundup.json`` of ``hf``, and tell ``gguf`` the prompt
            style; what the model was opened with, unless given.

    Returns:
        What was written, for people to look at.

    Raises:
        UserError: ``out`` exists, the disk is full, or the format cannot hold this model.
    """
    if dtype is not None and to != "gguf":
        raise UserError(f"dtype {dtype} is for gguf; {to} is written in fp32: leave it out")
    if to != "hf" and is_classifier(model):
        raise UserError(f"{to} is a format for language models, and this is a classifier; use hf")
    dtype, out = dtype or "f16", Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"{out} exists; choose another --out")
    if to == "course":
        save_course_file(model, out)
        _compare(model, lambda: load_torch_file(out, n_heads=model.cfg.n_heads), out)
        return [out]
    if to == "hf":
        save_model(out, model, tokenizer, facts)
        _compare(model, lambda: load_directory(out)[0], out)
        return [out]
    name = out.resolve().name
    weights = out / f"{name}-{dtype}.gguf"
    facts = facts or model.facts
    prompt_style = facts.prompt_style if facts else None
    # It compares by itself.
    export_gguf(model, tokenizer, weights, dtype, name=name, prompt_style=prompt_style)
    recipe = out / "Modelfile"
    recipe.write_text(
        modelfile(
            weights.name,
            prompt_style=prompt_style,
            stop=list(tokenizer.special_tokens),
            parameters={"temperature": 0.8, "top_k": 40},
            context_length=model.cfg.context_length,
        ),
        encoding="utf-8",
        newline="\n",
    )
    return [weights, recipe]


def _compare(model: GPTModel, load: Callable[[], GPTModel], out: Path) -> None:
    """Check that what was written holds the same numbers, bit for bit."""
    ours, theirs = model.state_dict(), load().state_dict()
    wrong = [name for name in ours if not _same(ours[name], theirs.get(name))]
    wrong += [name for name in theirs if name not in ours and theirs[name].any()]
    if wrong:
        raise UserError(
            f"{out} was written, but reads back differently ({', '.join(wrong[:5])}); "
            "do not use it, and please report this"
        )


def _same(ours: torch.Tensor, theirs: torch.Tensor | None) -> bool:
    return theirs is not None and torch.equal(ours.cpu(), theirs)
