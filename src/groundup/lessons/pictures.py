"""The notebooks' own pictures, in the look of all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from groundup.plots.style import (
    MARKERS,
    SERIES,
    check_lengths,
    legend_below,
    line_of,
    new_axes,
    new_figure,
    numbers,
    shown,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_lines(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    *,
    log: bool = False,
) -> Figure:
    """Draw measurements, a line with marks for each name.

    Args:
        x: where they were made, ``(N,)``.
        lines: the measurements by name, ``(N,)`` each; six names at most.
        xlabel: what ``x`` is.
        ylabel: what was measured.
        log: whether the y axis counts powers of ten.

    Raises:
        UserError: the lengths differ.
    """
    figure = new_figure()
    axes = new_axes(figure, ylabel)
    entries = []
    for number, (name, values) in enumerate(list(lines.items())[: len(SERIES)]):
        check_lengths(x=x, **{name.replace(" ", "_"): values})
        look = line_of(number) | {"marker": MARKERS[number], "markersize": 5}
        (line,) = axes.plot(numbers("x", x), numbers(name, values), **look)
        entries.append((line, name))
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xticks(numbers("x", x))
    axes.set_xlabel(xlabel)
    legend_below(figure, entries)
    return shown(figure)
