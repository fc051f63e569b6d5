"""The losses that the training loop minimises, summed over valid targets; the loop divides.

Shapes: ``B`` batch, ``T`` tokens, ``C`` embedding width, ``V`` vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORE_INDEX = -100
"""A target that does not count, PyTorch's default."""

LossFunction = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, inputs, targets) to the loss summed over the valid targets, a scalar."""


def next_token_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each next token, summed: ids ``(B, T)`` and ``(B, T)`` to a scalar."""
    logits = model(inputs)  # (B, T, V)
    return F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )


def count_valid(targets: Tensor) -> int:
    """Number of targets that count."""
    return int((targets != IGNORE_INDEX).sum())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the model is in eval mode and no gradient is kept; afterwards as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def mean_loss(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device | str,
    loss_fn: LossFunction = next_token_loss,
    max_batches: int | None = None,
) -> float:
    """Loss per valid target over ``batches``: every token weighs the same.

    The caller decides on the model's mode (see :func:`evaluating`). NaN if no target is valid.
    """
    total, count = 0.0, 0
    with torch.no_grad():
        for inputs, targets in islice(batches, max_batches):
            total += loss_fn(model, inputs.to(device), targets.to(device)).item()
            count += count_valid(targets)
    return total / count if count else float("nan")
