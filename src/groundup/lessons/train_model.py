"""Appendix D: the training of chapter 5 with warmup, cosine decay and clipped gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from groundup.data.batching import Batch, LoaderBatches
from groundup.errors import UserError
from groundup.tokenizers import Tokenizer
from groundup.train.course import CourseLog, train_as_the_course
from groundup.train.parallel import Parallel


def train_model(
    model: nn.Module,
    train_loader: Iterable[Batch],
    val_loader: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    n_epochs: int,
    eval_freq: int,
    eval_iter: int,
    start_context: str,
    tokenizer: Tokenizer,
    warmup_steps: int,
    initial_lr: float = 3e-05,
    min_lr: float = 1e-6,
    orig_book_version: bool = False,
) -> tuple[list[float], list[float], list[int], list[float]]:
    """Pretrain with the course's bells and whistles, by the one loop.

    The learning rate rises from ``initial_lr`` to the optimizer's in ``warmup_steps``, then falls
    along a cosine to ``min_lr``. After the warmup, gradients longer than 1 are shortened
    (``orig_book_version``: from one step later on, as the book's first printing had it).

    Returns:
        Training losses, validation losses and tokens seen, one of each per evaluation; the
        learning rate of every step.

    Raises:
        UserError: the warmup is not shorter than the training.
    """
    peak, total = optimizer.param_groups[0]["lr"], len(LoaderBatches(train_loader)) * n_epochs
    if not 0 < warmup_steps < total:
        raise UserError(f"warmup_steps is {warmup_steps}; expected 1 to {total - 1} of {total}")

    def learning_rate(step: int) -> float:
        if step < warmup_steps:
            return initial_lr + step * (peak - initial_lr) / warmup_steps
        progress = (step - warmup_steps) / (total - warmup_steps)
        return min_lr + (peak - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))

    log = CourseLog(model, tokenizer, device, start_context, "Iter")
    train_as_the_course(
        *(model, train_loader, val_loader, optimizer, device, n_epochs, eval_freq, eval_iter, log),
        schedule=learning_rate,
        parallel=_ClipAfterWarmup(model, warmup_steps + orig_book_version),
        grad_clip=1.0,
    )
    return log.train_losses, log.val_losses, log.tokens_seen, log.learning_rates


class _ClipAfterWarmup(Parallel):
    """Leaves the gradients of the first steps as they are."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        super().__init__(model)
        self.left = steps

    def clip(self, limit: float) -> Tensor:
        """The gradient's norm; shortened to ``limit`` after the first steps."""
        self.left -= 1
        return super().clip(math.inf if self.left >= 0 else limit)
