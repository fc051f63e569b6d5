"""``--compile``: the training step through ``torch.compile``, where that pays and where it works.

Compiling takes a minute or more, needs a C++ compiler on a CPU, and may fail in many ways; then the
run goes on as it is written. Evaluations and samples always run as written, and the model that is
saved is the same object as ever. Compiled code rounds differently, so whether a run is compiled is
decided once and saved with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from groundup.data.batching import Batches
from groundup.errors import is_out_of_memory
from groundup.runtime import Runtime
from groundup.train.objective import Objective
from groundup.train.pace import trial
from groundup.train.parallel import Parallel

LONG = {"cpu": 1200.0, "cuda": 240.0}
"""Seconds of training from which on it is tried by itself: compiling takes a minute, and on a CPU
it gains little (``benchmarks/train.py``), so it is tried where little is lost."""

FEWEST = 500
"""Of fewer steps it is not even asked how long they take."""

CLEARLY = 0.97
"""It is kept, unless asked for, if a step takes at most this share of the time."""


class Compiled(nn.Module):
    """A module, compiled; from the first failure of the compiler on, as it is written."""

    def __init__(self, module: nn.Module, say: Callable[[str], None]) -> None:
        super().__init__()
        self._orig_mod = module  # by this name others find what is inside a compiled module
        self._compiled: Callable[..., Any] | None = torch.compile(module)
        self._say = say

    @property
    def works(self) -> bool:
        """Whether it is still compiled."""
        return self._compiled is not None

    def forward(self, *args: Any, **named: Any) -> Any:
        """The module's own."""
        if self._compiled is not None:
            try:
                return self._compiled(*args, **named)
            except Exception as error:  # whatever a compiler raises; the module's own comes again
                result = self._orig_mod(*args, **named)
                self.give_up(error)
                return result
        return self._orig_mod(*args, **named)

    def give_up(self, error: Exception) -> None:
        """Run as written from here on, and say why."""
        self._compiled = None
        error = getattr(error, "inner_exception", error)  # what the compiler itself said
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
        self._say(f"note: torch.compile has failed ({reason:.200}), so the run goes on uncompiled")


def compile_training(
    parallel: Parallel,
    data: Batches,
    objective: Objective,
    runtime: Runtime,
    grad_accum_steps: int,
    steps: int,
    say: Callable[[str], None],
    *,
    asked: bool,
) -> Literal["on", "off"]:
    """Compile what the loop calls, if that was asked for or if so many steps will pay for it.

    Args:
        parallel: how the work is shared; what trains in it may be replaced.
        data: batches to try it on.
        objective: their loss.
        runtime: device and precision.
        grad_accum_steps: batches per step.
        steps: of the run.
        say: told what was found.
        asked: whether to compile however short the run is, or how little it gains.
    """
    if not len(data) or not asked and (steps < FEWEST or parallel.world.size > 1):
        return "off"
    if parallel.shares_weights:  # one that fails would leave the others waiting for its weights
        say("note: weights in shards (fsdp) run uncompiled")
        return "off"
    how = data, objective, runtime, grad_accum_steps
    with trial(parallel.model, *how) as seconds, parallel.micro_step(last=False):
        written = 0.0
        if not asked:
            seconds(parallel.trained)
            written = min(seconds(parallel.trained) for _ in range(2))
            if steps * written < LONG.get(runtime.device.type, LONG["cpu"]):
                return "off"
        compiled, took = Compiled(parallel.trained, say), 0.0
        try:
            took = seconds(compiled)
        except Exception as error:  # in the backward pass
            if is_out_of_memory(error):
                raise
            compiled.give_up(error)
        if parallel.world.any(not compiled.works):
            return "off"
        found = min(seconds(compiled) for _ in range(2))
    compare = f", {written:.2f} s as written" if written else ""
    say(f"compile: in {took:.0f} s; a step's passes take {found:.2f} s compiled{compare}")
    if written and found > CLEARLY * written:
        say("compile: off, since it gains too little")
        return "off"
    parallel.trained = compiled
    return "on"
