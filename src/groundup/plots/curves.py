"""Curves of a training: losses, accuracies, the learning rate, the gradient's norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from groundup.plots.style import (
    GRAY,
    INK,
    TRAIN,
    VAL,
    Numbers,
    check_lengths,
    legend_below,
    new_axes,
    new_figure,
    numbers,
    plain,
    shown,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase


def plot_losses(
    epochs_seen: Numbers, tokens_seen: Numbers, train_losses: Numbers, val_losses: Numbers
) -> Figure:
    """Draw losses against epochs, with the tokens seen on a second axis, as in the course.

    A notebook shows it; in a script, call the figure's ``savefig``.

    Args:
        epochs_seen: when each was measured, ``(N,)``.
        tokens_seen: the same in tokens, ``(N,)``.
        train_losses: ``(N,)``.
        val_losses: ``(N,)``, or empty.

    Raises:
        UserError: the lengths differ.
    """
    x, y = (epochs_seen, tokens_seen), (train_losses, val_losses)
    return shown(_figure(x, y, "loss", "tokens seen"))


def plot_values(
    epochs_seen: Numbers,
    examples_seen: Numbers,
    train_values: Numbers,
    val_values: Numbers,
    label: str = "loss",
) -> Figure:
    """Draw losses or accuracies against epochs, with the examples seen on a second axis.

    As in the course's chapter 6, but nothing is written: call the figure's ``savefig``.

    Args:
        epochs_seen: when each was measured, ``(N,)``.
        examples_seen: the same in examples, ``(N,)``.
        train_values: ``(N,)``.
        val_values: ``(N,)``, or empty.
        label: what they are.

    Raises:
        UserError: the lengths differ.
    """
    x, y = (epochs_seen, examples_seen), (train_values, val_values)
    return shown(_figure(x, y, label, "examples seen"))


def plot_learning_rate(
    learning_rates: Numbers, steps: Numbers | None = None, *, warmup_steps: int = 0
) -> Figure:
    """Draw the learning rate of each step.

    Args:
        learning_rates: ``(N,)``.
        steps: their numbers, ``(N,)``; 1 to N unless given.
        warmup_steps: how many of them the warmup took; these are shaded.

    Raises:
        UserError: the lengths differ.
    """
    figure = new_figure()
    draw_learning_rate(figure, learning_rates, steps, warmup_steps=warmup_steps)
    return shown(figure)


def plot_gradient_norm(
    norms: Numbers, steps: Numbers | None = None, *, clip: float = 0.0
) -> Figure:
    """Draw the gradient's norm at each step, before it was clipped.

    Args:
        norms: ``(N,)``.
        steps: their numbers, ``(N,)``; 1 to N unless given.
        clip: the longest that was let through, as a line; 0 for none.

    Raises:
        UserError: the lengths differ.
    """
    figure = new_figure()
    draw_gradient_norm(figure, norms, steps, clip=clip)
    return shown(figure)


def draw_learning_rate(
    figure: FigureBase, rates: Numbers, steps: Numbers | None = None, *, warmup_steps: int = 0
) -> None:
    """Draw what :func:`plot_learning_rate` does into a figure, or a part of one."""
    axes, entries = _by_step(figure, "learning rate", rates, steps)
    if warmup_steps > 0:
        area = axes.axvspan(0, warmup_steps, color=GRAY, alpha=0.15, linewidth=0)
        legend_below(figure, [*entries, (area, "warmup")])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def draw_gradient_norm(
    figure: FigureBase, norms: Numbers, steps: Numbers | None = None, *, clip: float = 0.0
) -> None:
    """Draw what :func:`plot_gradient_norm` does into a figure, or a part of one."""
    axes, entries = _by_step(figure, "gradient norm", norms, steps)
    if clip > 0:
        line = axes.axhline(clip, color=INK, linestyle=":", linewidth=1.2)
        legend_below(figure, [*entries, (line, f"clipped at {clip:g}")])


def draw_values(
    figure: FigureBase,
    x: tuple[Numbers, Numbers],
    y: tuple[Numbers, Numbers],
    label: str,
    unit: str,
    *,
    steps: tuple[Numbers, Numbers] | None = None,
    best: int | None = None,
) -> Axes:
    """Draw training and validation values into a figure, or a part of one.

    Args:
        figure: where.
        x: epochs, and what was seen until then.
        y: training and validation values; the latter may be missing.
        label: what they are.
        unit: what was seen.
        steps: epochs and values of every step, which are drawn faintly behind.
        best: the index of the best validation value, which is marked.
    """
    epochs, seen = numbers("epochs_seen", x[0]), numbers(unit.replace(" ", "_"), x[1])
    train, val = numbers(f"training {label}", y[0]), numbers(f"validation {label}", y[1])
    columns = {"epochs": epochs, unit: seen, f"training {label}": train}
    check_lengths(**(columns | ({f"validation {label}": val} if len(val) else {})))
    axes = new_axes(figure, label)
    name = plain(label)
    if steps is not None:
        axes.plot(*steps, color=TRAIN, alpha=0.4, linewidth=0.8, zorder=0, label="_every step")
    few = "o" if len(epochs) <= 30 else ""
    entries = []
    for kind, values, color, style in (
        ("training", train, TRAIN, "-"),
        ("validation", val, VAL, "--"),
    ):
        if len(values) or kind == "training":
            (line,) = axes.plot(
                epochs,
                values,
                color=color,
                linestyle=style,
                label=f"{kind} {name}",
                marker=few if kind == "training" else few and "s",
                markersize=3.5,
                linewidth=1.8,
            )
            entries.append((line, f"{kind} {name}{_last(values)}"))
    if best is not None and best < len(val):
        (star,) = axes.plot(
            epochs[best],
            val[best],
            "*",
            color=VAL,
            markeredgecolor=INK,
            markersize=13,
            label="_best",
        )
        entries.append((star, f"best: {val[best]:.3g}"))
    axes.set_xlabel("epochs")
    _seen_axis(axes, epochs, seen, unit)
    legend_below(figure, entries)
    return axes


def short(value: float) -> str:
    """A number of many digits in few: 1.5M."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _figure(
    x: tuple[Numbers, Numbers], y: tuple[Numbers, Numbers], label: str, unit: str
) -> Figure:
    figure = new_figure()
    draw_values(figure, x, y, label, unit)
    return figure


def _by_step(
    figure: FigureBase, label: str, values: Numbers, steps: Numbers | None
) -> tuple[Axes, list[tuple[object, str]]]:
    from matplotlib.ticker import MaxNLocator

    y = numbers(label, values)
    x = np.arange(1, len(y) + 1) if steps is None else numbers("steps", steps)
    check_lengths(steps=x, **{label: y})
    axes = new_axes(figure, label)
    (line,) = axes.plot(x, y, color=TRAIN, linewidth=1.4, label=label)
    axes.set_xlabel("step")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return axes, [(line, label)]


def _last(values: np.ndarray) -> str:
    return f" (last {values[-1]:.3g})" if len(values) and np.isfinite(values[-1]) else ""


def _seen_axis(axes: Axes, epochs: np.ndarray, seen: np.ndarray, unit: str) -> None:
    """A second x axis on top, of tokens or examples: proportional to epochs, so one factor does."""
    if not len(epochs) or not epochs[-1] or not seen[-1]:
        return
    per_epoch = float(seen[-1] / epochs[-1])
    second = axes.secondary_xaxis(
        "top",
        functions=(lambda x: np.multiply(x, per_epoch), lambda x: np.divide(x, per_epoch)),
    )
    second.set_xlabel(unit)
    second.spines["top"].set_color(GRAY)
    second.tick_params(color=GRAY)
    second.xaxis.set_major_formatter(lambda x, _: short(x))
