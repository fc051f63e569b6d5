"""The names of the weights in Hugging Face's GPT-2, as one table that is read in both directions.

Hugging Face stores GPT-2's linear layers as ``Conv1D``, whose matrices are ``(in, out)``: the
transpose of ``nn.Linear``'s. And it keeps query, key and value in one matrix, side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.config import ModelConfig
from groundup.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Row:
    """One tensor over there and what it is here.

    Attributes:
        theirs: its name in the file.
        ours: our parameter's name; several if theirs holds them side by side.
        transposed: whether theirs is the transpose of ours.
        zeros: whether ours does not exist, and theirs must be all zeros.
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False
    zeros: bool = False


def gpt2_rows(cfg: ModelConfig) -> Iterator[Row]:
    """The table for Hugging Face's ``GPT2LMHeadModel`` of this shape."""
    yield Row("transformer.wte.weight", ("tok_emb.weight",))
    yield Row("transformer.wpe.weight", ("pos_emb.weight",))
    for i in range(cfg.n_layers):
        theirs, ours = f"transformer.h.{i}", f"trf_blocks.{i}"
        qkv = [f"{ours}.att.{name}" for name in ("W_query", "W_key", "W_value")]
        yield Row(f"{theirs}.ln_1.weight", (f"{ours}.norm1.scale",))
        yield Row(f"{theirs}.ln_1.bias", (f"{ours}.norm1.shift",))
        yield Row(f"{theirs}.attn.c_attn.weight", tuple(f"{n}.weight" for n in qkv), True)
        # Theirs always has these biases; a model built without them has zeros there.
        biases = tuple(f"{n}.bias" for n in qkv)
        yield Row(f"{theirs}.attn.c_attn.bias", biases, zeros=not cfg.qkv_bias)
        yield Row(f"{theirs}.attn.c_proj.weight", (f"{ours}.att.out_proj.weight",), True)
        yield Row(f"{theirs}.attn.c_proj.bias", (f"{ours}.att.out_proj.bias",))
        yield Row(f"{theirs}.ln_2.weight", (f"{ours}.norm2.scale",))
        yield Row(f"{theirs}.ln_2.bias", (f"{ours}.norm2.shift",))
        yield Row(f"{theirs}.mlp.c_fc.weight", (f"{ours}.ff.layers.0.weight",), True)
        yield Row(f"{theirs}.mlp.c_fc.bias", (f"{ours}.ff.layers.0.bias",))
        yield Row(f"{theirs}.mlp.c_proj.weight", (f"{ours}.ff.layers.2.weight",), True)
        yield Row(f"{theirs}.mlp.c_proj.bias", (f"{ours}.ff.layers.2.bias",))
    yield Row("transformer.ln_f.weight", ("final_norm.scale",))
    yield Row("transformer.ln_f.bias", ("final_norm.shift",))
    if not cfg.tie_weights:
        yield Row("lm_head.weight", ("out_head.weight",))


def to_gpt2(state: Mapping[str, Tensor], cfg: ModelConfig) -> dict[str, Tensor]:
    """Rename a ``GPTModel``'s state dict to Hugging Face's names."""
    tensors: dict[str, Tensor] = {}
    for row in gpt2_rows(cfg):
        if row.zeros:
            tensors[row.theirs] = torch.zeros(len(row.ours) * cfg.emb_dim)
            continue
        parts = [state[name].T if row.transposed else state[name] for name in row.ours]
        tensors[row.theirs] = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def from_gpt2(
    tensors: Mapping[str, Tensor], cfg: ModelConfig, shapes: Mapping[str, torch.Size], source: str
) -> dict[str, Tensor]:
    """Rename Hugging Face's tensors to a state dict with the given ``shapes``.

    Raises:
        UserError: a tensor is missing, unexpected or misshapen; every one is listed by name.
    """
    rows = list(gpt2_rows(cfg))
    known = [row.theirs for row in rows]
    problems = [f"{name} is missing" for name in known if name not in tensors]
    problems += [
        f"{name} is unexpected{did_you_mean(name, known)}" for name in tensors if name not in known
    ]
    state: dict[str, Tensor] = {}
    for row in rows:
        if row.theirs not in tensors:
            continue
        whole = tensors[row.theirs]
        if not whole.dim() or whole.shape[-1] % len(row.ours):
            problems.append(f"{row.theirs} has the impossible shape {tuple(whole.shape)}")
            continue
        for name, part in zip(row.ours, whole.chunk(len(row.ours), dim=-1), strict=True):
            tensor = part.T if row.transposed else part
            if row.zeros:
                if tensor.any():
                    problems.append(f"{row.theirs} is not zero, but the config says qkv_bias false")
                    break
            elif tensor.shape != shapes[name]:
                problems.append(
                    f"{row.theirs} gives {name} the shape {tuple(tensor.shape)}, "
                    f"the config {tuple(shapes[name])}"
                )
            else:
                state[name] = tensor.contiguous()
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" * (len(problems) > 8))
        raise UserError(f"{source} does not match its config: {shown}")
    return state
