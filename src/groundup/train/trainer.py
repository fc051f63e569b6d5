"""THE training loop: every stage (pretraining, classifier, assistant) runs this one.

A task assembles model, data and loss and calls ``Trainer(...).fit()``. The life of a batch, in one
fixed order: learning rate, forward and backward (several batches may add up), check, clip, step,
log, evaluate, save.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from groundup.errors import TrainingFailed, UserError
from groundup.runtime import Runtime
from groundup.train.interrupt import StopRequest
from groundup.train.losses import LossFunction, count_valid, next_token_loss

Record = dict[str, float]
"""What is known at one moment: step, epoch, tokens_seen, loss, learning_rate, …"""


class Batches(Protocol):
    """A loader: iterating once is one epoch of ``(inputs, targets)``."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...
    def __len__(self) -> int: ...


@dataclass
class Progress:
    """Where a run is: saved with every checkpoint, so that it can go on from exactly there."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # epochs completed
    batch: int = 0  # batches used of the epoch under way
    tokens_seen: int = 0
    examples_seen: int = 0  # windows, texts or conversations: rows of batches
    seconds: float = 0.0


class Listener:
    """Hears of a run's events; override what you need."""

    def on_step(self, record: Record) -> None:
        """After every optimizer step."""

    def on_evaluate(self, record: Record) -> None:
        """After every evaluation; ``record`` has the losses."""

    def on_epoch(self, epoch: int) -> None:
        """After every completed epoch (1 is the first)."""


@dataclass
class Trainer:
    """One run of the loop.

    Attributes:
        model: what is trained; it is on ``runtime.device`` already.
        optimizer: steps it.
        loader: the training batches. If it has ``start(epoch, batch)``, that is called before
            each epoch, so that a resumed run sees the rest of the same shuffled epoch.
        runtime: device and precision.
        total_steps: optimizer steps of the whole run.
        loss_fn: the loss summed over valid targets.
        schedule: learning rate of a step; None leaves the optimizer's alone.
        grad_accum_steps: batches per optimizer step.
        grad_clip: longest gradient norm; 0 is off.
        evaluate: measures the model; its numbers go into the record.
        eval_due: whether to evaluate after this many steps.
        save: writes a checkpoint.
        save_freq: how often to save, besides the end.
        listeners: hear of every step and evaluation.
        progress: where to begin (a resumed run is not at 0).
        stop: lets Ctrl-C, or another thread, end the run after the step under way.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loader: Batches
    runtime: Runtime
    total_steps: int
    loss_fn: LossFunction = next_token_loss
    schedule: Callable[[int], float] | None = None
    grad_accum_steps: int = 1
    grad_clip: float = 0.0
    evaluate: Callable[[], Record] | None = None
    eval_due: Callable[[int], bool] = lambda step: False
    save: Callable[[Progress, Record], None] | None = None
    save_freq: int = 500
    listeners: Sequence[Listener] = ()
    progress: Progress = field(default_factory=Progress)
    stop: StopRequest = field(default_factory=StopRequest)

    def __post_init__(self) -> None:
        self._saved_step = self.progress.step
        # Tokens and seconds of the last steps: speed is that of training, without evaluations.
        self._speed: deque[tuple[int, float]] = deque(maxlen=20)

    def fit(self) -> Record:
        """Train until ``total_steps``, or until someone asks to stop; return the last record.

        Raises:
            TrainingFailed: the loss or the gradient is not finite; no checkpoint is touched.
        """
        self.model.train()
        record: Record = {}
        started = time.perf_counter() - self.progress.seconds
        with self.stop:
            for batches in self._steps():
                begun = time.perf_counter()
                lr = self._set_learning_rate()
                loss, tokens = self._forward_backward(batches)
                norm = self._clip()
                self._check_finite(loss, norm, lr)
                self.optimizer.step()
                self._speed.append((tokens, time.perf_counter() - begun))

                self.progress.step += 1
                self.progress.batch += len(batches)
                self.progress.tokens_seen += tokens
                self.progress.examples_seen += sum(len(inputs) for inputs, _ in batches)
                self.progress.seconds = time.perf_counter() - started
                record = self._record(loss=loss, learning_rate=lr, grad_norm=norm)
                for listener in self.listeners:
                    listener.on_step(record)

                if self.evaluate and self.eval_due(self.progress.step):
                    record = record | self.evaluate()
                    for listener in self.listeners:
                        listener.on_evaluate(record)
                if self.progress.batch >= len(self.loader):
                    self._end_epoch()
                last = self.progress.step >= self.total_steps or self.stop.requested
                if self.save and (self.progress.step % self.save_freq == 0 or last):
                    self.save(self.progress, record)
                    self._saved_step = self.progress.step
                if last:
                    break
        return record

    def _steps(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Yield the batches of one optimizer step after another, epoch after epoch."""
        while self.progress.step < self.total_steps and len(self.loader):
            start = getattr(self.loader, "start", None)
            if start is not None:
                start(self.progress.epoch, self.progress.batch)
            batches = iter(self.loader)
            before = self.progress.step
            while group := list(islice(batches, self.grad_accum_steps)):
                yield group
            if self.progress.step == before:
                raise UserError(
                    f"there is no batch {self.progress.batch} in an epoch of {len(self.loader)}; "
                    "a run can be resumed only on the same batches"
                )

    def _end_epoch(self) -> None:
        self.progress.epoch += 1
        self.progress.batch = 0
        for listener in self.listeners:
            listener.on_epoch(self.progress.epoch)

    def _set_learning_rate(self) -> float:
        if self.schedule is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule(self.progress.step)
        return self.optimizer.param_groups[0]["lr"]

    def _forward_backward(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, int]:
        """Add up the gradients of a step's batches; return its loss per target and its tokens.

        Every batch's loss sum is divided by the number of valid targets of the whole step, so
        four batches of 1 give exactly the gradient of one batch of 4.
        """
        self.optimizer.zero_grad(set_to_none=True)
        valid = max(1, sum(count_valid(targets) for _, targets in batches))
        loss, tokens = 0.0, 0
        for inputs, targets in batches:
            inputs, targets = inputs.to(self.runtime.device), targets.to(self.runtime.device)
            with self.runtime.autocast():
                batch_loss = self.loss_fn(self.model, inputs, targets) / valid
            batch_loss.backward()
            loss += batch_loss.item()
            tokens += inputs.numel()
        return loss, tokens

    def _clip(self) -> float:
        limit = self.grad_clip or math.inf
        return clip_grad_norm_(self.model.parameters(), limit).item()

    def _check_finite(self, loss: float, norm: float, lr: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        saved = f"the checkpoint of step {self._saved_step} is kept"
        raise TrainingFailed(
            f"step {self.progress.step + 1}: loss {loss:g}, learning rate {lr:g}, gradient norm "
            f"{norm:g}: training has diverged and stops here; "
            f"{saved if self._saved_step else 'nothing had been saved yet'}. "
            "Try a smaller learning rate, a longer warmup, or gradient clipping"
        )

    def _record(self, **more: float) -> Record:
        done = self.progress
        epoch = done.epoch + done.batch / max(1, len(self.loader))
        tokens, seconds = (sum(column) for column in zip(*self._speed, strict=True))
        return {
            "step": done.step,
            "epoch": round(epoch, 6),
            "tokens_seen": done.tokens_seen,
            "examples_seen": done.examples_seen,
            **more,
            "seconds": round(done.seconds, 3),
            "tokens_per_second": round(tokens / seconds, 1),
        }
