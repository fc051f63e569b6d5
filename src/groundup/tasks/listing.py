"""The runs in a folder: how far each is, how good, and in which options they differ."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from groundup.errors import UserError
from groundup.facts import Facts
from groundup.files import LOCK, is_locked, read_json
from groundup.train.best import Best
from groundup.train.checkpoints import LAST, kept_steps
from groundup.train.state import FOLDER, STATE
from groundup.train.tracking import METRICS, is_evaluation, read_metrics
from groundup.train.trainer import Record
from groundup.weights.finding import CHECKPOINTS

State = Literal[
    "running", "finished", "stopped early", "can resume", "nothing to resume", "damaged"
]

NOT_COMPARED = frozenset(
    {"threads", "device", "parallel", "tensorboard", "wandb"}
    | {"keep", "keep_history", "save_freq", "save_minutes"}
    | {"start_context", "sample_tokens", "sample_temperature", "sample_answers"}
)
"""Options that say where a run was made, how it is saved and watched; not what is learned."""


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run without opening its model.

    Attributes:
        path: its directory.
        task: pretrain, classify or instruct; empty if nothing is saved yet.
        state: what can be done with it.
        step: optimizer steps that are saved (that are done, while it is running).
        steps: of the whole run, as planned.
        val_loss: the best validation loss; None if nothing validates.
        val_accuracy: a classifier's best.
        train_loss: the newest mean of the last steps.
        seconds: that it has taken.
        options: of the run and of its model's shape.
        problem: what is wrong with a damaged one.
    """

    path: Path
    task: str = ""
    state: State = "nothing to resume"
    step: int = 0
    steps: int | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    train_loss: float | None = None
    seconds: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def list_runs(folder: str | Path) -> list[RunInfo]:
    """The runs in a folder and below it, by their paths; in itself, if it is one.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no directory {str(folder)!r}; name one that has runs in it")
    found: list[Path] = []
    for path, names, files in os.walk(folder):
        if METRICS in files:
            found.append(Path(path))
            names.clear()  # what lies in a run belongs to it
        names[:] = [name for name in names if not name.startswith(".")]
    if not found:
        raise UserError(
            f"there are no runs in {folder}: directories with a {METRICS}, which every training "
            "leaves"
        )
    return [run_info(path) for path in sorted(found)]


def run_info(out: Path) -> RunInfo:
    """What is known of the run in a directory; nothing in it is changed."""
    try:
        records = read_metrics(out)
        last = out / CHECKPOINTS / LAST
        last = last if last.is_dir() else out
        facts = Facts.read(last) or Facts.read(out)
        saved = read_json(last / FOLDER / STATE) if (last / FOLDER / STATE).exists() else None
    except UserError as error:
        return RunInfo(out, state="damaged", problem=str(error))
    running = is_locked(out / LOCK)
    done = int(records[-1]["step"]) if records else 0
    measured = {"seconds": records[-1].get("seconds", 0.0) if records else 0.0, **_best(records)}
    if facts is None:
        return RunInfo(out, state="running" if running else "nothing to resume", **measured)
    steps = facts.schedule.total_steps
    options = facts.options | facts.shape
    if facts.schedule.warmup_steps == (steps or 0) // 20:
        options.pop("warmup_steps", None)  # as it is by itself
    return RunInfo(
        out,
        task=facts.task,
        state="running" if running else _state(out, facts, saved),
        step=done if running else int(facts.progress.get("step", 0)),
        steps=steps,
        options={name: value for name, value in options.items() if name not in NOT_COMPARED},
        **measured,
    )


def differing_options(runs: Sequence[RunInfo]) -> dict[Path, dict[str, Any]]:
    """Of each run those options in which the runs of its task differ, as far as all have them."""
    by_task: dict[str, list[RunInfo]] = defaultdict(list)
    for run in runs:
        by_task[run.task].append(run)
    found: dict[Path, dict[str, Any]] = {}
    for alike in by_task.values():
        names = [n for n in alike[0].options if all(n in run.options for run in alike)]
        differing = [n for n in names if len({repr(run.options[n]) for run in alike}) > 1]
        for run in alike:
            found[run.path] = {name: run.options[name] for name in differing}
    return found


def _state(out: Path, facts: Facts, saved: dict[str, Any] | None) -> State:
    if facts.schedule.total_steps is not None and saved is not None:
        if facts.progress.get("step", 0) >= facts.schedule.total_steps:
            return "finished"
        if Best(**saved.get("best", {})).is_stale(facts.options.get("patience")):
            return "stopped early"
    older = any((path / FOLDER / STATE).exists() for path in kept_steps(out))
    return "can resume" if saved is not None or older else "nothing to resume"


def _best(records: Sequence[Record]) -> dict[str, float | None]:
    """The best of what was measured; a loss that is no number is never the best."""

    def values(name: str) -> list[float]:
        return [r[name] for r in records if name in r and math.isfinite(r[name])]

    running = [r["running_loss"] for r in records if is_evaluation(r)]
    return {
        "val_loss": min(values("val_loss"), default=None),
        "val_accuracy": max(values("val_accuracy"), default=None),
        "train_loss": running[-1] if running else None,
    }
