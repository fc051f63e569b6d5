"""Open a model wherever it comes from: our own directories and everybody else's formats.

``load_model`` asks each format of a list whether the path is one of its own. A new format is one
more :class:`Format` in that list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from groundup.config import ModelConfig, Quantization
from groundup.errors import UserError
from groundup.facts import Facts
from groundup.files import read_json
from groundup.model.classifier import to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.lora import merge_lora
from groundup.model.quantized import quantize as quantize_model
from groundup.prompts import OWN
from groundup.snapshot import read_whole
from groundup.tokenizers import (
    Tokenizer,
    get_gpt2_tokenizer,
    get_tokenizer,
    load_openai_tokenizer,
)
from groundup.tokenizers.reading import has_template
from groundup.weights.checkpoint import open_directory
from groundup.weights.finding import resolve_source
from groundup.weights.gguf_file import is_gguf, read_header
from groundup.weights.gguf_read import (
    open_gguf_model,
    open_gguf_tokenizer,
    read_gguf_facts,
    read_gguf_shape,
)
from groundup.weights.hf_config import CONFIG, read_labels, read_model_config
from groundup.weights.lora import ADAPTER_CONFIG, adapter_classes, put_adapter, read_adapter
from groundup.weights.openai import is_openai_directory, load_openai_model
from groundup.weights.torch_files import load_torch_file

GPT2_VOCAB_SIZES = (50257, 50304)
"""GPT-2's, and the same padded to a multiple of 64, as in nanoGPT."""


@dataclass(frozen=True)
class Asked:
    """What a caller says besides the path."""

    device: torch.device | str = "cpu"
    drop_rate: float | None = None
    n_heads: int | None = None
    verify: bool = True


Opened = tuple[GPTModel, Tokenizer | None]
"""A model, and its tokenizer if the format has one."""


@dataclass(frozen=True)
class Format:
    """One way in which models are stored.

    Attributes:
        matches: whether a path is one of these.
        open: opens it, in fp32 and eval mode.
        facts: what is known about it without opening it.
        shape: the model's shape, where that takes less than opening it.
        says_heads: whether it says how many attention heads there are.
        says_tokens: whether it always brings its tokenizer.
    """

    matches: Callable[[Path], bool]
    open: Callable[[Path, Asked], Opened]
    facts: Callable[[Path], Facts] = lambda path: Facts()
    shape: Callable[[Path], ModelConfig] | None = None
    says_heads: bool = True
    says_tokens: bool = True


def load_model(
    source: str | Path,
    device: torch.device | str = "cpu",
    *,
    drop_rate: float | None = None,
    n_heads: int | None = None,
    tokenizer: str | None = None,
    checkpoint: str | None = None,
    expect: Callable[[Facts, str | Path], None] = lambda facts, source: None,
    quantize: Quantization | None = None,
    verify: bool = True,
) -> tuple[GPTModel, Tokenizer]:
    """Open a language model or a classifier; it is in fp32 and eval mode.

    What it is, its labels and its prompt style are at ``model.facts``. It is one save's, whole,
    even if the directory is saved to meanwhile.

    Args:
        source: a model directory of ours or of Hugging Face's, an adapter's directory, a GGUF
            file, a directory of OpenAI's TensorFlow files, a ``.pth`` of the course, a ``ckpt.pt``
            of nanoGPT, or the name of a downloaded or imported model such as ``gpt2``.
        device: where the weights go.
        drop_rate: another dropout probability than the saved one, to train on.
        n_heads: attention heads, for a ``.pth`` that cannot say it.
        tokenizer: ``gpt2`` or a directory, for a file that brings none.
        checkpoint: of a run: ``last``, or ``step-N``; its best model unless given.
        expect: raises ``UserError`` if what the model says of itself is not what is wanted; asked
            before the weights are read.
        quantize: ``fp16``, ``int8`` or ``int4``: keep its matrices in fewer bytes, to write texts
            faster; it cannot be trained then.
        verify: whether to compare the files with the SHA-256 that were saved with them.

    Raises:
        UserError: it is missing or damaged, or not such a model.
    """
    path = resolve_source(source, checkpoint)
    asked = Asked(device, drop_rate, n_heads, verify)

    def open_it() -> tuple[GPTModel, Tokenizer]:
        found = _format_of(path)
        if (n_heads and found.says_heads) or (tokenizer and found.says_tokens):
            raise UserError(f"{source} says itself what n_heads and tokenizer are; leave them out")
        facts = found.facts(path)
        expect(facts, source)
        model, tokens = found.open(path, asked)
        if tokenizer is not None or tokens is None:
            tokens = _tokenizer_for(model.cfg, tokenizer, path)
        model.facts = facts
        return (model if quantize is None else quantize_model(model, quantize)), tokens

    return read_whole(path, open_it, verify=verify)


def read_facts(source: str | Path, checkpoint: str | None = None, *, verify: bool = True) -> Facts:
    """What is known about a model without opening it.

    Raises:
        UserError: there is no such model, or what it says of itself is damaged.
    """
    path = resolve_source(source, checkpoint)
    return read_whole(path, lambda: _format_of(path).facts(path), verify=verify, part=None)


def read_shape(
    source: str | Path, n_heads: int | None = None, *, verify: bool = True
) -> tuple[ModelConfig, Facts]:
    """A model's shape and facts, without its weights and its tokenizer where that can be.

    Raises:
        UserError: there is no such model, or it is damaged.
    """
    path = resolve_source(source)

    def look() -> tuple[ModelConfig, Facts]:
        found = _format_of(path)
        facts = found.facts(path)
        if found.shape is not None:
            return found.shape(path), facts
        return found.open(path, Asked(n_heads=n_heads, verify=verify))[0].cfg, facts

    return read_whole(path, look, verify=verify, part=None)


def says_heads(source: str | Path) -> bool:
    """Whether a model says how many attention heads it has; a ``.pth`` does not.

    Raises:
        UserError: there is no such model.
    """
    return _format_of(resolve_source(source)).says_heads


def expect_language_model(facts: Facts, source: str | Path) -> None:
    """Raise ``UserError`` if this is a classifier."""
    if facts.is_classifier:
        raise UserError(
            f"{source} is a classifier ({', '.join(facts.labels)}), not a language model; "
            f"use `groundup classify predict {source} TEXT`"
        )


def expect_classifier(facts: Facts, source: str | Path) -> None:
    """Raise ``UserError`` if this is a language model."""
    if not facts.is_classifier:
        raise UserError(
            f"{source} is a language model, not a classifier; make one of it with "
            f"`groundup classify train --model {source} --data FILE --out DIR`"
        )


def _format_of(path: Path) -> Format:
    return next(found for found in FORMATS if found.matches(path))


def _open_openai(path: Path, asked: Asked) -> Opened:
    model = load_openai_model(path, asked.device, drop_rate=asked.drop_rate)
    return model, load_openai_tokenizer(path) if (path / "vocab.bpe").exists() else None


def _is_torch_file(path: Path) -> bool:
    return path.is_file() and not is_gguf(path)


def _open_torch_file(path: Path, asked: Asked) -> Opened:
    model = load_torch_file(path, n_heads=asked.n_heads, drop_rate=asked.drop_rate)
    return model.to(asked.device), None


def _is_adapter(path: Path) -> bool:
    return (path / ADAPTER_CONFIG).exists() and not (path / CONFIG).exists()


def _open_adapter(path: Path, asked: Asked) -> Opened:
    """The adapter's base model, with the adapter merged into it."""
    base = _base_of(path)
    facts = _adapter_facts(path)
    try:
        model, tokenizer = load_model(
            base,
            asked.device,
            drop_rate=asked.drop_rate,
            # A .pth cannot say its heads; the run that trained the adapter on it was told.
            n_heads=None if says_heads(base) else facts.base.n_heads,
            expect=expect_language_model,
            verify=asked.verify,
        )
    except UserError as error:
        raise UserError(
            f"{path} adapts the model {base}, which cannot be opened: {error}"
        ) from error
    if facts.labels:
        to_classifier(model, len(facts.labels))
    put_adapter(path, model, read_adapter(path, model.cfg))
    return merge_lora(model).eval(), tokenizer


def _base_of(path: Path) -> str:
    """The model that an adapter adapts: what its config says, followed to see that it ends."""
    seen, at = [path.resolve()], path
    bases: list[str] = []
    while _is_adapter(at):
        base = read_json(at / ADAPTER_CONFIG).get("base_model_name_or_path")
        if not base or not isinstance(base, str) or not base.isprintable():
            raise UserError(f"{at / ADAPTER_CONFIG} does not say which model it adapts")
        bases.append(base)
        try:
            at = Path(base)
            at.exists()
        except OSError as error:  # a name longer than any
            raise UserError(f"{path} adapts {base!r:.60}: {error.strerror}") from error
        if at.resolve() in seen:
            raise UserError(
                f"{path} adapts itself, in the end: {' → '.join(bases)}; name its model"
            )
        seen.append(at.resolve())
    return bases[0]


def _adapter_facts(path: Path) -> Facts:
    """Our own, or as transformers would name the classes: ``LABEL_0``, ``LABEL_1``, …."""
    facts = Facts.read(path) or Facts()
    facts.kind = "adapter"
    facts.labels = facts.labels or [f"LABEL_{index}" for index in range(adapter_classes(path))]
    return facts


def _open_directory(path: Path, asked: Asked) -> Opened:
    return open_directory(path, asked.device, asked.drop_rate)


def _directory_facts(path: Path) -> Facts:
    """Our own; Hugging Face's config says whether it is a classifier, and names the classes."""
    if not path.is_dir() or not (path / CONFIG).exists():
        read_model_config(path)  # says what is missing
    facts = Facts.read(path) or Facts()
    facts.labels = read_labels(path)
    facts.kind = "classifier" if facts.labels else "language model"
    if facts.prompt_style is None and has_template(path):
        facts.prompt_style = OWN
    return facts


def _open_gguf(path: Path, asked: Asked) -> Opened:
    header = read_header(path)
    model = open_gguf_model(path, header, asked.device, asked.drop_rate)
    return model, open_gguf_tokenizer(path, header, model.cfg.vocab_size)


FORMATS = (
    Format(is_openai_directory, _open_openai, says_tokens=False),
    Format(_is_adapter, _open_adapter, _adapter_facts),
    Format(is_gguf, _open_gguf, read_gguf_facts, read_gguf_shape),
    Format(_is_torch_file, _open_torch_file, says_heads=False, says_tokens=False),
    Format(lambda path: True, _open_directory, _directory_facts, read_model_config),
)
"""All formats, the most particular ones first; what is none of the others is a model directory."""


def _tokenizer_for(cfg: ModelConfig, asked: str | None, path: Path) -> Tokenizer:
    """The tokenizer of a model that brings none."""
    if asked is not None:
        tokenizer = get_tokenizer(asked)
    elif cfg.vocab_size in GPT2_VOCAB_SIZES:
        tokenizer = get_gpt2_tokenizer()
    else:
        raise UserError(
            f"{path} brings no tokenizer, and its vocabulary of {cfg.vocab_size} tokens is not "
            "GPT-2's; name the tokenizer's directory with --tokenizer (of nanoGPT's characters, "
            "name their meta.pkl, to be told how to convert it)"
        )
    if tokenizer.vocab_size > cfg.vocab_size:
        raise UserError(
            f"the tokenizer {asked} has {tokenizer.vocab_size} tokens, but {path} knows only "
            f"{cfg.vocab_size}; name the tokenizer that it was trained with"
        )
    return tokenizer
