"""The history of a run: small snapshots of its model, from the first step to the last.

    runs/demo/history/step-000001   each a whole model directory, its weights in fp16
    runs/demo/history/step-000002
    runs/demo/history/step-000004   …

Early on a model changes with every step, later slowly, so their distances grow: evenly spaced
steps on a logarithmic scale. They are for looking back (``groundup serve``), not to go on from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from groundup.facts import NAME, Facts
from groundup.files import RUN_KEPT
from groundup.staging import finish_update, sweep
from groundup.tokenizers import Tokenizer
from groundup.train.best import Best
from groundup.train.checkpoints import delete_kept, step_of, steps_in
from groundup.train.parallel import Parallel
from groundup.train.trainer import Listener, Record
from groundup.weights.checkpoint import save_model
from groundup.weights.finding import HISTORY

STEP = "step-{:06}"


def history_steps(count: int, total: int) -> list[int]:
    """The steps after which a run of ``total`` steps keeps a snapshot: the first, …, the last.

    Their distances grow evenly: 1, 2, 4, 8, …; a run of fewer steps than ``count`` keeps all.
    """
    if min(count, total) <= 1:
        return [total][: min(count, total)]
    steps: list[int] = []
    for number in range(count := min(count, total)):
        ideal = round(total ** (number / (count - 1)))
        least = steps[-1] + 1 if steps else 1
        steps.append(min(max(ideal, least), total - (count - 1 - number)))
    return steps


def snapshots(out: Path) -> list[Path]:
    """The whole snapshots of a run, the first one first."""
    return [path for path in steps_in(out / HISTORY) if (path / NAME).exists()]


class History(Listener):
    """Keeps snapshots of a run's model.

    It hears of a step before the loop saves it, so whatever moment a run dies at, no snapshot from
    before its last checkpoint is missing; later ones are made again.

    Args:
        out: the run's directory.
        tokenizer: saved with each.
        facts: what their ``groundup.json`` says.
        parallel: how several processes share the work; the main one writes.
        keep: how many to keep; 0 keeps none.
        total: steps of the whole run.
        best: the best evaluation so far: it may end the run early.
        patience: after how many evaluations without a better one it does.
        latest: the newest value of everything that was recorded.
    """

    def __init__(
        self,
        out: Path,
        tokenizer: Tokenizer,
        facts: Facts,
        parallel: Parallel,
        *,
        keep: int,
        total: int,
        best: Best,
        patience: int | None,
        latest: Callable[[], Record],
    ) -> None:
        self.out, self.tokenizer, self.facts, self.parallel = out, tokenizer, facts, parallel
        self.keep, self.best, self.patience, self.latest = keep, best, patience, latest
        self.due = frozenset(history_steps(keep, total))

    def begin(self, step: int) -> None:
        """Leave no snapshots after the step that is gone on from; the run makes them again."""
        for path in steps_in(self.out / HISTORY):
            if step_of(path) > step:
                delete_kept(path)

    def on_step(self, record: Record) -> None:
        """Keep a snapshot where one is due."""
        if record["step"] in self.due:
            self._keep(record)

    def on_evaluate(self, record: Record) -> None:
        """Keep one at the end of a run that gets no better."""
        if self.keep and self.best.is_stale(self.patience) and record["step"] not in self.due:
            self._keep(record)

    def _keep(self, record: Record) -> None:
        """All processes do so together, for each may have a part of the model."""
        with self.parallel.whole_model() as model:
            if not self.parallel.world.is_main:
                return
            path = self.out / HISTORY / STEP.format(int(record["step"]))
            facts = replace(self.facts, progress=self.latest() | record)
            title = self.out.resolve().name
            save_model(path, model, self.tokenizer, facts, title=title, advice=RUN_KEPT, half=True)
            # A run that is made longer may come to have more than it should.
            there = {step_of(path): path for path in snapshots(self.out)}
            for step in superfluous([*there], self.keep):
                delete_kept(there[step])


def superfluous(steps: Sequence[int], keep: int) -> list[int]:
    """Which steps to leave out until ``keep`` are left: those that are closest to their neighbours.

    The first and the last one stay.
    """
    left, dropped = list(steps), []
    while len(left) > max(keep, 2):
        gaps = [math.log(left[i + 1] / left[i - 1]) for i in range(1, len(left) - 1)]
        dropped.append(left.pop(gaps.index(min(gaps)) + 1))
    return dropped


def sweep_history(out: Path) -> None:
    """Finish or delete what processes that died have left half written."""
    for path in steps_in(out / HISTORY):
        sweep(path)
        finish_update(path)
        if not (path / NAME).exists():
            delete_kept(path)
