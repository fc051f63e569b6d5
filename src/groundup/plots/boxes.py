"""Boxes with text, on a sheet measured in letters and lines: what token pictures consist of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from groundup.plots.style import GRAY, INK, plain, shown, width_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTER = 0.0838
"""Inches that a letter of 10 points takes in the monospaced font."""

LINE = 0.3
"""Inches from one line to the next."""


@dataclass(frozen=True)
class Look:
    """How a box looks: its filling, its hatching, its line."""

    fill: str = "white"
    hatch: str = ""
    line: str = GRAY
    ink: str = INK
    width: float = 0.9
    dashed: bool = False


PASTELS = (
    Look("#cfe6f7"),
    Look("#f6cf8b"),
    Look("#d9f0e6"),
    Look("#e8b7cf"),
    Look("#fbf3b9"),
)
"""Of neighbours; every other one is darker, so they differ without colours too."""


class Sheet:
    """A figure to put boxes on: x in letters, y in lines, downwards.

    Args:
        letters: its width.
        lines: its height.
    """

    def __init__(self, letters: float, lines: float) -> None:
        from matplotlib.figure import Figure

        size = ((letters + 2) * LETTER, (lines + 0.6) * LINE)
        self.figure = Figure(figsize=size)
        self.axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self.axes.set_axis_off()
        self.axes.set_xlim(-1, letters + 1)
        self.axes.set_ylim(lines + 0.3, -0.3)

    def box(
        self, x: float, y: float, width: float, text: str, look: Look, *, height: float = 0.86
    ) -> None:
        """Put a box at a place, its text in its middle."""
        from matplotlib.patches import Rectangle

        rectangle = Rectangle(
            (x, y + (1 - height) / 2),
            width,
            height,
            facecolor=look.fill,
            edgecolor=look.line,
            hatch=look.hatch,
            linewidth=look.width,
            linestyle="--" if look.dashed else "-",
        )
        self.axes.add_patch(rectangle)
        if text:
            behind = look.fill if look.hatch else ""
            self.text(x + width / 2, y, text, color=look.ink, align="center", behind=behind)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        color: str = INK,
        align: str = "left",
        size: float = 10,
        bold: bool = False,
        behind: str = "",
    ) -> None:
        """Write into the middle of a line; the colour ``behind`` keeps lines and hatches away."""
        box = {"facecolor": behind, "edgecolor": "none", "pad": 1.2} if behind else None
        self.axes.text(
            x,
            y + 0.5,
            plain(text),
            ha=align,
            va="center_baseline",
            color=color,
            fontsize=size,
            fontfamily="monospace",
            fontweight="bold" if bold else "normal",
            bbox=box,
        )

    def line(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        """A thin line behind the boxes."""
        self.axes.plot(x, y, color=GRAY, linewidth=1, zorder=0)

    def legend(self, y: float, entries: Mapping[str, Look], x: float = 0) -> None:
        """Say what the looks mean, in one line."""
        for text, look in entries.items():
            self.box(x, y, 2.5, "", look, height=0.6)
            self.text(x + 3.3, y, text, size=9)
            x += 6 + width_of(text) * 0.9

    def done(self) -> Figure:
        """The figure, shown where it is made in a notebook."""
        return shown(self.figure)


def legend_width(entries: Mapping[str, Look]) -> float:
    """How many letters :meth:`Sheet.legend` takes."""
    return sum(6 + width_of(text) * 0.9 for text in entries)
