"""What a few tokens take between the products, each in one call (``tokens.cpp``).

Shapes: ``B`` rows, ``T`` tokens, ``S`` tokens attended to, ``H`` heads, ``K`` heads of keys and
values, ``D`` columns per head.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from groundup.kernels.build import library

_Sizes = ctypes.c_int64 * 9

KINDS = torch.float32, torch.bfloat16
"""What the functions here read and write; they compute in fp32."""

SMALL = 1 << 16
"""Up to so many numbers, PyTorch takes longer to be called than to compute."""


def is_plain(tensor: Tensor, *kinds: torch.dtype) -> bool:
    """Whether there are numbers of these kinds in this machine's memory, one after another."""
    return (
        type(tensor) in (Tensor, nn.Parameter)  # not sharded, not faked by a planner
        and tensor.dtype in kinds
        and tensor.is_cpu
        and tensor.is_contiguous()
    )


def is_watched() -> bool:
    """Whether somebody has to see each of PyTorch's functions that is called.

    A compiler, a tracer, what counts operations (a dispatch mode), vmap and the like.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
    )


def is_left_to_pytorch() -> bool:
    """Whether somebody wants gradients, another precision, or to see each function called."""
    return (
        torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
        or is_watched()
        or library() is None
    )


def is_small(x: Tensor) -> bool:
    """Whether the functions here are for this."""
    return x.numel() <= SMALL and is_plain(x, *KINDS) and not is_left_to_pytorch()


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """``F.rms_norm`` of the last dimension, of what :func:`is_small`."""
    y, cols = torch.empty_like(x), x.shape[-1]
    kernel = library()
    assert kernel is not None
    kernel.rms_norm(
        x.data_ptr(), scale.data_ptr(), y.data_ptr(), x.numel() // cols, cols, eps, _is_bf16(x)
    )
    return y


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """``rotary.rotate`` of tokens ``(B, T, H, D)`` that :func:`is_small`."""
    y, (heads, size) = torch.empty_like(x), x.shape[2:]
    half = turn.numel() // 2  # the cosines, behind which the sines are
    cos = turn.data_ptr()
    kernel = library()
    assert kernel is not None
    kernel.rotate(
        x.data_ptr(),
        cos,
        cos + half * turn.element_size(),
        y.data_ptr(),
        x.shape[0] * x.shape[1],
        half // size,
        heads,
        size,
        _is_bf16(x),
    )
    return y


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """``attention.attend`` of one query per row, ``(B, 1, H, D)``, that :func:`is_small`.

    Args:
        q: the queries.
        k: keys ``(B, K, S, D)``, each head's after one another.
        v: values, laid out as the keys.
        mask: bool, ``(1, S)`` or ``(B or 1, 1, 1, S)``.

    Returns:
        As the queries.
    """
    y, (B, _, H, D), (_, K, S, _) = torch.empty_like(q), q.shape, k.shape
    seen, step = None, 0
    if mask is not None:
        mask = mask.expand(B, 1, 1, S)
        seen, step = mask.data_ptr(), mask.stride(0)
    kernel = library()
    assert kernel is not None
    sizes = _Sizes(B, H, K, S, D, *k.stride()[:2], step, _is_bf16(q))
    kernel.attend(q.data_ptr(), k.data_ptr(), v.data_ptr(), seen, y.data_ptr(), sizes)
    return y


def is_laid_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> bool:
    """Whether :func:`attend` can read these."""
    S, D = k.shape[2:]
    return (
        k.dtype == v.dtype == q.dtype
        and k.stride() == v.stride()
        and k.stride()[2:] == (D, 1)
        and (mask is None or _is_for_all_heads(mask, S))
    )


def _is_bf16(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16


def _is_for_all_heads(mask: Tensor, S: int) -> bool:
    return (
        mask.dtype == torch.bool
        and (mask.shape[-1], mask.stride(-1)) == (S, 1)
        and (mask.dim() == 2 or mask.dim() == 4 and mask.shape[1] == 1)
    )
