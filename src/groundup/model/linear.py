"""The linear layer of every model here: PyTorch's, and for the few tokens of decoding our kernel.

Shapes: ``N`` rows of activations (tokens), ``R`` outputs, ``C`` inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.kernels.products import FEW, product

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


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear(x, weight, bias)``, by whichever kernel is faster."""
    if (
        torch.is_grad_enabled()
        or x.numel() > FEW * x.shape[-1]
        or weight.numel() < LARGE
        or torch.compiler.is_compiling()
        or not _is_plain(x)
        or not _is_plain(weight)
        or torch.is_autocast_enabled("cpu")
    ):
        return F.linear(x, weight, bias)
    return product(x, weight, None, bias)


def _is_plain(tensor: Tensor) -> bool:
    """Whether there are numbers of 4 bytes in this machine's memory, one after another."""
    return (
        type(tensor) in (Tensor, nn.Parameter)  # not sharded, not faked by a planner
        and tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
    )
