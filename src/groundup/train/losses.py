"""The losses that the training loop minimises, summed over valid targets; the loop divides.

Shapes: ``B`` batch, ``T`` tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.config import IGNORE_INDEX
from groundup.model.door import evaluating, scores, token_loss

__all__ = [
    "class_logits",
    "classification_loss",
    "count_valid",
    "evaluating",
    "mean_loss",
    "next_token_loss",
]

LossFunction = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, inputs, targets) to the loss summed over the valid targets, a scalar."""


def next_token_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each next token, summed: ids ``(B, T)`` and ``(B, T)`` to a scalar."""
    return token_loss(model, inputs, targets)


def classification_loss(
    model: nn.Module, inputs: Tensor, targets: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of each text's class, summed.

    Args:
        model: ends in one score per class.
        inputs: ids ``(B, T)``, padded on the right.
        targets: ``(B, T)``: each row's class at the token where it is read, else ``IGNORE_INDEX``.
        class_weights: how much an example of each class counts, ``(classes,)``.
    """
    logits = class_logits(model, inputs, targets)
    classes = targets[targets != IGNORE_INDEX]
    return F.cross_entropy(logits.float(), classes, weight=class_weights, reduction="sum")


def class_logits(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The scores where the targets are: ids and targets ``(B, T)`` to ``(B, classes)``."""
    return scores(model, inputs, at=(targets != IGNORE_INDEX).int().argmax(dim=1))


def count_valid(targets: Tensor) -> int:
    """Number of targets that count."""
    return int((targets != IGNORE_INDEX).sum())


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
