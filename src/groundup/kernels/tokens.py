"""What a few tokens take between the products, each in one call (``tokens.cpp``).

Shapes: ``B`` rows, ``T`` tokens, ``S`` tokens attended to, ``H`` heads, ``K`` heads of keys and
values, ``D`` columns per head.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from groundup.kernels.build import library

_Sizes = ctypes.c_int64 * 10

FEW = 1 << 16
"""Up to so many numbers, PyTorch takes longer to be called than to compute."""


def is_plain(tensor: Tensor) -> bool:
    """Whether there are numbers of 4 bytes in this machine's memory, one after another."""
    return (
        type(tensor) in (Tensor, nn.Parameter)  # not sharded, not faked by a planner
        and tensor.dtype == torch.float32
        and tensor.is_cpu
        and tensor.is_contiguous()
    )


def is_left_to_pytorch() -> bool:
    """Whether somebody wants gradients, another precision, or a compiled model."""
    return (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu")
        or library() is None
    )


def is_small(x: Tensor) -> bool:
    """Whether the functions here are for this."""
    return x.numel() <= FEW and is_plain(x) and not is_left_to_pytorch()


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """``F.rms_norm`` of the last dimension, of what :func:`is_small`."""
    y, cols = torch.empty_like(x), x.shape[-1]
    kernel = library()
    assert kernel is not None
    kernel.rms_norm(x.data_ptr(), scale.data_ptr(), y.data_ptr(), x.numel() // cols, cols, eps)
    return y


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """``rotary.rotate`` of tokens ``(B, T, H, D)`` that :func:`is_small`."""
    y, (heads, size) = torch.empty_like(x), x.shape[2:]
    half = turn.numel() // 2 * 4  # bytes of the cosines, behind which the sines are
    cos = turn.data_ptr()
    kernel = library()
    assert kernel is not None
    kernel.rotate(
        x.data_ptr(),
        cos,
        cos + half,
        y.data_ptr(),
        x.shape[0] * x.shape[1],
        half // 4 // size,
        heads,
        size,
    )
    return y


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """``attention.attend`` of a few queries ``(B, T, H, D)`` that :func:`is_small`, same shape.

    Args:
        q: the queries.
        k: keys ``(B, K, S, D)``, each head's after one another.
        v: values, laid out as the keys.
        mask: bool, to be broadcast to ``(B, 1, T, S)``.
    """
    y, (B, T, H, D), (_, K, S, _) = torch.empty_like(q), q.shape, k.shape
    told, steps = None, (0, 0)
    if mask is not None:
        mask = mask.expand(B, 1, T, S)
        told, steps = mask.data_ptr(), (mask.stride(0), mask.stride(2))
    kernel = library()
    assert kernel is not None
    sizes = _Sizes(B, T, H, K, S, D, *k.stride()[:2], *steps)
    kernel.attend(q.data_ptr(), k.data_ptr(), v.data_ptr(), told, y.data_ptr(), sizes)
    return y


def _is_for_all_heads(mask: Tensor) -> bool:
    return (
        mask.dtype == torch.bool
        and mask.stride(-1) == 1
        and (mask.dim() == 2 or mask.dim() == 4 and mask.shape[1] == 1)
    )


def is_laid_out(k: Tensor, v: Tensor, mask: Tensor | None) -> bool:
    """Whether :func:`attend` can read these."""
    size = k.shape[-1]
    return (
        k.dtype == v.dtype == torch.float32
        and k.stride() == v.stride()
        and k.stride()[2:] == (size, 1)
        and (mask is None or _is_for_all_heads(mask))
    )
