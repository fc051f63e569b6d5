"""What is learned: how the batches of a task are counted, and what their loss is.

The training loop knows nothing of a batch's contents. It adds up ``loss(model, batch)`` over a
step's batches and divides by ``count`` of all of them, so that every token (or text, or pair)
weighs the same however the step is cut into batches.

Shapes: ``B`` rows, ``T`` tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor, nn

from groundup.config import IGNORE_INDEX
from groundup.data.batching import Batch
from groundup.model.door import token_loss
from groundup.train.world import World


class Objective(Protocol):
    """A task's loss. A batch is whatever its data make and its objective takes."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss summed over what counts, a scalar; ``batch`` is on the model's device."""
        ...

    def count(self, batch: Batch) -> int:
        """How many targets (tokens, texts, pairs) the loss sums over."""
        ...

    def tokens(self, batch: Batch) -> int:
        """How many tokens are learned from: padding is not."""
        ...


class NextToken:
    """Predict each next token: batches of ids and targets, each ``(B, T)``.

    A third tensor ``(B, T)``, if there is one, numbers documents that must not see each other.
    Targets of ``IGNORE_INDEX`` (padding, a prompt) do not count.
    """

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The negative log-likelihood of all targets."""
        inputs, targets, *documents = batch
        return token_loss(model, inputs, targets, documents=documents[0] if documents else None)

    def count(self, batch: Batch) -> int:
        """Targets that count."""
        return int((batch[1] != IGNORE_INDEX).sum())

    def tokens(self, batch: Batch) -> int:
        """Tokens that a target follows from."""
        return self.count(batch)


class ClassOfText:
    """Name each text's class: batches of ids ``(B, T)``, positions ``(B,)`` and classes ``(B,)``.

    A text's class is read off the scores at its position.

    Args:
        weights: how much an example of each class counts, ``(classes,)``.
    """

    def __init__(self, weights: Tensor | None = None) -> None:
        self.weights = weights

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The negative log-likelihood of the classes, weighted."""
        inputs, ends, classes = batch
        if self.weights is None:
            return token_loss(model, inputs, classes, at=ends)
        losses = token_loss(model, inputs, classes, at=ends, reduction="none")  # (B,)
        return (losses * self.weights[classes]).sum()

    def count(self, batch: Batch) -> int:
        """Texts."""
        return len(batch[0])

    def tokens(self, batch: Batch) -> int:
        """Tokens up to those that are read."""
        return int((batch[1] + 1).sum())


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """A batch's tensors on a device."""
    return tuple(tensor.to(device, non_blocking=True) for tensor in batch)


def mean_loss(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device | str,
    objective: Objective | None = None,
    max_batches: int | None = None,
    *,
    world: World | None = None,
) -> float:
    """Loss per target over ``batches``: every target weighs the same. NaN if there is none.

    With a ``world``, each of its processes has batches of its own, all as many (see
    :func:`~groundup.train.world.dealt`), and the loss is that over all of them.

    The caller decides on the model's mode (see :func:`~groundup.model.door.evaluating`).
    """
    objective = objective or NextToken()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in islice(batches, max_batches):
            total += objective.loss(model, to_device(batch, device)).item()
            count += objective.count(batch)
    if world is not None and world.size > 1:
        total, count = world.total(torch.tensor([total, count], dtype=torch.float64)).tolist()
    return total / count if count else float("nan")
