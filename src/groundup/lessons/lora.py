"""LoRA in a page, under the course's names (appendix E).

``model/lora.py`` is what trains here: its layer keeps the names of the weights, which adapters and
other programs rely on, and divides ``alpha`` by the rank as the paper does. With ``alpha * rank``
for ``alpha`` it computes what this one computes (a test says so).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LoRALayer(nn.Module):
    """The update alone: ``alpha * x A B``, with thin ``A (in, rank)`` and ``B (rank, out)``."""

    def __init__(self, in_dim: int, out_dim: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.empty(in_dim, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as PyTorch's linear layers begin
        self.B = nn.Parameter(torch.zeros(rank, out_dim))  # so the update is 0 at first
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """``(…, in) -> (…, out)``."""
        return self.alpha * (x @ self.A @ self.B)


class LinearWithLoRA(nn.Module):
    """A linear layer and its update, added up."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear
        self.lora = LoRALayer(linear.in_features, linear.out_features, rank, alpha)

    def forward(self, x: Tensor) -> Tensor:
        """``(…, in) -> (…, out)``."""
        return self.linear(x) + self.lora(x)


def replace_linear_with_lora(model: nn.Module, rank: int, alpha: float) -> None:
    """Put a :class:`LinearWithLoRA` in the place of every linear layer, in place.

    As in the course nothing is frozen: do that before
    (``for p in model.parameters(): p.requires_grad = False``).
    """
    for name, module in model.named_children():
        if isinstance(module, nn.Linear):
            setattr(model, name, LinearWithLoRA(module, rank, alpha))
        else:
            replace_linear_with_lora(module, rank, alpha)
