"""Pictures of a run: loss, learning rate, gradient norm, as PNG files; and counts of anything.

The functions return a figure. In a notebook they show it too, as those of the course do, also
where the call isn't the cell's last line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from groundup.train.trainer import Record

PLOTS = "plots"
"""The folder of a run that they go to."""

TRAIN, VAL, GRAY = "#3b6fb6", "#d1603d", "#888888"

READABLE = 30
"""A confusion matrix of more classes would be too big a picture, or have too small numbers."""


def plot_run(run: str | Path, out: str | Path | None = None) -> list[Path]:
    """Draw a run's ``loss.png``, ``learning_rate.png`` and ``grad_norm.png``.

    A classifier's run has an ``accuracy.png`` as well, and counts examples instead of tokens.

    Args:
        run: a model directory with its ``metrics.jsonl``.
        out: where the pictures go; ``run/plots`` by default.

    Returns:
        The files, the loss first.

    Raises:
        UserError: the directory holds no measurements.
    """
    from groundup.train.tracking import read_metrics  # here: a judge's pictures need no torch

    run = Path(run)
    records = read_metrics(run)
    if not records:
        raise UserError(f"{run} has no metrics.jsonl with measurements; is it a training run?")
    out = Path(out or run / PLOTS)
    figures = {"loss.png": _loss_figure(records)}
    if any("val_accuracy" in record for record in records):
        figures["accuracy.png"] = _accuracy_figure(records)
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

    A notebook shows it; in a script, call the figure's ``savefig``.
    """
    x, y = (epochs_seen, tokens_seen), (train_losses, val_losses)
    return _shown(_curves(x, y, "loss", "tokens seen"))


def plot_values(
    epochs_seen: Sequence[float],
    examples_seen: Sequence[float],
    train_values: Sequence[float],
    val_values: Sequence[float],
    label: str = "loss",
) -> Figure:
    """Draw losses or accuracies against epochs, with the examples seen on a second axis.

    As in the course's chapter 6, but nothing is written: call the figure's ``savefig``.
    """
    x, y = (epochs_seen, examples_seen), (train_values, val_values)
    return _shown(_curves(x, y, label, "examples seen"))


def plot_confusion(
    matrix: np.ndarray, labels: Sequence[str], title: str = "", *, show: bool = True
) -> Figure:
    """Draw a confusion matrix: rows are what texts are, columns what they were called.

    Args:
        matrix: counts, ``(classes, classes)``.
        labels: the classes.
        title: above it.
        show: show it, where it is drawn in a notebook.
    """
    from matplotlib.figure import Figure

    size = len(labels)
    side = 0.7 * min(size, READABLE)
    figure = Figure(figsize=(2.2 + side, 1.8 + side), layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if size <= READABLE:
        for i, j in np.ndindex(size, size):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, f"{matrix[i, j]:,}", ha="center", va="center", color=color)
    # A label may hold a `$`, which begins no formula.
    font: dict[str, Any] = {"parse_math": False, "fontsize": 10 * min(1, READABLE / size)}
    axes.set_xticks(range(size), labels, rotation=45 if size > 4 else 0, **font)
    axes.set_yticks(range(size), labels, **font)
    axes.set_xlabel("called")
    axes.set_ylabel("is")
    axes.set_title(title, fontsize=10)
    return _shown(figure) if show else figure


def plot_counts(bars: Sequence[tuple[str, int]]) -> Figure:
    """Draw how often there was what; the picture is legible on a light and on a dark page.

    Args:
        bars: label and count of each bar.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.7, 2.3), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    labels, counts = zip(*bars, strict=True) if bars else ((), ())
    drawn = axes.bar(range(len(bars)), counts, color=TRAIN)
    axes.bar_label(drawn, color=GRAY, fontsize=9, padding=2)
    axes.set_xticks(range(len(bars)), labels, color=GRAY, fontsize=9)
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(GRAY)
    return figure


def svg(figure: Figure, title: str) -> str:
    """A picture as SVG, the same for the same figure.

    Args:
        figure: what to draw.
        title: says it to those who hear the picture read.
    """
    from matplotlib import rc_context

    text = StringIO()
    # Letters stay letters; names within the file are no random numbers.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "groundup"}):
        figure.savefig(text, format="svg", metadata={"Title": title, "Date": None})
    drawn = text.getvalue().replace("<svg ", '<svg role="img" ', 1)
    return re.sub("<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)


def _shown(figure: Figure) -> Figure:
    """Show a figure where it is made in a notebook, as ``plt.show()`` does; return it.

    As the value of the cell's last line it would be shown once more (or, in a kernel that has
    not imported pyplot, as ``<Figure …>``): only if it has been changed since.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if not hasattr(shell, "kernel"):
        return figure  # a script, or IPython in a terminal

    def display() -> None:
        from IPython.display import Image, display

        picture = BytesIO()
        figure.savefig(picture, format="png", dpi=110)
        display(Image(picture.getvalue(), alt="a plot"))
        drawn.update(cell=shell.execution_count)
        figure.stale = False  # saving had changed its resolution and back

    def display_again() -> None:
        if figure.stale or drawn["cell"] != shell.execution_count:
            display()

    drawn: dict[str, int] = {}
    display()
    figure._ipython_display_ = display_again  # pyright: ignore[reportAttributeAccessIssue]
    return figure


def _curves(
    x: tuple[Sequence[float], Sequence[float]],
    y: tuple[Sequence[float], Sequence[float]],
    label: str,
    unit: str,
) -> Figure:
    """Training and validation values ``y``, against epochs and what was seen until then, ``x``."""
    (epochs, seen), (train, val) = x, y
    figure, axes = _new_figure(label)
    axes.plot(epochs, train, color=TRAIN, label=f"training {label}")
    if len(val):
        axes.plot(epochs, val, color=VAL, linestyle="-.", label=f"validation {label}")
    axes.set_xlabel("epochs")
    axes.legend(frameon=False)
    _seen_axis(axes, epochs, seen, unit)
    return figure


def _loss_figure(records: Sequence[Record]) -> Figure:
    """Every step's loss, faint, behind the evaluations'."""
    from groundup.train.tracking import is_evaluation

    steps = [r for r in records if not is_evaluation(r)]
    evaluations = [r for r in records if is_evaluation(r)]
    classifies = any("val_accuracy" in r for r in evaluations)
    unit = "examples" if classifies else "tokens"
    figure = _curves(
        ([r["epoch"] for r in evaluations], [r[f"{unit}_seen"] for r in evaluations]),
        (
            [r["running_loss"] for r in evaluations],
            [r["val_loss"] for r in evaluations if "val_loss" in r],
        ),
        "loss",
        f"{unit} seen",
    )
    axes = figure.axes[0]
    x, y = [r["epoch"] for r in steps], [r["loss"] for r in steps]
    axes.plot(x, y, color=TRAIN, alpha=0.2, linewidth=0.8, zorder=0)
    last = evaluations[-1] if evaluations else {}
    for name, color in (("running_loss", TRAIN), ("val_loss", VAL)):
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


def _accuracy_figure(records: Sequence[Record]) -> Figure:
    found = [r for r in records if "val_accuracy" in r]
    return _curves(
        ([r["epoch"] for r in found], [r["examples_seen"] for r in found]),
        ([r["train_accuracy"] for r in found], [r["val_accuracy"] for r in found]),
        "accuracy",
        "examples seen",
    )


def _line_figure(records: Sequence[Record], name: str, label: str) -> Figure:
    from groundup.train.tracking import is_evaluation

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


def _seen_axis(axes: Axes, epochs: Sequence[float], seen: Sequence[float], unit: str) -> None:
    """A second x axis on top, of tokens or examples: proportional to epochs, so one factor does."""
    if not len(epochs) or not epochs[-1] or not seen[-1]:
        return
    per_epoch = seen[-1] / epochs[-1]
    second = axes.secondary_xaxis(
        "top",
        functions=(lambda x: np.multiply(x, per_epoch), lambda x: np.divide(x, per_epoch)),
    )
    second.set_xlabel(unit)
    second.xaxis.set_major_formatter(lambda x, _: _short(x))


def _short(value: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
