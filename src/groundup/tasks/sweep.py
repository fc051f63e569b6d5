"""A sweep: one run after another, each with other values of some options; ``sweep.json`` keeps it.

    runs/sweep/learning_rate=0.001    a run's directory, named by where it differs
    runs/sweep/sweep.json             the command, the values, what became of each run
    runs/sweep/runs.png               all runs in one picture

It goes on where it was: finished runs are left alone, a run that was broken off is resumed, one
that has diverged would diverge again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from groundup.errors import TrainingFailed, UserError
from groundup.files import IN_USE, LOCK, RUN_KEPT, atomic_file, locked, read_json, write_json
from groundup.plots import plot_runs
from groundup.plots.style import SERIES, save_figure
from groundup.tasks.listing import RunInfo, run_info
from groundup.train.tracking import METRICS, is_evaluation, read_metrics

SWEEP, PICTURE = "sweep.json", "runs.png"

MOST_DRAWN = 2 * len(SERIES)
"""Runs that a picture can tell apart."""

OVER = ("finished", "stopped early")


@dataclass
class Member:
    """A run of a sweep.

    Attributes:
        name: of its folder.
        options: where it differs from the others.
        state: that of the run, or ``diverged``, or empty before it is begun.
        message: what was said when it diverged.
    """

    name: str
    options: dict[str, Any]
    state: str = ""
    message: str = ""


class Sweep:
    """The runs of a sweep in a folder.

    Args:
        out: the folder.
        command: what they have in common: the task's command line without ``--out``.
        values: by option, in the order in which they are tried.

    Raises:
        UserError: the folder holds another sweep, or something else; two runs would get one name.
    """

    def __init__(
        self, out: Path, command: Sequence[str], values: Mapping[str, Sequence[Any]]
    ) -> None:
        self.out, self.command, self.values = out, list(command), dict(values)
        combinations = [dict(zip(values, chosen, strict=True)) for chosen in _all(values)]
        self.members = [Member(_name(options), options) for options in combinations]
        names = [member.name for member in self.members]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"two runs of the sweep would be named {twice[0]}; give other values")
        self._recall()

    def run(self, start: Callable[[Member, Path, list[str]], int]) -> int:
        """Make, or go on with, each run that is not over; return 0, or the status that ended it.

        Args:
            start: trains a run into its folder, with more flags (how it goes on); returns its exit
                status, which is not 0 if it was asked to stop.

        Raises:
            UserError: a run cannot be made; nor can the rest, then.
        """
        with locked(self.out / LOCK, IN_USE.format(self.out), advice=RUN_KEPT):
            self._write()
            for member in self.members:
                where = self.out / member.name
                member.state = member.state if member.state == "diverged" else _state(where)
                if member.state in (*OVER, "diverged"):
                    continue
                try:
                    status = start(member, where, _how(member.state, where))
                except TrainingFailed as error:
                    status, member.message = 0, str(error)
                member.state = "diverged" if member.message else _state(where)
                self._write()
                if status:
                    return status
            self._write()
        return 0

    def infos(self) -> list[RunInfo]:
        """What is known of the runs that were begun, the best first; diverged ones come last."""
        begun = [(bool(m.message), run_info(self.out / m.name)) for m in self.members if m.state]
        return [info for _, info in sorted(begun, key=lambda item: (item[0], _rank(item[1])))]

    def draw(self) -> Path | None:
        """Draw the runs that have not diverged, the best of them if there are many."""
        diverged = {member.name for member in self.members if member.message}
        paths = [info.path for info in self.infos() if info.path.name not in diverged]
        records = {path.name: read_metrics(path) for path in paths if (path / METRICS).exists()}
        drawn = {n: rows for n, rows in records.items() if any(map(is_evaluation, rows))}
        chosen = dict(list(drawn.items())[:MOST_DRAWN])
        return save_figure(plot_runs(chosen), self.out / PICTURE) if chosen else None

    def _recall(self) -> None:
        """What became of the runs, if the folder holds this sweep already."""
        if not (self.out / SWEEP).exists():
            if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
                raise UserError(f"{self.out} exists and holds no sweep; choose another --out")
            return
        before = read_json(self.out / SWEEP)
        said = before.get("command"), list(before.get("values", {}))
        if said != (self.command, list(self.values)):
            raise UserError(
                f"{self.out} holds another sweep, over {', '.join(said[1])} of "
                f"`{' '.join(map(str, said[0] or []))}`; choose another --out (more values of the "
                "same options may be added)"
            )
        known = {run["name"]: run for run in before.get("runs", [])}
        for member in self.members:
            if known.get(member.name, {}).get("state") == "diverged":
                member.state = "diverged"
                member.message = known[member.name].get("message", "")

    def _write(self) -> None:
        """Keep what became of the runs; those that the values no longer name are kept, too."""
        runs: dict[str, Any] = {}
        if (self.out / SWEEP).exists():
            runs = {run["name"]: run for run in read_json(self.out / SWEEP).get("runs", [])}
        for member in self.members:
            about: dict[str, Any] = {"name": member.name, "options": member.options}
            about |= {"state": member.state or "not begun"}
            if member.state:
                info = run_info(self.out / member.name)
                numbers = ("step", "val_loss", "val_accuracy", "train_loss", "seconds")
                about |= {name: getattr(info, name) for name in numbers}
            runs[member.name] = about | ({"message": member.message} if member.message else {})
        said = {"command": self.command, "values": self.values, "runs": list(runs.values())}
        with atomic_file(self.out / SWEEP) as temporary:
            write_json(temporary, said)


def _all(values: Mapping[str, Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    return product(*values.values())


def _state(where: Path) -> str:
    """A run's state; empty if it is not begun, or has left nothing that is in the way."""
    if not (where / METRICS).exists():
        return ""
    info = run_info(where)
    return info.state if info.task or info.state == "damaged" else ""


def _how(state: str, where: Path) -> list[str]:
    """How a run is begun, or gone on with.

    Raises:
        UserError: its measurements are damaged.
    """
    if state == "damaged":
        raise UserError(f"{run_info(where).problem}; delete {where} to have this run made anew")
    if state in ("can resume", "running"):  # a run that goes on elsewhere is told so
        return ["--resume"]
    return ["--overwrite"] if state else []


def _name(options: Mapping[str, Any]) -> str:
    """A folder's name; characters that some file system refuses are left out."""
    said = [f"{n}={v:g}" if isinstance(v, float) else f"{n}={v}" for n, v in options.items()]
    return re.sub(r"[^\w.=,+-]+", "-", ",".join(said))


def _rank(info: RunInfo) -> tuple[float, float]:
    """The best first: by accuracy, then by loss, as the best model of a run is chosen."""
    loss = info.val_loss if info.val_loss is not None else info.train_loss
    return -(info.val_accuracy or 0.0), float("inf") if loss is None else loss
