"""Pictures of runs: one by one, at one glance, several beside each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from groundup.errors import UserError
from groundup.plots.curves import draw_gradient_norm, draw_learning_rate, draw_values, short
from groundup.plots.style import (
    HEIGHT,
    MARKERS,
    SERIES,
    SUFFIXES,
    WIDTH,
    finish,
    legend_below,
    line_of,
    new_axes,
    new_figure,
    save_figure,
    shown,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

    from groundup.train.trainer import Record

PLOTS = "plots"
"""The folder of a run that they go to."""


def plot_run(run: str | Path, out: str | Path | None = None) -> list[Path]:
    """Draw a run's ``loss.png``, ``learning_rate.png`` and ``grad_norm.png``.

    A classifier's run has an ``accuracy.png`` as well, and counts examples instead of tokens.

    Args:
        run: a model directory with its ``metrics.jsonl``.
        out: where the pictures go, ``run/plots`` by default; a name that ends in .png, .svg or
            .pdf gets all of them in one picture.

    Returns:
        The files, the loss first.

    Raises:
        UserError: the directory holds no measurements, or the pictures cannot be written.
    """
    run = Path(run)
    records = records_of(run)
    out = Path(out or run / PLOTS)
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        return [save_figure(overview(records), out)]
    return [
        save_figure(figure, out / f"{name}.png") for name, figure in run_figures(records).items()
    ]


def plot_runs(runs: Mapping[str, Sequence[Record]]) -> Figure:
    """Draw several runs in one picture: their losses, and accuracies where there are any.

    They are drawn against the tokens seen, so that runs with batches of unlike size can be
    compared. Validation is a line with marks; training, a thin one of the same colour.

    Args:
        runs: the records of each run (as in its ``metrics.jsonl``), by its name.

    Raises:
        UserError: there are none, or more than a picture can tell apart, or one was not evaluated.
    """
    if not 1 <= len(runs) <= 2 * len(SERIES):
        raise UserError(f"there are {len(runs)} runs; expected 1 to {2 * len(SERIES)}")
    found = {name: _evaluations(records) for name, records in runs.items()}
    if missing := [name for name, evaluations in found.items() if not evaluations]:
        raise UserError(f"the run {missing[0]} has no evaluations; expected at least one in each")
    accurate = any("val_accuracy" in r for records in found.values() for r in records)
    figure = new_figure(WIDTH * (2 if accurate else 1.15), HEIGHT + 0.25 * len(runs))
    entries = _draw_runs(figure, found, "loss", 121 if accurate else 111)
    if accurate:
        _draw_runs(figure, found, "accuracy", 122)
    legend_below(figure, entries, columns=2)
    return shown(figure)


def plot_directories(runs: Sequence[str | Path], out: str | Path | None = None) -> list[Path]:
    """Draw runs into files, what ``groundup plot`` does: one as :func:`plot_run` does it.

    Args:
        runs: model directories.
        out: of several runs, the picture's name; ``comparison.png`` in the folder that they share
            unless given.

    Raises:
        UserError: there is nothing to draw, or they share no folder and it isn't said where to.
    """
    if len(runs) == 1:
        return plot_run(runs[0], out)
    paths = [Path(run).resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise UserError("a run is named twice; name each of them once")
    names = [path.name for path in paths]
    if len(set(names)) < len(names):  # then by where they differ
        common = os.path.commonpath(paths)
        names = [path.relative_to(common).as_posix() for path in paths]
    if out is None:
        common = Path(os.path.commonpath([path.parent for path in paths]))
        if common == Path(common.anchor):
            raise UserError("several runs go into one picture; name it, as in --out runs.png")
        out = common / "comparison.png"
    records = {name: records_of(path) for name, path in zip(names, paths, strict=True)}
    return [save_figure(plot_runs(records), out)]


def records_of(run: Path) -> list[Record]:
    """A run's records.

    Raises:
        UserError: there are none.
    """
    from groundup.train.tracking import read_metrics  # here: a judge's pictures need no torch

    records = read_metrics(run)
    if not records:
        raise UserError(f"{run} has no metrics.jsonl with measurements; is it a training run?")
    return records


def run_figures(records: Sequence[Record]) -> dict[str, Figure]:
    """The pictures of a run by name: loss, accuracy of a classifier, learning rate, gradient."""
    figures = {}
    for name, draw in _parts(records).items():
        figures[name] = new_figure()
        draw(figures[name])
        finish(figures[name])
    return figures


def overview(records: Sequence[Record]) -> Figure:
    """All pictures of a run in one."""
    parts = _parts(records)
    figure = new_figure(2 * WIDTH, 2 * HEIGHT)
    wide = len(parts) % 2  # an odd one out, the loss, gets a row of its own
    rows: np.ndarray = figure.subfigures(2, 1, hspace=0.04)  # pyright: ignore
    places = [rows[0]] if wide else [*rows[0].subfigures(1, 2)]
    places += [*rows[1].subfigures(1, 2)]
    for draw, place in zip(parts.values(), places, strict=True):
        draw(place)
    return finish(figure)


def _parts(records: Sequence[Record]) -> dict[str, Callable[[FigureBase], object]]:
    steps = _steps(records)
    parts: dict[str, Callable[[FigureBase], object]] = {"loss": lambda f: _draw_loss(f, records)}
    if any("val_accuracy" in record for record in records):
        parts["accuracy"] = lambda f: _draw_accuracy(f, records)
    for name, draw in (("learning_rate", draw_learning_rate), ("grad_norm", draw_gradient_norm)):
        given = [(r[name], r["step"]) for r in steps if name in r]
        values, at = zip(*given, strict=True) if given else ((), ())
        parts[name] = lambda f, draw=draw, values=values, at=at: draw(f, values, at)
    return parts


def _draw_loss(figure: FigureBase, records: Sequence[Record]) -> None:
    """Every step's loss, faint, behind the evaluations'; the best of them marked."""
    steps, evaluations = _steps(records), _evaluations(records)
    val = [r["val_loss"] for r in evaluations if "val_loss" in r]
    unit = "examples" if any("val_accuracy" in r for r in evaluations) else "tokens"
    draw_values(
        figure,
        ([r["epoch"] for r in evaluations], [r[f"{unit}_seen"] for r in evaluations]),
        ([r["running_loss"] for r in evaluations], val if len(val) == len(evaluations) else ()),
        "loss",
        f"{unit} seen",
        steps=([r["epoch"] for r in steps], [r["loss"] for r in steps]),
        best=int(np.nanargmin(val)) if val and not np.isnan(val).all() else None,
    )


def _draw_accuracy(figure: FigureBase, records: Sequence[Record]) -> None:
    found = [r for r in records if "val_accuracy" in r]
    val = [r["val_accuracy"] for r in found]
    axes = draw_values(
        figure,
        ([r["epoch"] for r in found], [r["examples_seen"] for r in found]),
        ([r["train_accuracy"] for r in found], val),
        "accuracy",
        "examples seen",
        best=int(np.argmax(val)),
    )
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value <= 1 else "")


def _draw_runs(
    figure: FigureBase, runs: Mapping[str, Sequence[Record]], what: str, position: int
) -> list[tuple[object, str]]:
    """A panel of several runs; returns what a legend says."""
    axes = new_axes(figure, what, position)
    entries: list[tuple[object, str]] = []
    for number, (name, records) in enumerate(runs.items()):
        train, val = "running_loss" if what == "loss" else "train_accuracy", f"val_{what}"
        look = line_of(number) | {"marker": MARKERS[number % len(MARKERS)], "markersize": 5}
        measured = val if any(val in r for r in records) else train
        points = [(r["tokens_seen"], r[measured]) for r in records if measured in r]
        x, y = zip(*points, strict=True) if points else ((), ())
        (line,) = axes.plot(x, y, **look, markevery=max(1, len(x) // 12), label=f"run {number + 1}")
        if measured == val:
            x, y = zip(*((r["tokens_seen"], r[train]) for r in records if train in r), strict=True)
            axes.plot(x, y, color=look["color"], alpha=0.4, linewidth=0.9, label="_training")
        last = f": {what} {points[-1][1]:.3g}" if points else ""
        entries.append((line, f"{name}{last}" + (" (training)" if measured == train else "")))
    axes.set_xlabel("tokens seen")
    axes.set_title(f"validation {what}; thin: training {what}", fontsize=9, loc="left")
    axes.xaxis.set_major_formatter(lambda x, _: short(x))
    return entries


def _steps(records: Sequence[Record]) -> list[Record]:
    from groundup.train.tracking import is_evaluation

    return [r for r in records if not is_evaluation(r)]


def _evaluations(records: Sequence[Record]) -> list[Record]:
    from groundup.train.tracking import is_evaluation

    return [r for r in records if is_evaluation(r)]
