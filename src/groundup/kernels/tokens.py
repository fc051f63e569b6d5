"""Norms and rotations of a few tokens, each in one call (``tokens.cpp``); when that is better."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.kernels.build import library

FEW = 1 << 16
"""Up to so many numbers, PyTorch takes longer to be called than to compute."""


def is_plain(tensor: Tensor) -> bool:
    """Whether there are numbers of 4 bytes in this machine's memory, one after another."""
    return (
        type(tensor) in (Tensor, nn.Parameter)  # not sharded, not faked by a planner
        and tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
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
