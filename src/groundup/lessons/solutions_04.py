"""Solutions of the exercises of the notebook "pretraining" (04)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from groundup.data.batching import Batch
from groundup.model.door import token_loss


def bits_per_character(loss: float, tokens: int, characters: int) -> float:
    """Exercise 1: what a text costs, independent of the tokenizer.

    Args:
        loss: the mean loss per token, in nats as PyTorch gives it.
        tokens: tokens of the text.
        characters: characters of the text.
    """
    return loss / math.log(2) * tokens / characters


def accumulate_gradients(model: nn.Module, batches: Sequence[Batch]) -> float:
    """Exercise 2: leave in the model the gradient of one big batch; return its loss per token.

    The losses are summed and divided by the tokens of *all* batches: means of batches of unlike
    size, averaged, would let a token of a small batch count more.
    """
    count = sum(targets.numel() for _, targets in batches)
    total = 0.0
    model.zero_grad()
    for inputs, targets in batches:
        loss = token_loss(model, inputs, targets) / count
        loss.backward()  # adds to the gradients that are there
        total += loss.item()
    return total


def warmup_then_line(peak: float, warmup: int, steps: int) -> Callable[[int], float]:
    """Exercise 3: a learning rate that rises to ``peak``, then falls to 0 along a line.

    It maps a step (0 is the first) to the rate, as ``Plan(schedule=…)`` wants it.
    """

    def learning_rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        return peak * (steps - step) / (steps - warmup)

    return learning_rate


@torch.no_grad()
def gradient_vector(model: nn.Module) -> torch.Tensor:
    """All gradients of a model, one after another, to compare them: ``(parameters,)``."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
