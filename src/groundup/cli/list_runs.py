"""``groundup runs``: which runs there are, how far and how good each is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.cli.app import app
from groundup.output import console, say, table

if TYPE_CHECKING:
    from groundup.tasks.listing import RunInfo


@app.command
def runs(folder: Path = Path("runs"), /) -> None:
    """List runs: state, steps, best losses, time, and the options in which they differ.

    Args:
        folder: where to look, in it and below.
    """
    from groundup.tasks.listing import differing_options, list_runs

    found = list_runs(folder)
    differing = differing_options(found)
    show_runs(found, folder, [differing[run.path] for run in found], "differs in")
    for run in found:
        if run.problem:
            say(f"note: {run.problem}")


def show_runs(
    found: Sequence[RunInfo], folder: Path, options: Sequence[dict[str, Any]], title: str
) -> None:
    """Print a table of runs, each with some of its options.

    Args:
        found: the runs.
        folder: what their names are shown relative to.
        options: of each run, what the last column says.
        title: of the last column.
    """
    heads = ["run", "task", "state", "steps", "val loss", "accuracy", "train loss", "time", title]
    rows = [
        [
            run.path.relative_to(folder).as_posix() if run.path != folder else str(folder),
            run.task,
            run.state,
            f"{run.step:,}" + (f" of {run.steps:,}" if run.steps not in (None, run.step) else ""),
            _number(run.val_loss),
            "" if run.val_accuracy is None else f"{run.val_accuracy:.1%}",
            _number(run.train_loss),
            duration(run.seconds),
            ", ".join(f"{name} {_value(value)}" for name, value in said.items()),
        ]
        for run, said in zip(found, options, strict=True)
    ]
    shown = [column for column in range(len(heads)) if any(row[column] for row in rows)]
    right = ("steps", "val loss", "accuracy", "train loss", "time")
    with console() as out:
        cells = [[row[column] for column in shown] for row in rows]
        out.print(table([heads[column] for column in shown], cells, right))


def duration(seconds: float) -> str:
    """A time for people: 12 s, 3 min, 5.2 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
