"""What a picture looks like, as far as a test can tell."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def written(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that is drawn, and the place that it takes, in pixels."""
    found: list[tuple[str, Bbox]] = []
    draw = Text.draw

    def watched(self: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
        draw(self, renderer, *args, **kwargs)
        if self.get_visible() and self.get_text().strip():
            found.append((self.get_text(), self.get_window_extent(renderer)))

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(Text, "draw", watched)
        FigureCanvasAgg(figure).draw()
    return found


def check_texts(figure: Figure) -> list[str]:
    """Check that no two texts overlap and none leaves the picture; return them."""
    found = written(figure)
    page = figure.bbox.padded(1)
    texts = [text for text, _ in found]
    for text, box in found:
        corners = ((box.x0, box.y0), (box.x1, box.y1))
        assert all(page.contains(*corner) for corner in corners), f"{text!r} leaves the picture"
    low, high = (np.array([getattr(box, end) for _, box in found]) for end in ("min", "max"))
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)  # (N, N, 2)
    for i, j in np.argwhere(np.triu(shared.min(axis=2) >= 1, k=1)):
        raise AssertionError(f"{texts[i]!r} overlaps {texts[j]!r}")
    return texts


def lightness(color: Any) -> float:
    """CIE L* of a colour: 0 black, 100 white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance


def boxes(figure: Figure) -> list[Rectangle]:
    """The boxes of a sheet, in the order in which they were put there."""
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def lines(axes: Any) -> dict[str, list[float]]:
    """The curves by their labels."""
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}
