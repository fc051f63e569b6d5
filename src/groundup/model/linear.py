"""The linear layer of every model here: PyTorch's, and for the few tokens of decoding our kernel.

Shapes: ``N`` rows of activations (tokens), ``R`` outputs, ``C`` inputs.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.kernels.products import FEW, product
from groundup.kernels.tokens import KINDS, is_left_to_pytorch, is_plain

LARGE = 1 << 18
"""Smaller matrices lie in the CPU's cache, where it makes no difference."""


class Linear(nn.Linear):
    """``y = x W^T + b``: ``nn.Linear`` itself, with its names, numbers and beginning.

    While a text is written there is one row for each text, and the whole matrix is read for it.
    PyTorch's product is made for many rows; two to sixteen take it twice as long as they must.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``(…, C) -> (…, R)``."""
        return linear(input, self.weight, self.bias)


WITH_AMX = 7
"""AMX multiplies tiles of 16 rows in bf16 in the time of one: from eight rows on PyTorch, which has
it, is faster (16 rows times 3,072 x 768: 0.37 ms instead of 0.64)."""


@cache
def most_rows(kind: torch.dtype) -> int:
    """Up to how many rows of activations our kernel is faster."""
    has_amx = kind == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    return WITH_AMX if has_amx else FEW


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear(x, weight, bias)``, by whichever kernel is faster."""
    kind = weight.dtype
    if (
        is_left_to_pytorch()
        or x.numel() > most_rows(kind) * x.shape[-1]
        or weight.numel() < LARGE
        or kind not in KINDS
        or x.shape[-1] != weight.shape[1]  # which PyTorch tells
        or not is_plain(x, kind)
        or not is_plain(weight, kind)
        or not (bias is None or is_plain(bias, kind))
    ):
        return F.linear(x, weight, bias)
    return product(x, weight, None, bias)
