"""Single-file checkpoints: the course's ``.pth`` state dicts, and nanoGPT's ``ckpt.pt``.

Both are opened with ``torch.load(weights_only=True)``: tensors and plain values, nothing else. A
file that needs more would run whatever code its maker put into it, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.files import atomic_file
from groundup.model.gpt import GPTModel
from groundup.model.hollow import hollow
from groundup.weights.architectures import GPT2, architecture_of
from groundup.weights.checkpoint import build_model
from groundup.weights.names import Row, nanogpt_rows, unwrapped
from groundup.weights.tensors import read_torch_file

GPT2_HEAD_DIM, COURSE_EPS = 64, 1e-5
"""Columns per head in every GPT-2; a state dict does not say how many heads there are."""


def load_torch_file(
    path: Path, *, n_heads: int | None = None, drop_rate: float | None = None
) -> GPTModel:
    """Open a course ``.pth`` or a nanoGPT ``ckpt.pt`` as a model in fp32 and eval mode.

    Args:
        path: the file.
        n_heads: attention heads; by default nanoGPT's file says it, and for the course's each
            head has 64 columns, as in GPT-2.
        drop_rate: dropout for further training; none by default.

    Raises:
        UserError: the file is damaged, needs unpickling, or does not hold such a model.
    """
    content = read_torch_file(path)
    strange = [name for name in content if not isinstance(name, str)]
    if strange:
        raise UserError(f"{path} is not a state dict: it has the key {strange[0]!r:.60}")
    if "model_args" in content and "model" in content:
        return _nanogpt(content, path, drop_rate)
    for key in ("model_state_dict", "state_dict", "model"):  # saved beside an optimizer's
        if isinstance(content.get(key), Mapping):
            content = content[key]
    state = {ours: content[theirs] for ours, theirs in unwrapped(content, str(path)).items()}
    strange = [name for name, t in state.items() if not isinstance(t, Tensor)]
    if strange or "tok_emb.weight" not in state:
        found = ", ".join(list(state)[:5]) or "nothing"
        raise UserError(
            f"{path} is not a state dict of the course's GPTModel: it has no tok_emb.weight, but "
            f"{found} …"
        )
    cfg = _course_config(state, path, n_heads, drop_rate)
    return build_model(cfg, _without_masks(state, cfg), _course_rows(cfg), str(path))


def save_course_file(model: GPTModel, path: Path) -> None:
    """Write the ``.pth`` that the course's own ``GPTModel`` loads, causal masks included.

    Raises:
        UserError: the disk is full or cannot be written to, or the course's class cannot hold it.
    """
    cfg = model.cfg
    if architecture_of(cfg) is not GPT2 or cfg.norm_eps != COURSE_EPS:
        raise UserError(
            f"the course's GPTModel is a GPT-2 whose norms have an eps of {COURSE_EPS:g}; this "
            f"model is a {architecture_of(cfg).title} with {cfg.norm_eps:g}: use --to hf"
        )
    if cfg.feed_forward != "gelu" or cfg.feed_forward_dim != 4 * cfg.emb_dim:
        raise UserError(
            "the course's GPTModel has feed-forward networks of 4 * emb_dim columns with the tanh "
            f"GELU, this model {cfg.feed_forward_dim} columns and {cfg.feed_forward}; use --to hf"
        )
    state = {name: t.detach().cpu() for name, t in model.state_dict().items()}
    T = model.cfg.context_length
    for i in range(model.cfg.n_layers):
        state[f"trf_blocks.{i}.att.mask"] = torch.triu(torch.ones(T, T), diagonal=1)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)  # a file of Python's says what the system says


def _course_config(
    state: Mapping[str, Tensor], path: Path, n_heads: int | None, drop_rate: float | None
) -> ModelConfig:
    """Read the shape off the tensors."""
    sizes = [tuple(state[n].shape) for n in ("tok_emb.weight", "pos_emb.weight") if n in state]
    if len(sizes) != 2 or any(len(size) != 2 for size in sizes):
        raise UserError(f"{path}: tok_emb.weight and pos_emb.weight must both be matrices")
    (vocab_size, emb_dim), (context_length, _) = sizes
    if n_heads is None:
        if emb_dim % GPT2_HEAD_DIM:
            raise UserError(
                f"{path} does not say how many attention heads the model has, and emb_dim "
                f"{emb_dim} is no multiple of {GPT2_HEAD_DIM}; say it with --n-heads"
            )
        n_heads = emb_dim // GPT2_HEAD_DIM
    blocks = {m[1] for name in state if (m := re.match(r"trf_blocks\.(\d+)\.", name))}
    head, wide = state.get("out_head.weight"), state.get("trf_blocks.0.ff.layers.0.weight")
    inner = len(wide) if wide is not None and wide.dim() else 4 * emb_dim
    return ModelConfig(
        vocab_size=vocab_size,
        context_length=context_length,
        emb_dim=emb_dim,
        n_heads=n_heads,
        n_layers=len(blocks),
        drop_rate=drop_rate or 0.0,
        qkv_bias="trf_blocks.0.att.W_query.bias" in state,
        tie_weights=head is None or torch.equal(head, state["tok_emb.weight"]),
        hidden_dim=None if inner == 4 * emb_dim else inner,
    )


def _course_rows(cfg: ModelConfig) -> list[Row]:
    """The course's names are ours."""
    with hollow():
        names = GPTModel(cfg).state_dict()
    return [Row(n, (n,)) for n in names if not (cfg.tie_weights and n == "out_head.weight")]


def _without_masks(state: Mapping[str, Tensor], cfg: ModelConfig) -> dict[str, Tensor]:
    return {
        name: tensor
        for name, tensor in state.items()
        if not name.endswith(".att.mask") and not (cfg.tie_weights and name == "out_head.weight")
    }


def _nanogpt(content: Mapping[str, Any], path: Path, drop_rate: float | None) -> GPTModel:
    given, state = content["model_args"], content["model"]
    if not isinstance(given, Mapping) or not isinstance(state, Mapping):
        raise UserError(f"{path} is no checkpoint of nanoGPT: model and model_args must be by name")
    names = {
        "vocab_size": "vocab_size",
        "block_size": "context_length",
        "n_embd": "emb_dim",
        "n_head": "n_heads",
        "n_layer": "n_layers",
    }
    lacking = [name for name in names if name not in given]
    if lacking:
        raise UserError(f"{path}: its model_args lack {', '.join(lacking)}")
    shape = {ours: given[theirs] for theirs, ours in names.items()}
    cfg = ModelConfig(**shape, drop_rate=drop_rate or 0.0, qkv_bias=True, tie_weights=True)
    tensors = {ours: state[theirs] for ours, theirs in unwrapped(state, str(path)).items()}
    tensors = {n: t for n, t in tensors.items() if not n.endswith(".attn.bias")}  # masks
    strange = [name for name, t in tensors.items() if not isinstance(t, Tensor)]
    if strange:
        raise UserError(f"{path}: {', '.join(strange[:5])} in its model: no tensor")
    rows = list(nanogpt_rows(cfg))
    if not given.get("bias", True):
        # nanoGPT without biases computes what GPT-2 computes with biases of 0.
        for row in rows:
            if row.theirs.endswith(".bias") and row.theirs not in tensors:
                tensors[row.theirs] = _zeros_for(row, cfg)
    return build_model(cfg, tensors, rows, str(path))


def _zeros_for(row: Row, cfg: ModelConfig) -> Tensor:
    wide = row.theirs.endswith("mlp.c_fc.bias")
    return torch.zeros(cfg.feed_forward_dim if wide else len(row.ours) * cfg.emb_dim)
