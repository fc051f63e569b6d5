"""THE training loop: every stage (pretraining, classifier, assistant) runs this one.

A task brings a model, batches and an objective; ``Trainer(...).fit()`` does the rest. The life of a
batch, in one fixed order: learning rate, data, forward and backward (several batches may add up),
clip, check, step, log, evaluate, save.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from groundup.data.batching import Batches
from groundup.errors import TrainingFailed
from groundup.runtime import Runtime
from groundup.train.best import Best
from groundup.train.freed import freed_memory_is_kept
from groundup.train.interrupt import StopRequest
from groundup.train.objective import NextToken, Objective, to_device
from groundup.train.parallel import Parallel

Record = dict[str, float]
"""What is known at one moment: step, epoch, tokens_seen, loss, learning_rate, …"""


@dataclass
class Progress:
    """How far a run is: saved with every checkpoint, as is the position in the data."""

    step: int = 0  # optimizer steps done
    tokens_seen: int = 0  # learned from; padding is not
    examples_seen: int = 0  # windows, texts or conversations: rows of batches
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """How a run goes.

    Attributes:
        steps: optimizer steps of the whole run.
        schedule: learning rate of a step (0 is the first); None leaves the optimizer's alone.
        grad_accum_steps: batches per optimizer step.
        grad_clip: longest gradient norm; 0 is off.
        eval_due: whether to evaluate after this many steps.
        save_freq: how often to save, besides the end.
        save_minutes: after how many minutes without a save there is one, whatever the step.
        patience: evaluations without a better one after which the run ends; None is never.
    """

    steps: int
    schedule: Callable[[int], float] | None = None
    grad_accum_steps: int = 1
    grad_clip: float = 0.0
    eval_due: Callable[[int], bool] = lambda step: False
    save_freq: int = 500
    save_minutes: float | None = None
    patience: int | None = None


class Listener:
    """Hears of a run's events; override what you need."""

    def on_step(self, record: Record) -> None:
        """After every optimizer step."""

    def on_evaluate(self, record: Record) -> None:
        """After every evaluation; ``record`` has what was measured."""

    def on_epoch(self, epoch: int) -> None:
        """After every completed epoch (1 is the first)."""


class Saver(Protocol):
    """What the loop asks of whoever writes checkpoints."""

    def save(self, state: dict[str, Any], record: Record, *, best: bool, due: bool) -> None:
        """Write a checkpoint where it is due, and what is the best model so far."""
        ...


@dataclass
class Trainer:
    """One run of the loop.

    Attributes:
        model: what is trained; it is on ``runtime.device`` already.
        optimizer: steps it.
        data: the training batches, which know where they are.
        runtime: device and precision.
        plan: how long, how fast, when to evaluate and to save.
        objective: what a batch's loss is.
        evaluate: measures the model; its numbers go into the record.
        checkpoints: writes them.
        listeners: hear of every step and evaluation.
        parallel: how several devices share the work; unless given, there is one.
        progress: where to begin (a resumed run is not at 0).
        best: the best evaluation so far.
        stop: lets Ctrl-C, or another thread, end the run after the step under way.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    data: Batches
    runtime: Runtime
    plan: Plan
    objective: Objective = field(default_factory=NextToken)
    evaluate: Callable[[], Record] | None = None
    checkpoints: Saver | None = None
    listeners: Sequence[Listener] = ()
    parallel: Parallel | None = None
    progress: Progress = field(default_factory=Progress)
    best: Best = field(default_factory=Best)
    stop: StopRequest = field(default_factory=StopRequest)

    def fit(self) -> Record:
        """Train until the plan's end, or until someone asks to stop; return the last record.

        Raises:
            TrainingFailed: the loss or the gradient is not finite; no checkpoint is touched.
        """
        plan, data, objective, progress = self.plan, self.data, self.objective, self.progress
        parallel = self.parallel or Parallel(self.model)
        self._world = world = parallel.world
        listeners = self.listeners
        self.model.train()
        self._begun, self._saved_step = time.perf_counter() - progress.seconds, progress.step
        self._saved_at = progress.seconds
        self._speed: deque[tuple[int, float]] = deque(maxlen=20)  # tokens and seconds of steps
        record: Record = {}
        with self.stop, freed_memory_is_kept(self.runtime.device) as after_step:
            self._stops = world.any(self.stop.requested)
            while len(data) and not self._is_over():
                clock, epoch = time.perf_counter(), data.epoch
                lr = self._set_learning_rate()
                batches = data.next(plan.grad_accum_steps)
                # Sums are divided by the whole step's targets, on all devices, so four batches of
                # one example give exactly the gradient of one batch of four.
                count, tokens, examples = world.sum(
                    sum(map(objective.count, batches)),
                    sum(map(objective.tokens, batches)),
                    sum(len(batch[0]) for batch in batches),
                )
                share = max(1, count) / world.size  # devices take the mean of their gradients
                self.optimizer.zero_grad(set_to_none=True)
                total = torch.zeros((), device=self.runtime.device)
                for number, batch in enumerate(batches, start=1):
                    with parallel.micro_step(last=number == len(batches)):
                        with self.runtime.autocast():
                            moved = to_device(batch, self.runtime.device)
                            loss = objective.loss(parallel.trained, moved) / share
                        loss.backward()
                    total += loss.detach()
                norm = parallel.clip(plan.grad_clip or math.inf)
                both = torch.stack([parallel.mean(total), norm])
                loss, norm = both.tolist()  # the one wait for the device
                self._check_finite(loss, norm, lr)
                self.optimizer.step()
                after_step()
                self._speed.append((tokens, time.perf_counter() - clock))

                progress.step += 1
                progress.tokens_seen += tokens
                progress.examples_seen += examples
                record = self._record(loss, norm, lr)
                for listener in listeners:
                    listener.on_step(record)
                improved = False
                if self.evaluate and plan.eval_due(progress.step):
                    record = record | self.evaluate()
                    improved = self.best.update(record)
                    for listener in listeners:
                        listener.on_evaluate(record)
                if data.epoch > epoch:
                    for listener in listeners:
                        listener.on_epoch(data.epoch)
                self._stops = world.any(self.stop.requested)
                self._save(record, improved)
        return record

    def _is_over(self) -> bool:
        """Whether the run has done its steps, was asked to stop, or gets no better."""
        done = self.progress.step >= self.plan.steps
        return done or self._stops or self.best.is_stale(self.plan.patience)

    def _set_learning_rate(self) -> float:
        if self.plan.schedule is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.schedule(self.progress.step)
        return self.optimizer.param_groups[0]["lr"]

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

    def _record(self, loss: float, norm: float, lr: float) -> Record:
        """The step's record; its speed is that of data and training, without evaluations."""
        done, data = self.progress, self.data
        done.seconds = time.perf_counter() - self._begun
        tokens, seconds = (sum(column) for column in zip(*self._speed, strict=True))
        return {
            "step": done.step,
            "epoch": round(data.epoch + data.batch / len(data), 6),
            "tokens_seen": done.tokens_seen,
            "examples_seen": done.examples_seen,
            "loss": loss,
            "learning_rate": lr,
            "grad_norm": norm,
            "seconds": round(done.seconds, 3),
            "tokens_per_second": round(tokens / seconds, 1),
            **getattr(data, "progress", dict)(),  # of a mixture, each source's epochs
        }

    def _save(self, record: Record, improved: bool) -> None:
        due = self._is_over() or self.progress.step % self.plan.save_freq == 0
        due = due or self._is_late()
        if self.checkpoints is None or not (due or improved):
            return
        state = {
            "progress": asdict(self.progress),
            "data": self.data.state_dict(),
            "best": asdict(self.best),
        }
        self.checkpoints.save(state, record, best=improved, due=due)
        if due:
            self._saved_step, self._saved_at = self.progress.step, self.progress.seconds

    def _is_late(self) -> bool:
        """Whether the last save is too long ago, by the first process's clock."""
        minutes = self.plan.save_minutes
        if minutes is None:
            return False
        late = self.progress.seconds - self._saved_at >= 60 * minutes
        return self._world.any(late and self._world.is_main)
