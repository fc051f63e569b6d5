"""One run of any task: from a model, its data and its loss to a model directory.

What all tasks have in common: the loop's assembly, what is measured and shown, checkpoints and
resuming. A task brings its model, its batches, and what it measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.plots import plot_run
from groundup.runtime import Runtime
from groundup.tasks.config import TaskConfig
from groundup.tasks.outdir import check_space
from groundup.tokenizers import Tokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.losses import LossFunction, evaluating, next_token_loss
from groundup.train.optim import build_optimizer, build_schedule
from groundup.train.state import load_training_state, save_training_state
from groundup.train.tracking import Latest, MetricsFile, ProgressBar, RunningLoss
from groundup.train.trainer import Batches, Listener, Progress, Record, Trainer
from groundup.weights.checkpoint import RunNotes, save_model


class Run:
    """A run that is ready to :meth:`fit`.

    Args:
        model: what is trained, on the runtime's device; parameters that do not require a
            gradient stay as they are.
        tokenizer: saved with it.
        out: the model directory to write.
        config: the run's options.
        runtime: device and precision.
        notes: what ``groundup.json`` will say.
        loss_fn: the loss summed over valid targets.
    """

    def __init__(
        self,
        model: GPTModel,
        tokenizer: Tokenizer,
        out: Path,
        config: TaskConfig,
        runtime: Runtime,
        notes: RunNotes,
        *,
        loss_fn: LossFunction = next_token_loss,
    ) -> None:
        self.model, self.tokenizer, self.out = model, tokenizer, out
        self.config, self.runtime, self.notes = config, runtime, notes
        self.loss_fn = loss_fn
        self.optimizer = build_optimizer(model, config)

    def fit(
        self,
        loader: Batches,
        measure: Callable[[], Record],
        make_ready: Callable[[], FileLock],
        *,
        resume: bool = False,
        say: Callable[[str], None] = print,
        stop: StopRequest | None = None,
        listeners: Callable[[ProgressBar], Sequence[Listener]] = lambda bar: (),
    ) -> Record:
        """Train, save, draw the plots; return the last record.

        Args:
            loader: the training batches.
            measure: measures the model, which is in eval mode, on the validation split.
            make_ready: prepares ``out``, once nothing can be wrong any more.
            resume: go on from the state that ``out`` holds.
            say: told what is being done.
            stop: lets a caller end the run early.
            listeners: makes the task's own listeners; they may print above the bar.

        Raises:
            UserError: there is nothing left to do, or no space for checkpoints.
            TrainingFailed: the loss is not finite any more.
        """
        self.measure = measure
        config, out = self.config, self.out
        total = config.total_steps(-(-len(loader) // config.grad_accum_steps))
        warmup = self._plan(total, resume=resume, say=say)
        progress = Progress()
        if resume:
            progress = load_training_state(out, self.optimizer, self.runtime.device)
        if progress.step >= total:
            raise UserError(
                f"{out} has done its {progress.step} steps already; "
                "give more --epochs or --max-steps to go on"
            )
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        check_space(out, self.model.num_parameters(), trained)
        lock = make_ready()
        try:
            return self._train(loader, total, warmup, progress, listeners, stop or StopRequest())
        finally:
            lock.release()

    def _train(
        self,
        loader: Batches,
        total: int,
        warmup: int,
        progress: Progress,
        listeners: Callable[[ProgressBar], Sequence[Listener]],
        stop: StopRequest,
    ) -> Record:
        config = self.config
        metrics = MetricsFile(self.out, progress.step)
        self.running = RunningLoss(metrics.records)
        self.latest = Latest(metrics.records)
        bar = ProgressBar(total, progress.step)
        try:
            Trainer(
                model=self.model,
                optimizer=self.optimizer,
                loader=loader,
                runtime=self.runtime,
                total_steps=total,
                loss_fn=self.loss_fn,
                schedule=build_schedule(config, total, warmup),
                grad_accum_steps=config.grad_accum_steps,
                grad_clip=config.grad_clip,
                evaluate=self.evaluate,
                eval_due=lambda step: step == 1 or step % config.eval_freq == 0 or step == total,
                save=self.save,
                save_freq=config.save_freq,
                listeners=[metrics, self.running, self.latest, bar, *listeners(bar)],
                progress=progress,
                stop=stop,
            ).fit()
        finally:
            bar.close()
        plot_run(self.out)
        return self.latest.record

    def _plan(self, total: int, *, resume: bool, say: Callable[[str], None]) -> int:
        """Note how long the run will be; return its warmup steps."""
        planned = RunNotes.read(self.out).config.get("total_steps", total) if resume else total
        if planned != total:
            say(
                f"note: the run was planned for {planned:,} steps and now has {total:,}, so its "
                "learning rate follows another curve from here on"
            )
        warmup = self.config.warmup_steps
        warmup = warmup if warmup is not None else total // 20
        if warmup >= total and not resume:
            raise UserError(
                f"warmup_steps is {warmup}, but the run has only {total} steps; "
                "use a shorter warmup or more --epochs"
            )
        self.notes.config |= {"warmup_steps": warmup, "total_steps": total}
        return warmup

    def evaluate(self) -> Record:
        """The loss of the last training steps, and what the task measures."""
        record = {"train_loss": self.running.mean()}
        with evaluating(self.model), self.runtime.autocast():
            return record | self.measure()

    def save(self, progress: Progress, record: Record) -> None:
        """Write the model directory with what is needed to go on."""
        self.notes.progress = self.latest.record | record
        state = partial(
            save_training_state,
            optimizer=self.optimizer,
            progress=progress,
            device=self.runtime.device,
        )
        save_model(self.out, self.model, self.tokenizer, self.notes, state)


def check_same_run(
    notes: RunNotes, config: type[TaskConfig], wanted: Mapping[str, Any], sha256: str, out: Path
) -> None:
    """Refuse to resume what would not be the same run any more.

    Args:
        notes: what the run's directory says.
        config: the task's options, which say what is fixed.
        wanted: the options of now.
        sha256: the data's fingerprint of now.
        out: the run's directory.

    Raises:
        UserError: the data or a fixed option differs.
    """
    if notes.data.get("sha256") != sha256:
        raise UserError(
            f"{out} was trained on another text; --resume needs the same files in the same order. "
            f"To go on from its weights on a new text, {config.AFRESH.format(out=out)} "
            "and another --out"
        )
    changed = [
        f"{name} {notes.config[name]!r} to {wanted[name]!r}"
        for name in config.FIXED_ON_RESUME
        if name in wanted and name in notes.config and wanted[name] != notes.config[name]
    ]
    if changed:
        raise UserError(
            f"--resume goes on with the same run, but this would change {', '.join(changed)}; "
            f"leave these options out, or start a new run: {config.AFRESH.format(out=out)}"
        )
