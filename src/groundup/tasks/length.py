"""How long a run is and how it goes: threads, steps, learning rate, when to evaluate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from groundup.errors import UserError
from groundup.facts import Schedule
from groundup.model.gpt import GPTModel
from groundup.tasks.task import Job, Material
from groundup.train.best import Best
from groundup.train.optim import build_schedule
from groundup.train.pace import find_pace, may_choose, steps_within
from groundup.train.trainer import Plan, Progress


def paced(job: Job[Any], model: GPTModel, material: Material) -> Any:
    """The options with the number of threads, and of steps if they are to fit into minutes.

    A run that goes on has them already. The number of threads is set.
    """
    config, data = job.config, material.data
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    on_cpu = job.runtime.device.type == "cpu"
    free = on_cpu and config.threads is None and may_choose()
    if job.saved is None and (free or config.minutes is not None) and len(data):
        how = material.objective, job.runtime, config.grad_accum_steps
        pace = find_pace(model, data, *how, choose=config.threads is None)
        if pace.note:
            job.say(pace.note)
        if config.minutes is not None:
            steps = steps_within(
                config.minutes, pace, config.eval_iter or 0, config.eval_freq, how[-1]
            )
            if config.epochs is not None or config.max_steps is not None:
                steps = min(steps, config.total_steps(_steps_per_epoch(config, material)))
            steps = job.world.agreed(steps)
            job.say(f"plan: {steps:,} steps, which take {steps * pace.seconds / 60:.1f} minutes")
            config = replace(config, max_steps=steps)
    return replace(config, threads=torch.get_num_threads()) if on_cpu else config


def run_schedule(
    job: Job[Any], config: Any, material: Material, progress: Progress, best: Best
) -> Schedule:
    """How many steps the run has, and how many of them warm up.

    Args:
        job: the run.
        config: its options, with what became of them.
        material: whose batches an epoch has.
        progress: how far the run is.
        best: its best evaluation so far.

    Raises:
        UserError: it has done more than that already, or the warmup is longer.
    """
    data = material.data
    if job.saved is None and data.global_batch > data.size > 0:
        job.say(
            f"note: there are {data.size:,} examples to train on, fewer than the "
            f"{data.global_batch:,} of a batch, so an epoch is a single step; a smaller "
            "--batch-size makes more of them"
        )
    total = config.total_steps(_steps_per_epoch(config, material))
    planned = job.saved.schedule.total_steps if job.saved is not None else None
    if planned not in (None, total):
        job.say(
            f"note: the run was planned for {planned:,} steps and now has {total:,}, so its "
            "learning rate follows another curve from here on"
        )
    warmup = config.warmup_steps if config.warmup_steps is not None else total // 20
    if warmup >= total and job.saved is None:
        raise UserError(
            f"warmup_steps is {warmup}, but the run has only {total} steps; "
            "use a shorter warmup or more --epochs"
        )
    if progress.step >= total:
        done = f"{job.out} has done its {progress.step} steps already"
        if planned != total:
            raise UserError(f"{done}; give more --epochs or --max-steps to go on")
        job.say(f"note: {done}; more --epochs or --max-steps go on")
    elif best.is_stale(config.patience):
        job.say(
            f"note: {job.out} has stopped early: {best.waited} evaluations brought nothing "
            "better; a larger --patience goes on"
        )
    return Schedule(total, warmup)


def run_plan(config: Any, schedule: Schedule) -> Plan:
    """What the loop is told of the options."""
    total = schedule.total_steps or 0
    return Plan(
        steps=total,
        schedule=build_schedule(config, total, schedule.warmup_steps or 0),
        grad_accum_steps=config.grad_accum_steps,
        grad_clip=config.grad_clip,
        eval_due=lambda step: step == 1 or step % config.eval_freq == 0 or step == total,
        save_freq=config.save_freq,
        save_minutes=config.save_minutes,
        patience=config.patience,
    )


def _steps_per_epoch(config: Any, material: Material) -> int:
    return -(-len(material.data) // config.grad_accum_steps)
