"""Open a GGUF file as a model, with its tokenizer: ``groundup generate model.gguf "…"``.

Everything is in the one file: metadata for the config and the tokenizer, and the tensors, which
are dequantized one after the other, so that opening needs little more memory than the fp32 model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from groundup.config import ModelConfig
from groundup.errors import UserError, note
from groundup.facts import Facts
from groundup.model.gpt import GPTModel
from groundup.options import describe_type, fits
from groundup.prompts import OWN, PROMPT_STYLES
from groundup.tokenizers import Tokenizer
from groundup.tokenizers.gguf import read_gguf_tokenizer
from groundup.weights.checkpoint import build_model
from groundup.weights.gguf_file import GGUFTensors, Header, Stored, read_header
from groundup.weights.gguf_names import (
    ENTRIES,
    KNOWN,
    NEUTRAL,
    OUR_SCALING,
    PARTS,
    ROPE_FREQUENCIES,
    gguf_rows,
    rope_scaling,
    shortest,
)
from groundup.weights.names import first_of, name_problems


def read_gguf_shape(path: Path) -> ModelConfig:
    """A file's model as a config; no weights are read.

    Raises:
        UserError: the file is damaged, or its model is not one of ours.
    """
    return _shape(path, read_header(path))


def open_gguf_model(
    path: Path, header: Header, device: torch.device | str = "cpu", drop_rate: float | None = None
) -> GPTModel:
    """Build the model of a file whose header was read; it is in fp32 and eval mode.

    Raises:
        UserError: the file is damaged, its model is not one of ours, or a tensor is missing,
            unexpected or misshapen.
    """
    cfg = _shape(path, header)
    rows = list(gguf_rows(cfg))
    weights = _weights(header, cfg.tie_weights)
    # Before anything is read: a name that is wrong is known from the header.
    if problems := name_problems(weights, [row.theirs for row in rows]):
        raise UserError(f"{path} does not match its metadata: {first_of(problems)}")
    tensors = GGUFTensors(path, weights, device)
    cfg = cfg if drop_rate is None else cfg.replace(drop_rate=drop_rate)
    return build_model(cfg, tensors, rows, str(path))


def open_gguf_tokenizer(path: Path, header: Header, vocab_size: int) -> Tokenizer:
    """The tokenizer of a file whose header was read.

    Raises:
        UserError: it is damaged, not byte-level BPE, or larger than the model's vocabulary.
    """
    try:
        tokenizer = read_gguf_tokenizer(header.metadata)
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"{path} is damaged: its tokenizer has {tokenizer.vocab_size} tokens, its embedding "
            f"{vocab_size} rows"
        )
    return tokenizer


def read_gguf_facts(path: Path) -> Facts:
    """What a file says of how it is prompted.

    Raises:
        UserError: it is damaged.
    """
    template = read_header(path).metadata.get("tokenizer.chat_template")
    if not isinstance(template, str):
        return Facts()
    styles = {style.chat_template(): name for name, style in PROMPT_STYLES.items()}
    return Facts(prompt_style=styles.get(template, OWN))


def _shape(path: Path, header: Header) -> ModelConfig:
    metadata, tensors = header.metadata, header.tensors
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in PARTS:
        raise UserError(
            f"{path} holds a model of the architecture {architecture!r:.60}; groundup opens "
            f"{', '.join(PARTS)}"
        )
    if metadata.get("split.count", 1) not in (0, 1):
        raise UserError(
            f"{path} is one of {metadata['split.count']!r:.20} parts; join them first with "
            "llama-gguf-split --merge"
        )
    prefix = f"{architecture}."
    said = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise UserError(f"{path} is not a complete model: token_embd.weight is missing")
    problems = list(_problems(said, architecture))
    if problems:
        raise UserError(f"{path} cannot be used: {'; '.join(problems)}")
    values = {e.field: shortest(said.get(e.key, e.default)) for e in ENTRIES[architecture]}
    values |= PARTS[architecture] | _switches(tensors, architecture)
    values |= {"vocab_size": embedding.shape[0], "drop_rate": 0.0}
    head = tensors.get("output.weight")
    values["tie_weights"] = head is None or _same_bytes(path, head, embedding)
    try:
        cfg = ModelConfig(**values).plain()
        if cfg.rope:
            cfg = cfg.replace(rope_scaling=_scaling(path, header, said, cfg))
            _check_heads(said, cfg)
        next(gguf_rows(cfg))  # raises if no architecture has this shape
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    return cfg


def _problems(said: Mapping[str, Any], architecture: str) -> Iterator[str]:
    """What of an architecture's metadata cannot be used."""
    for entry in ENTRIES[architecture]:
        if entry.key not in said:
            if entry.default is ...:
                yield f"its metadata lacks {architecture}.{entry.key}"
        elif not fits(said[entry.key], entry.kind):
            expected = describe_type(entry.kind)
            yield f"{architecture}.{entry.key} is {said[entry.key]!r:.60}; expected {expected}"
    for key, value in said.items():
        if key in NEUTRAL and value != NEUTRAL[key]:
            yield f"{architecture}.{key} is {value!r:.60}; groundup's is {NEUTRAL[key]!r}"
        elif key not in KNOWN:
            note(f"{architecture}.{key} ({value!r:.40}) means nothing to groundup: passed over")
    window = said.get("attention.sliding_window", 0)
    if window and not (fits(window, int) and window >= said.get("context_length", 0)):
        yield f"{architecture}.attention.sliding_window is {window!r:.60}; groundup has none"


def _switches(tensors: Mapping[str, Stored], architecture: str) -> dict[str, bool]:
    """Which biases there are, as the first block has them."""
    if architecture == "gpt2":
        return {}
    parts = {"qkv_bias": "attn_q", "attn_bias": "attn_output", "mlp_bias": "ffn_up"}
    return {switch: f"blk.0.{part}.bias" in tensors for switch, part in parts.items()}


def _check_heads(said: Mapping[str, Any], cfg: ModelConfig) -> None:
    """Queries, keys and values are equally wide, and all of each is turned."""
    for key in ("attention.value_length", "rope.dimension_count"):
        if said.get(key, cfg.head_size) != cfg.head_size:
            raise UserError(
                f"{key} is {said[key]!r:.60}, not the {cfg.head_size} columns that a head has"
            )


def _scaling(path: Path, header: Header, said: Mapping[str, Any], cfg: ModelConfig) -> str | None:
    """How rotary positions are slowed down for longer contexts, if they are."""
    found = header.tensors.get(ROPE_FREQUENCIES)
    divisors = None if found is None else GGUFTensors(path, {"": found})[""]
    ours = header.metadata.get(OUR_SCALING)
    return rope_scaling(said, ours, divisors, cfg.head_size, cfg.rope_theta)


def _weights(header: Header, tied: bool) -> dict[str, Stored]:
    """The tensors that are weights: a tied output layer that is stored all the same is none."""
    left_out = (ROPE_FREQUENCIES, *(("output.weight",) if tied else ()))
    return {name: stored for name, stored in header.tensors.items() if name not in left_out}


def _same_bytes(path: Path, a: Stored, b: Stored) -> bool:
    """Whether two tensors of a file hold the same, as llama.cpp wrote tied ones until 2025."""
    if (a.shape, a.kind) != (b.shape, b.kind):
        return False
    total, step = a.rows * a.row_bytes, 1 << 22
    with path.open("rb") as one, path.open("rb") as other:
        one.seek(a.offset)
        other.seek(b.offset)
        for first in range(0, total, step):
            size = min(step, total - first)
            if one.read(size) != other.read(size):
                return False
    return True
