"""Rotary positions: queries and keys are turned by an angle that grows with their position.

A head's columns are taken as ``D / 2`` points in a plane, each turned at its own speed. The product
of a query and a key then depends on how far apart they are, whatever their positions (Su et al.
2021, section 3.2); nothing is added to the embeddings, and no position has parameters.

Which two columns make a pair is a convention: here, as in GPT-NeoX and Hugging Face's Llama,
column ``i`` with column ``i + D / 2``. Meta's own Llama files and llama.cpp pair neighbours, which
is the same with the rows of ``W_query`` and ``W_key`` in another order (``weights/names.py``).

Shapes: ``B`` batch, ``H`` heads, ``T`` tokens, ``D`` columns per head.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from groundup.config import ModelConfig
from groundup.kernels.tokens import is_plain, is_small
from groundup.kernels.tokens import rotate as tokens_rotated
from groundup.model.frequencies import frequencies


def turns(positions: Tensor, cfg: ModelConfig) -> Tensor:
    """What :func:`rotate` multiplies by: positions ``(T,)`` or ``(B, T)`` to ``(2, …, T, D)``.

    First the cosine of each column's angle; then its sine, negative for the first column of a pair.
    For rows of their own positions there is a dimension of 1 for the heads: ``(2, B, 1, T, D)``.
    Angles are computed in fp32 in any case: bf16 counts no further than 256.
    """
    speeds, factor = _speeds(cfg, positions)  # (D / 2,)
    angles = positions[..., None].float() * speeds
    angles = angles if positions.dim() == 1 else angles[:, None]
    cos, sin = angles.cos() * factor, angles.sin() * factor
    return torch.stack((torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)))


def _speeds(cfg: ModelConfig, positions: Tensor) -> tuple[Tensor, float]:
    """``frequencies()``, on the device where the positions are."""
    is_real = type(positions) is Tensor and not torch.compiler.is_compiling()
    # What is copied to a GPU each time can't be recorded (decoding/replay.py), and takes long.
    compute = _kept if positions.is_cuda and is_real else _copied
    return compute(cfg.head_size, cfg.rope_theta, cfg.rope_scaling, positions.device)


def _copied(
    head_dim: int, theta: float, scaling: str | None, device: torch.device
) -> tuple[Tensor, float]:
    speeds, factor = frequencies(head_dim, theta, scaling)
    return torch.tensor(speeds, device=device), factor


_kept = lru_cache(maxsize=64)(_copied)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn each pair ``(a, b)`` of every head's columns: ``(B, H, T, D) -> (B, H, T, D)``.

    ``a`` becomes ``a cos - b sin``, and ``b`` becomes ``b cos + a sin``.
    """
    tokens = x.transpose(1, 2)  # (B, T, H, D), as the projections leave them
    if is_small(tokens) and is_plain(turn, x.dtype):
        return tokens_rotated(tokens, turn).transpose(1, 2)
    cos, sin = turn
    other = x.roll(x.shape[-1] // 2, dims=-1)  # b stands where a is in x, and a where b is
    return x * cos + other * sin
