"""The losses that the training loop minimises, summed over valid targets; the loop divides.

Shapes: ``B`` batch, ``T`` tokens, ``N = B * T``, ``C`` embedding width, ``V`` vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.data.batching import IGNORE_INDEX
from groundup.model.gpt import GPTModel
from groundup.train.fused_loss import linear_cross_entropy

LossFunction = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, inputs, targets) to the loss summed over the valid targets, a scalar."""


def next_token_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each next token, summed: ids ``(B, T)`` and ``(B, T)`` to a scalar.

    For a ``GPTModel`` the logits are never all in memory; any other module is simply called.
    """
    # A head with a bias, or one that LoRA has wrapped, is more than its matrix.
    if (
        isinstance(model, GPTModel)
        and type(model.out_head) is nn.Linear
        and (model.out_head.bias is None)
    ):
        features, targets = model.features(inputs).flatten(0, 1), targets.flatten()  # (N, C), (N)
        valid = targets != IGNORE_INDEX
        if not valid.all():  # padding and masked prompts need no scores
            features, targets = features[valid], targets[valid]
        return linear_cross_entropy(features, model.out_head.weight, targets)
    logits = model(inputs)  # (B, T, V)
    return F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )


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
    here = targets != IGNORE_INDEX
    if isinstance(model, GPTModel):
        return model.out_head(model.features(inputs)[here])
    return model(inputs)[here]


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
