"""Pictures of a run: loss, learning rate, gradient norm, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from groundup.errors import UserError
from groundup.train.tracking import is_evaluation, read_metrics
from groundup.train.trainer import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOTS = "plots"
"""The folder of a run that they go to."""

TRAIN, VAL = "#3b6fb6", "#d1603d"


def plot_run(run: Path, out: Path | None = None) -> list[Path]:
    """Draw a run's ``loss.png``, ``learning_rate.png`` and ``grad_norm.png``.

    Args:
        run: a model directory with its ``metrics.jsonl``.
        out: where the pictures go; ``run/plots`` by default.

    Returns:
        The files, the loss first.

    Raises:
        UserError: the directory holds no measurements.
    """
    records = read_metrics(run)
    if not records:
        raise UserError(f"{run} has no metrics.jsonl with measurements; is it a training run?")
    out = out or run / PLOTS
    figures = {"loss.png": _loss_figure(records)}
    for name, label in (("learning_rate", "learning rate"), ("grad_norm", "gradient norm")):
        figures[f"{name}.png"] = _line_figure(records, name, label)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            figure.savefig(out / name, dpi=150)
    except OSError as error:
        raise UserError(f"cannot write the plots to {out}: {error.strerror}") from error
    return [out / name for name in figures]


def plot_losses(
    epochs_seen: Sequence[float],
    tokens_seen: Sequence[float],
    train_losses: Sequence[float],
    val_losses: Sequence[float],
) -> Figure:
    """Draw losses against epochs, with the tokens seen on a second axis, as in the course.

    In a notebook the returned figure shows itself; in a script, call its ``savefig``.
    """
    figure, axes = _new_figure("loss")
    axes.plot(epochs_seen, train_losses, color=TRAIN, label="training loss")
    if len(val_losses):
        axes.plot(epochs_seen, val_losses, color=VAL, linestyle="-.", label="validation loss")
    axes.set_xlabel("epochs")
    axes.legend(frameon=False)
    _tokens_axis(axes, epochs_seen, tokens_seen)
    return figure


def _loss_figure(records: Sequence[Record]) -> Figure:
    """Every step's loss, faint, behind the evaluations'."""
    steps = [r for r in records if not is_evaluation(r)]
    evaluations = [r for r in records if is_evaluation(r)]
    figure = plot_losses(
        [r["epoch"] for r in evaluations],
        [r["tokens_seen"] for r in evaluations],
        [r["train_loss"] for r in evaluations],
        [r["val_loss"] for r in evaluations if "val_loss" in r],
    )
    axes = figure.axes[0]
    x, y = [r["epoch"] for r in steps], [r["loss"] for r in steps]
    axes.plot(x, y, color=TRAIN, alpha=0.2, linewidth=0.8, zorder=0)
    last = evaluations[-1] if evaluations else {}
    for name, color in (("train_loss", TRAIN), ("val_loss", VAL)):
        if name in last:
            axes.annotate(
                f"{last[name]:.2f}",
                (last["epoch"], last[name]),
                xytext=(4, 0),
                textcoords="offset points",
                color=color,
                fontsize=8,
                va="center",
            )
    return figure


def _line_figure(records: Sequence[Record], name: str, label: str) -> Figure:
    steps = [r for r in records if not is_evaluation(r) and name in r]
    figure, axes = _new_figure(label)
    axes.plot([r["step"] for r in steps], [r[name] for r in steps], color=TRAIN, linewidth=1)
    axes.set_xlabel("step")
    axes.set_ylim(bottom=0)
    return figure


def _new_figure(ylabel: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylabel(ylabel)
    axes.spines["right"].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    return figure, axes


def _tokens_axis(axes: Axes, epochs: Sequence[float], tokens: Sequence[float]) -> None:
    """A second x axis on top that counts tokens; both are proportional, so one factor does."""
    if not len(epochs) or not epochs[-1] or not tokens[-1]:
        return
    per_epoch = tokens[-1] / epochs[-1]
    second = axes.secondary_xaxis(
        "top",
        functions=(lambda x: np.multiply(x, per_epoch), lambda x: np.divide(x, per_epoch)),
    )
    second.set_xlabel("tokens seen")
    second.xaxis.set_major_formatter(lambda x, _: _short(x))


def _short(value: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
