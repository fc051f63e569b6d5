"""A run's pace, by the speed of a few steps that change nothing: how many threads, how many steps.

On a CPU more threads are not always faster: a small model's work is done before they have met. But
another number of threads adds up in another order, and gives other bits after a few steps. So the
number is chosen once, before the run begins, and saved with it; a resumed run keeps to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from groundup.data.batching import Batches
from groundup.runtime import Runtime
from groundup.train.objective import Objective, to_device

SLOW = 1.0
"""Seconds; of steps that take longer, threads are no question, and few can be tried."""

CLEARLY = 0.85
"""Fewer threads are taken if they need at most this share of the time, so that noise decides
nothing."""

OVERHEAD = 1.12
"""What a step takes besides what is tried here: the optimizer, logging."""


@dataclass(frozen=True)
class Pace:
    """What was found.

    Attributes:
        threads: how many the run uses.
        seconds: what an optimizer step takes with them.
        note: why these, for people; empty if there was no choice.
    """

    threads: int
    seconds: float
    note: str = ""


def find_pace(
    model: nn.Module,
    data: Batches,
    objective: Objective,
    runtime: Runtime,
    grad_accum_steps: int = 1,
    *,
    choose: bool = True,
) -> Pace:
    """Try a few forward and backward passes; leave everything as it was but the number of threads.

    Args:
        model: on the runtime's device; its gradients are dropped.
        data: batches to try it on.
        objective: their loss.
        runtime: device and precision.
        grad_accum_steps: batches per step.
        choose: whether the number of threads may be changed (on a CPU).
    """
    most = torch.get_num_threads()
    with trial(model, data, objective, runtime, grad_accum_steps) as seconds:
        first = seconds(model)
        tries = 1 if first > SLOW else 5
        found = {most: [seconds(model) for _ in range(tries)]}
        if choose and runtime.device.type == "cpu" and first <= SLOW and may_choose():
            threads = most
            while (threads := threads // 2) >= 1:
                torch.set_num_threads(threads)
                seconds(model)
                found[threads] = [seconds(model) for _ in range(tries)]
    fastest = min(found, key=lambda n: min(found[n]))
    best = fastest if min(found[fastest]) <= CLEARLY * min(found[most]) else most
    torch.set_num_threads(best)
    note = ""
    if len(found) > 1:
        speeds = ", ".join(f"{n}: {1000 * min(times):.0f} ms" for n, times in found.items())
        note = f"threads: {best} (a step with {speeds})"
    # The fastest try compares threads best; what a long run will take is nearer to the median.
    return Pace(best, OVERHEAD * median(found[best]), note)


@contextmanager
def trial(
    model: nn.Module,
    data: Batches,
    objective: Objective,
    runtime: Runtime,
    grad_accum_steps: int,
) -> Iterator[Callable[[nn.Module], float]]:
    """Within it a function times the forward and backward passes of a step, of a given module.

    The module is the model, or something that calls it. Afterwards everything is as it was: the
    place in the data, the mode, random numbers; gradients are dropped.
    """
    position, was_training = data.state_dict(), model.training
    gpus = [runtime.device] if runtime.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        batches = data.next(grad_accum_steps)
        model.train()

        def seconds(called: nn.Module) -> float:
            begun, loss = time.perf_counter(), torch.zeros(())
            for batch in batches:
                with runtime.autocast():
                    loss = objective.loss(called, to_device(batch, runtime.device))
                loss.backward()
            loss.item()  # waits for the device
            model.zero_grad(set_to_none=True)
            return time.perf_counter() - begun

        try:
            yield seconds
        finally:
            model.zero_grad(set_to_none=True)
            data.load_state_dict(position)
            model.train(was_training)


def may_choose() -> bool:
    """Whether nobody else has decided on the number of threads."""
    return torch.get_num_threads() > 1 and "OMP_NUM_THREADS" not in os.environ


def steps_within(
    minutes: float, pace: Pace, eval_batches: int, eval_freq: int, batches: int
) -> int:
    """How many steps fit into so many minutes, evaluations included.

    Args:
        minutes: how long the run may take.
        pace: of a step.
        eval_batches: batches of an evaluation, which takes a third of training on them.
        eval_freq: steps from one evaluation to the next.
        batches: batches of a step.
    """
    evaluation = eval_batches / (3 * batches * eval_freq)  # per step, in steps
    return max(1, int(60 * minutes / (pace.seconds * (1 + evaluation))))
