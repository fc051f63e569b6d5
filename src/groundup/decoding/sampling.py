"""From scores to a choice: greedy, temperature, top-k and top-p as small functions that compose.

Shapes: ``B`` batch, ``V`` vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from groundup.errors import UserError

Sampler = Callable[[Tensor], Tensor]
"""Scores ``(B, V)`` to chosen ids ``(B,)``."""


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token: ``(B, V) -> (B,)``."""
    return logits.argmax(dim=-1)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Set all but the ``k`` highest scores of each row to ``-inf`` (Fan et al. 2018)."""
    if not 1 <= k <= logits.shape[-1]:
        raise UserError(f"top_k is {k}; expected 1 to {logits.shape[-1]}, the vocabulary's size")
    kth = torch.topk(logits, k).values[:, -1:]  # (B, 1)
    return logits.masked_fill(logits < kth, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest tokens whose probabilities reach ``p`` together (Holtzman et al. 2020)."""
    if not 0.0 < p <= 1.0:
        raise UserError(f"top_p is {p}; expected 0 < top_p <= 1")
    if p == 1.0:
        return logits
    ordered, order = logits.sort(descending=True)
    probs = torch.softmax(ordered, dim=-1)
    before = probs.cumsum(dim=-1) - probs  # probability of everything likelier; 0 for the first
    ordered = ordered.masked_fill(before >= p, -torch.inf)
    return torch.empty_like(logits).scatter_(-1, order, ordered)


def make_sampler(
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Sampler:
    """Compose a sampler: top-k, then temperature, then top-p, then a draw.

    A temperature of 0 is greedy whatever the rest says. Without a ``generator`` the draw uses
    PyTorch's global one, so ``torch.manual_seed`` repeats the course's numbers.
    """
    if not temperature >= 0.0:
        raise UserError(f"temperature is {temperature}; expected 0 (greedy) or more")
    if temperature == 0.0:
        return greedy

    def sample(logits: Tensor) -> Tensor:
        if top_k is not None:
            logits = keep_top_k(logits, top_k)
        logits = logits / max(temperature, 1e-6)  # below that, fp32 overflows
        if top_p is not None:
            logits = keep_top_p(logits, top_p)
        probs = torch.softmax(logits, dim=-1)
        return torch.multinomial(probs, num_samples=1, generator=generator).squeeze(-1)

    return sample
