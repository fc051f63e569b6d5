"""One run of any task: data + objective + measure + options become a model directory.

A task says what is its own (see :class:`Task`); everything else is assembled here, once: options
(and what of them may change on resume), device, model, optimizer, the loop, checkpoints, plots.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from groundup.facts import Facts
from groundup.model.door import evaluating
from groundup.model.gpt import GPTModel
from groundup.model.recompute import recompute_blocks
from groundup.plots import plot_run
from groundup.runtime import resolve_runtime
from groundup.tasks.length import paced, run_plan, run_schedule
from groundup.tasks.memory import within_memory
from groundup.tasks.outdir import prepare_output
from groundup.tasks.page import write_page
from groundup.tasks.resume import Given, check_same_data, check_same_task, settle
from groundup.tasks.task import Job, Material, Say, Task
from groundup.tokenizers import Tokenizer
from groundup.train.best import Best
from groundup.train.checkpoints import (
    Checkpoints,
    can_resume,
    check_space,
    finish_publishing,
    load_last,
    sound_checkpoint,
)
from groundup.train.compiling import compile_training
from groundup.train.history import History
from groundup.train.interrupt import StopRequest
from groundup.train.optim import build_optimizer
from groundup.train.parallel import check_parallel, share_work
from groundup.train.state import seed_process
from groundup.train.trackers import check_trackers, trackers
from groundup.train.tracking import (
    Keeper,
    Latest,
    MetricsFile,
    ProgressBar,
    RunningLoss,
    SamplesFile,
)
from groundup.train.trainer import Listener, Progress, Record, Trainer
from groundup.train.world import World, connect


@dataclass(frozen=True)
class Finished:
    """A run that has ended: its last record, and the options that it had."""

    record: Record
    config: Any


def run_task(
    task: Task[Any],
    out: Path,
    given: Given,
    shape: Mapping[str, Any] | None,
    *,
    overwrite: bool,
    resume: bool,
    say: Say,
    stop: StopRequest | None,
    verify: bool = True,
) -> Finished:
    """Make a run of a task: assemble it, train, leave a model directory with plots.

    Args:
        task: what is the task's own.
        out: the model directory to write.
        given: the options.
        shape: the options of the model's shape.
        overwrite: replace what an earlier run left in ``out``.
        resume: go on with the run that ``out`` holds.
        say: told what is being done.
        stop: lets a caller end the run early.
        verify: whether files that are begun with, or gone on from, must be as they were saved.

    Raises:
        UserError: an option makes no sense, the run is asked to be shorter than it is, ``out``
            exists, ….
        TrainingFailed: the loss is not finite any more.
    """
    how = {"overwrite": overwrite, "resume": resume, "say": say, "stop": stop, "verify": verify}
    with connect() as world:
        return _run_together(world, task, out, given, shape, **how)


def _run_together(
    world: World,
    task: Task[Any],
    out: Path,
    given: Given,
    shape: Mapping[str, Any] | None,
    *,
    overwrite: bool,
    resume: bool,
    say: Say,
    stop: StopRequest | None,
    verify: bool,
) -> Finished:
    """What each process of a run does."""
    if not world.is_main:
        say = _nothing
    with world.main_first():  # it may have to finish what a killed run has left half done
        if world.was_restarted:  # whatever is there, is this run's
            resume = can_resume(out)
            overwrite = not resume
        make_ready = prepare_output(out, overwrite=overwrite, resume=resume)
        chosen = sound_checkpoint(out, verify=verify) if resume and world.is_main else (None, "")
    checkpoint, warning = world.agreed(chosen)
    saved = Facts.read(checkpoint, verify=verify) if checkpoint is not None else None
    if warning:
        say(warning)
    if saved is not None:
        check_same_task(task.Config, saved, out)
        check_same_data(task.Config, saved, task.sha256, out)
    config, wanted = settle(task.Config, given, shape or {}, saved, out, say, world.size)
    check_trackers(config)
    check_parallel(config.parallel, world.size)
    runtime = resolve_runtime(config.device, config.precision)
    job = Job(out, config, wanted, saved, runtime, say, verify, checkpoint, world)
    threads = torch.get_num_threads()
    torch.manual_seed(config.seed)
    model, tokenizer = task.open(job)
    material = task.prepare(job, model, tokenizer)
    material.data.deal(world.rank, world.size)
    say(f"device: {runtime}")
    stop_here = stop or StopRequest(say)
    try:
        with ExitStack() as held:
            held.enter_context(within_memory(job, model, material))
            run = _Run(job, model.to(runtime.device), tokenizer, material)
            with world.main_first():
                if world.is_main:
                    held.enter_context(make_ready(run.check_space))
                    world.has_begun()
            record = run.fit(stop_here)
    finally:
        torch.set_num_threads(threads)
    if run.best.is_stale(run.config.patience):
        say(
            f"stopped early: {run.best.waited} evaluations brought nothing better than that of "
            f"step {run.best.step:,}"
        )
    if stop is None and stop_here.requested:
        say(f"interrupted after step {int(record['step'])}; resume=True goes on from there")
    return Finished(record, job.config)


def _nothing(text: str) -> None:
    """Say nothing: the main process says it."""


class _Run:
    """A run with all its parts."""

    def __init__(
        self, job: Job[Any], model: GPTModel, tokenizer: Tokenizer, material: Material
    ) -> None:
        self.job, self.model, self.material = job, model, material
        if job.config.activation_checkpointing:
            recompute_blocks(model)
        self.config, self.out = paced(job, model, material), job.out
        self.parallel = share_work(model, job.world, self.config.parallel, job.runtime.precision)
        if job.world.size > 1:
            how = "a whole model in each" if not self.parallel.shares_weights else "in shards"
            job.say(f"processes: {job.world.size}, {how}")
        self.optimizer = build_optimizer(model, self.config)
        self.state: dict[str, Any] = {"progress": {}, "best": {}}
        seed_process(self.config.seed, job.world.rank)
        if job.saved is not None:
            how = self.optimizer, job.runtime.device, self.parallel
            # It was verified when it was chosen.
            self.state = load_last(self.out, *how, checkpoint=job.checkpoint, verify=False)
            material.data.load_state_dict(self.state["data"])
        self.progress, self.best = Progress(**self.state["progress"]), Best(**self.state["best"])
        schedule = run_schedule(job, self.config, material, self.progress, self.best)
        self.plan = run_plan(self.config, schedule)
        self.config = replace(self.config, compile=self._compiled())
        metrics = MetricsFile(self.out, self.progress.step)
        self.metrics, self.running = metrics, RunningLoss(metrics.records)
        self.latest = Latest(metrics.records)
        self.facts = facts = replace(
            material.facts,
            task=self.config.TASK,
            options=asdict(self.config) | {"warmup_steps": schedule.warmup_steps},
            shape=dict(model.cfg) | material.facts.shape,
            schedule=schedule,
            processes=job.world.size,
        )
        self.checkpoints = Checkpoints(
            self.out,
            model,
            tokenizer,
            facts,
            self.optimizer,
            job.runtime.device,
            parallel=self.parallel,
            keep=self.config.keep,
            latest=lambda: self.latest.record,
        )
        self.history = History(
            self.out,
            tokenizer,
            facts,
            self.parallel,
            keep=self.config.keep_history,
            total=self.plan.steps,
            best=self.best,
            patience=self.config.patience,
            latest=lambda: self.latest.record,
        )

    def check_space(self) -> None:
        """Refuse to begin where the checkpoints have no room."""
        if self.is_over:
            return
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        keep, history = self.config.keep, self.config.keep_history
        check_space(self.out, self.model.num_parameters(), trained, keep=keep, history=history)

    @property
    def is_over(self) -> bool:
        """Whether no step is left to do."""
        return self.progress.step >= self.plan.steps or self.best.is_stale(self.config.patience)

    def fit(self, stop: StopRequest) -> Record:
        """Train, save, draw the plots; return the newest value of everything recorded.

        Of a run that died after its last save, only what comes after that is left to do.
        """
        main = self.job.world.is_main
        if main and self.job.checkpoint is not None:
            finish_publishing(self.out, self.job.checkpoint, self.state)
        listeners: list[Listener] = [self.running, self.latest]
        with ExitStack() as stack:
            keepers: list[Keeper] = []
            if main:
                self.metrics.begin()
                self.history.begin(self.progress.step)
                keepers.append(SamplesFile(self.out, self.progress.step))
                told = self.facts.options | self.facts.shape
                boards = stack.enter_context(trackers(self.out, self.config, told, self.metrics))
                keepers += boards
                listeners = [self.metrics, *listeners, *boards]
            bar = ProgressBar(self.plan.steps, self.progress.step, keepers)
            stack.callback(bar.close)
            listeners += [bar] if main else []
            listeners += [self.history] if main or self.parallel.shares_weights else []
            if main or self.parallel.shares_weights:  # a sample needs all of them then
                listeners += self.material.listeners(bar)
            Trainer(
                model=self.model,
                optimizer=self.optimizer,
                data=self.material.data,
                runtime=self.job.runtime,
                plan=self.plan,
                objective=self.material.objective,
                evaluate=self.evaluate,
                checkpoints=self.checkpoints,
                listeners=listeners,
                parallel=self.parallel,
                progress=self.progress,
                best=self.best,
                stop=stop,
            ).fit()
        if main:
            plot_run(self.out)
            write_page(self.out)
        return self.latest.record

    def evaluate(self) -> Record:
        """The loss of the last training steps, and what the task measures."""
        record = {"running_loss": self.running.mean()}
        with evaluating(self.model), self.job.runtime.autocast():
            return record | self.material.measure()

    def _compiled(self) -> str:
        """Compile what trains, where that was asked for or pays; whether it was done.

        A run that goes on keeps to what it had.
        """
        how, data = self.config.compile, self.material.data
        left = self.plan.steps - self.progress.step
        if how == "off" or (how == "auto" and self.job.saved is not None) or left <= 0:
            return "off" if how == "auto" else how
        what = data, self.material.objective, self.job.runtime, self.config.grad_accum_steps
        return compile_training(self.parallel, *what, left, self.job.say, asked=how == "on")
