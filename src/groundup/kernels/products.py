"""``x @ W.T`` for a quantized matrix: our kernel for a few rows, PyTorch for many or without it.

Shapes: ``N`` rows of activations, ``R`` rows of the matrix, ``C`` columns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.kernels.build import library
from groundup.kernels.tokens import KINDS, is_watched

GROUP = 32
"""Quantized weights that share a step (those of 4 bits, a lowest value too)."""

FEW = 16
"""Up to so many rows the kernel is faster: each row of the matrix is widened once per row of
activations, where a product of many rows widens it once for all. (To round activations of more rows
as well would not make texts independent of it: another last bit is rounded to another number, and
after thirty layers the log-probabilities differ as much, by 0.04 in SmolLM2.)"""


def product(
    x: Tensor, weight: Tensor, scale: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """``(…, C)`` times a matrix ``(R, C)``, plus a bias, to ``(…, R)``, added up in fp32.

    Args:
        x: activations, of any kind; so is the result.
        weight: fp32, fp16 or bf16 ``(R, C)``; or what :func:`quantized_int8` or
            :func:`quantized_int4` makes of a matrix.
        scale: the same; none for numbers that are not whole.
        bias: ``(R,)``, bf16 beside a matrix in bf16, else fp32.

    Raises:
        ValueError: the matrix has other columns than the activations.
    """
    if is_watched():
        return _op(x, weight, scale, bias)
    return _product(x, weight, scale, bias)


def _product(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    rows = x.numel() // x.shape[-1]
    columns = weight.shape[1] * (2 if weight.dtype == torch.uint8 else 1)
    if scale is None and x.shape[-1] != columns or not 0 <= columns - x.shape[-1] < GROUP:
        raise ValueError(f"{x.shape[-1]} activations per row for a matrix of {columns} columns")
    found = library() if rows <= FEW and x.is_cpu else None
    if found is None:
        matrix = dequantized(weight, scale)[:, : x.shape[-1]].to(x.dtype)
        return F.linear(x, matrix, None if bias is None else bias.to(x.dtype))
    # Beside fp32 and bf16 the kernel reads activations of the same kind, else of either.
    kind = weight.dtype if weight.dtype in KINDS else x.dtype
    kind = kind if kind in KINDS else torch.float32
    acts = x.to(kind).contiguous()
    if scale is not None:
        acts = whole_groups(acts)
    y = torch.empty(*x.shape[:-1], weight.shape[0], dtype=kind)
    w, b = weight.data_ptr(), None if bias is None else bias.data_ptr()
    rest = b, acts.data_ptr(), y.data_ptr(), rows, weight.shape[0], acts.shape[-1]
    is_bf16 = kind == torch.bfloat16
    if weight.dtype == torch.float32:
        found.product_f32(w, *rest)
    elif weight.dtype == torch.bfloat16:
        found.product_bf16(w, *rest)
    elif scale is None:
        found.product_f16(w, *rest, is_bf16)
    elif weight.dtype == torch.int8:
        found.product_i8(w, scale.data_ptr(), *rest, is_bf16)
    else:
        steps = scale.data_ptr()
        found.product_i4(w, steps, steps + scale.nbytes // 2, *rest, is_bf16)
    return y.to(x.dtype)


_op = torch.library.custom_op("groundup::product", _product, mutates_args=())


@_op.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


def whole_groups(x: Tensor) -> Tensor:
    """With zeros at the end of each row, where its last group has fewer than 32 numbers."""
    missing = -x.shape[-1] % GROUP
    return F.pad(x, (0, missing)) if missing else x


def quantized_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix in whole numbers from -127 to 127, and for each 32 of a row a step.

    What llama.cpp's Q8_0 is, so weights out of such a file stay as they are.

    Returns:
        int8 ``(R, C)``, and fp16 ``(R, C / 32)``; zeros make ``C`` a multiple of 32.
    """
    groups = whole_groups(weight).float().unflatten(1, (-1, GROUP))  # (R, C / 32, 32)
    step = (groups.abs().amax(dim=2, keepdim=True) / 127).half().float()
    step = torch.where(step == 0, torch.ones_like(step), step)
    whole = (groups / step).round().clamp(-127, 127).to(torch.int8)
    return whole.flatten(1), step[..., 0].half()


def quantized_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix in whole numbers from 0 to 15, and for each 32 of a row a step and a lowest value.

    Both ends of a group are met exactly, so what was of this form (llama.cpp's Q4_1) stays as it
    is. Byte ``j`` of a group holds weight ``j`` and, in its upper half, weight ``j + 16``.

    Returns:
        uint8 ``(R, C / 2)``, and fp16 ``(2, R, C / 32)``; zeros make ``C`` a multiple of 32.
    """
    groups = whole_groups(weight).float().unflatten(1, (-1, GROUP))  # (R, C / 32, 32)
    lowest = groups.amin(dim=2, keepdim=True).half().float()
    step = ((groups.amax(dim=2, keepdim=True) - lowest) / 15).half().float()
    step = torch.where(step == 0, torch.ones_like(step), step)
    whole = ((groups - lowest) / step).round().clamp(0, 15).to(torch.uint8)
    low, high = whole.chunk(2, dim=2)
    return (low | (high << 4)).flatten(1), torch.stack((step, lowest))[..., 0].half()


def dequantized(weight: Tensor, scale: Tensor | None) -> Tensor:
    """The matrix ``(R, C)`` in fp32 that quantized numbers stand for, with the zeros of groups."""
    if scale is None:
        return weight.float()
    if weight.dtype == torch.int8:
        groups = weight.unflatten(1, (-1, GROUP))  # (R, C / 32, 32)
        return (groups * scale.float()[..., None]).flatten(1)
    pairs = weight.unflatten(1, (-1, GROUP // 2))  # (R, C / 32, 16)
    whole = torch.cat((pairs & 15, pairs >> 4), dim=2).float()  # (R, C / 32, 32)
    step, lowest = scale.float()[..., None]  # (R, C / 32, 1) twice
    return (whole * step + lowest).flatten(1)
