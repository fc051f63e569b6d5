"""Open a model wherever it comes from: our own directories and everybody else's formats."""

from __future__ import annotations

from pathlib import Path

import torch

from groundup.config import PRESETS, ModelConfig
from groundup.data.sources import MODEL_NAMES, cached
from groundup.errors import UserError
from groundup.files import read_json
from groundup.model.classifier import is_classifier, to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.lora import merge_lora
from groundup.tokenizers import (
    Tokenizer,
    get_gpt2_tokenizer,
    get_tokenizer,
    load_openai_tokenizer,
)
from groundup.weights.checkpoint import RunNotes, load_directory
from groundup.weights.huggingface import CONFIG, read_labels, read_model_config
from groundup.weights.lora import ADAPTER_CONFIG, adapter_classes, load_adapter
from groundup.weights.openai import is_openai_directory, load_openai_model
from groundup.weights.torch_files import load_torch_file

GPT2_VOCAB_SIZES = (50257, 50304)
"""GPT-2's, and the same padded to a multiple of 64, as in nanoGPT."""


def load_model(
    source: str | Path,
    device: torch.device | str = "cpu",
    *,
    drop_rate: float | None = None,
    n_heads: int | None = None,
    tokenizer: str | None = None,
) -> tuple[GPTModel, Tokenizer]:
    """Open a language model; it is in fp32 and eval mode.

    Args:
        source: a model directory of ours or of Hugging Face's GPT-2, an adapter's directory, a
            directory of OpenAI's TensorFlow files, a ``.pth`` of the course, a ``ckpt.pt`` of
            nanoGPT, or the name of a downloaded model such as ``gpt2``.
        device: where the weights go.
        drop_rate: another dropout probability than the saved one, to train on.
        n_heads: attention heads, for a ``.pth`` that cannot say it.
        tokenizer: ``gpt2`` or a directory, for a file that brings none.

    Raises:
        UserError: it is missing or damaged, or not such a model.
    """
    model, tokens = load_any(
        source, device, drop_rate=drop_rate, n_heads=n_heads, tokenizer=tokenizer
    )
    if is_classifier(model):
        labels = labels_of(resolve_source(source))
        raise UserError(
            f"{source} is a classifier ({', '.join(labels)}), not a language model; "
            f"use `groundup classify predict {source} TEXT`"
        )
    return model, tokens


def load_any(
    source: str | Path,
    device: torch.device | str = "cpu",
    *,
    drop_rate: float | None = None,
    n_heads: int | None = None,
    tokenizer: str | None = None,
) -> tuple[GPTModel, Tokenizer]:
    """Open a language model or a classifier, whichever it is; see :func:`load_model`."""
    path = resolve_source(source)
    brings_heads = path.is_dir()
    brings_tokenizer = brings_heads and not is_openai_directory(path)
    if (n_heads and brings_heads) or (tokenizer and brings_tokenizer):
        raise UserError(f"{source} says itself what n_heads and tokenizer are; leave them out")
    if brings_tokenizer:
        return _open_directory(path, device, drop_rate=drop_rate)
    model = load_model_alone(path, device, drop_rate=drop_rate, n_heads=n_heads)
    if tokenizer is None and (path / "vocab.bpe").exists():
        return model, load_openai_tokenizer(path)
    return model, _tokenizer_for(model.cfg, tokenizer, path)


def load_classifier(
    source: str | Path, device: torch.device | str = "cpu"
) -> tuple[GPTModel, Tokenizer, list[str]]:
    """Open a classifier's directory, ours or Hugging Face's, or an adapter's; in eval mode.

    Returns:
        The model, its tokenizer, and the names of its classes in the order of its scores.

    Raises:
        UserError: it is missing or damaged, or a language model's.
    """
    path = resolve_source(source)
    labels = labels_of(path)
    if not labels:
        if path.is_dir() and not (is_openai_directory(path) or _is_adapter(path)):
            read_model_config(path)  # says so if it is no model at all
        raise UserError(
            f"{source} is a language model, not a classifier; make one of it with "
            f"`groundup classify train --model {source} --data FILE --out DIR`"
        )
    return *_open_directory(path, device), labels


def load_model_alone(
    path: Path,
    device: torch.device | str = "cpu",
    *,
    drop_rate: float | None = None,
    n_heads: int | None = None,
) -> GPTModel:
    """Open a model of any format without its tokenizer; see :func:`load_model`."""
    if path.is_file():
        return load_torch_file(path, n_heads=n_heads, drop_rate=drop_rate).to(device)
    if is_openai_directory(path):
        return load_openai_model(path, device, drop_rate=drop_rate)
    return _open_directory(path, device, drop_rate=drop_rate)[0]


def _open_directory(
    path: Path, device: torch.device | str = "cpu", *, drop_rate: float | None = None
) -> tuple[GPTModel, Tokenizer]:
    """Open a model directory, or an adapter's: the adapter is merged into its base model."""
    if not _is_adapter(path):
        return load_directory(path, device, drop_rate=drop_rate)
    base = read_json(path / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise UserError(f"{path / ADAPTER_CONFIG} does not say which model it adapts")
    # A .pth cannot say its heads; the run that trained the adapter on it was told.
    n_heads = RunNotes.read(path).config.get("n_heads") if Path(base).is_file() else None
    try:
        model, tokenizer = load_model(base, device, drop_rate=drop_rate, n_heads=n_heads)
    except UserError as error:
        raise UserError(
            f"{path} adapts the model {base}, which cannot be opened: {error}"
        ) from error
    labels = labels_of(path)
    if labels:
        to_classifier(model, len(labels))
    return merge_lora(load_adapter(path, model)).eval(), tokenizer


def _is_adapter(path: Path) -> bool:
    return (path / ADAPTER_CONFIG).exists() and not (path / CONFIG).exists()


def labels_of(path: Path) -> list[str]:
    """The names of the classes of the classifier in a directory; none for any other model.

    Where nothing names them, they are called as in transformers: ``LABEL_0``, ``LABEL_1``, ….
    """
    if _is_adapter(path):
        named = RunNotes.read(path).labels
        return named or [f"LABEL_{index}" for index in range(adapter_classes(path))]
    return read_labels(path) if (path / CONFIG).exists() else []


def resolve_source(source: str | Path) -> Path:
    """The path of a model that is given as a path, or as the name of a downloaded one.

    Raises:
        UserError: there is neither.
    """
    path = Path(source)
    if path.exists():
        return path
    if str(source) in MODEL_NAMES:
        found = cached(str(source))
        if found is not None:
            return found
        raise UserError(
            f"{source} is not here yet; run `groundup download {source}`, or name a model directory"
        )
    if str(source) in PRESETS:
        raise UserError(f"{source} is a preset, a shape without weights; name a model directory")
    raise UserError(f"there is no model directory {str(source)!r}")


def _tokenizer_for(cfg: ModelConfig, asked: str | None, path: Path) -> Tokenizer:
    """The tokenizer of a model that brings none."""
    if asked is not None:
        tokenizer = get_tokenizer(asked)
    elif cfg.vocab_size in GPT2_VOCAB_SIZES:
        tokenizer = get_gpt2_tokenizer()
    else:
        raise UserError(
            f"{path} brings no tokenizer, and its vocabulary of {cfg.vocab_size} tokens is not "
            "GPT-2's; name the tokenizer's directory with --tokenizer"
        )
    if tokenizer.vocab_size > cfg.vocab_size:
        raise UserError(
            f"the tokenizer {asked} has {tokenizer.vocab_size} tokens, but {path} knows only "
            f"{cfg.vocab_size}; name the tokenizer that it was trained with"
        )
    return tokenizer
