"""Tables of numbers as pictures: attention weights, confusion matrices; and counts as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.errors import UserError
from groundup.plots.style import (
    GRAY,
    INK,
    SHADES,
    TRAIN,
    finish,
    legend_below,
    new_figure,
    numbers,
    plain,
    shorten,
    shown,
    token_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

READABLE = 30
"""A confusion matrix of more classes would be too big a picture, or have too small numbers."""

MOST_TOKENS, MOST_HEADS = 128, 32


def plot_attention(
    weights: Any,
    tokens: Sequence[str | bytes],
    *,
    seen: Sequence[str | bytes] | None = None,
    mask: Any = None,
    title: str = "",
) -> Figure:
    """Draw attention weights: each row is a token, and shows where it looks.

    Masked cells are hatched, so that they differ from those whose weight is 0.

    Args:
        weights: of one head ``(T, S)``, or of several ``(H, T, S)``, such as
            ``watch(model)``'s ``seen.attention[0][0]``; scores before softmax will do too.
        tokens: those that look, ``(T,)``.
        seen: those that are looked at, ``(S,)``; the same unless given.
        mask: ``(T, S)``, true where looking is not allowed. Unless given, cells of -inf are
            masked; and, if all that lies in the future has no weight, that.
        title: above it.

    Raises:
        UserError: shapes and lengths do not agree, or there are too many for a picture.
    """
    from matplotlib.patches import Patch

    shape = tuple(getattr(weights, "shape", np.shape(weights)))
    if len(shape) not in (2, 3):
        raise UserError(f"weights are of shape {shape}; expected (T, S), or (H, T, S) for heads")
    heads = numbers("weights", weights, len(shape))
    heads = heads[None] if heads.ndim == 2 else heads
    columns = tokens if seen is None else seen
    _check_attention(heads, tokens, columns)
    hidden = _masked(heads, mask)
    across = min(4, len(heads)) if len(heads) != 6 else 3
    rows = -(-len(heads) // across)
    biggest = 6.0 if len(heads) == 1 else 2.9
    width, height = (min(biggest, max(1.8, 0.5 * count)) for count in heads.shape[:0:-1])
    figure = new_figure(2 + across * (width + 0.75), 1.2 + rows * (height + 0.95))
    allowed = heads[:, ~hidden]
    low, high = min(0.0, allowed.min(initial=0)), allowed.max(initial=0) or 1.0
    grid, image = figure.subplots(rows, across, squeeze=False), None
    for axes in grid.flat[len(heads) :]:
        axes.set_axis_off()
    for number, (axes, head) in enumerate(zip(grid.flat, heads, strict=False)):
        image = axes.imshow(np.where(hidden, np.nan, head), cmap=SHADES, vmin=low, vmax=high)
        _hatch(axes, hidden)
        _name_cells(axes, tokens, columns, height / len(tokens), width / len(columns))
        if len(heads) == 1 and max(head.shape) <= 10:
            _write_cells(axes, head, hidden, (low + high) / 2)
        if len(heads) > 1:
            axes.set_title(f"head {number}", fontsize=9)
    assert image is not None
    figure.colorbar(image, ax=grid, shrink=0.8, label="weight" if low == 0 else "score", pad=0.02)
    for axes in grid[-1 if len(heads) % across == 0 else 0]:
        axes.set_xlabel("token that is looked at", fontsize=9)
    for axes in grid[:, 0]:
        axes.set_ylabel("token that looks", fontsize=9)
    if title:
        figure.suptitle(plain(title), fontsize=11)
    if hidden.any():
        patch = Patch(facecolor="#eeeeee", edgecolor=GRAY, hatch="////")
        legend_below(figure, [(patch, "masked: not allowed to look")])
    return shown(figure)


def plot_confusion(
    matrix: np.ndarray, labels: Sequence[str], title: str = "", *, show: bool = True
) -> Figure:
    """Draw a confusion matrix: rows are what texts are, columns what they were called.

    Args:
        matrix: counts, ``(classes, classes)``.
        labels: the classes.
        title: above it.
        show: show it, where it is drawn in a notebook.

    Raises:
        UserError: the matrix is not of that shape.
    """
    size, matrix = len(labels), np.asarray(matrix)
    if matrix.shape != (size, size):
        raise UserError(
            f"the matrix is of shape {matrix.shape}, but there are {size} labels; expected "
            f"({size}, {size})"
        )
    side = 0.7 * min(size, READABLE)
    figure = new_figure(2.2 + side, 1.8 + side)
    axes = figure.add_subplot()
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1)
    if size <= READABLE:
        for i, j in np.ndindex(size, size):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, f"{matrix[i, j]:,}", ha="center", va="center", color=color)
    # A label may hold a `$`, which begins no formula.
    font: dict[str, Any] = {"parse_math": False, "fontsize": 10 * min(1, READABLE / size)}
    names = [shorten(plain(label), 30) for label in labels]
    upright = size > 4 or max(map(len, names), default=0) > 7
    axes.set_xticks(range(size), names, rotation=90 if upright else 0, **font)
    axes.set_yticks(range(size), names, **font)
    axes.tick_params(length=0)
    axes.spines[:].set_color(GRAY)
    axes.set_xlabel("called")
    axes.set_ylabel("is")
    axes.set_title(plain(title), fontsize=10)
    return shown(figure) if show else finish(figure)


def plot_counts(bars: Sequence[tuple[str, int]]) -> Figure:
    """Draw how often there was what; the picture is legible on a light and on a dark page.

    Args:
        bars: label and count of each bar.
    """
    figure = new_figure(6.7, 2.3)
    figure.set_facecolor("none")
    axes = figure.add_subplot(facecolor="none")
    labels, counts = zip(*bars, strict=True) if bars else ((), ())
    drawn = axes.bar(range(len(bars)), counts, color=TRAIN)
    axes.bar_label(drawn, color=GRAY, fontsize=9, padding=2)
    axes.set_xticks(range(len(bars)), map(plain, labels), color=GRAY, fontsize=9)
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(GRAY)
    return finish(figure)


def _check_attention(heads: np.ndarray, rows: Sequence[Any], columns: Sequence[Any]) -> None:
    if heads.shape[1:] != (len(rows), len(columns)):
        raise UserError(
            f"weights are of shape {heads.shape[1:]} per head, but there are {len(rows)} tokens "
            f"that look and {len(columns)} that are looked at (seen=); expected the same numbers"
        )
    if not 1 <= max(heads.shape[1:]) <= MOST_TOKENS or not 1 <= len(heads) <= MOST_HEADS:
        raise UserError(
            f"weights are of shape {heads.shape}; a picture holds 1 to {MOST_HEADS} heads and 1 to "
            f"{MOST_TOKENS} tokens: choose some, as in weights[:4, :20, :20]"
        )


def _masked(heads: np.ndarray, mask: Any) -> np.ndarray:
    """Which cells ``(T, S)`` are not allowed to look."""
    count, past = heads.shape[1:]
    if mask is not None:
        hidden = numbers("mask", mask, 2).astype(bool)
        if hidden.shape != (count, past):
            raise UserError(f"mask is of shape {hidden.shape}; expected {(count, past)}")
        return hidden
    hidden = np.asarray(np.isneginf(heads).all(axis=0))
    future = np.triu(np.ones((count, past), dtype=bool), k=1 + past - count)
    if not hidden.any() and future.any() and not heads[:, future].any():
        return future
    return hidden


def _hatch(axes: Axes, hidden: np.ndarray) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if not hidden.any():
        return
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]])
    cells = [Path(corners + (j, i), closed=True) for i, j in np.argwhere(hidden)]
    # All as one: thousands of small hatched ones take minutes to draw.
    look = {"facecolor": "#eeeeee", "edgecolor": GRAY, "linewidth": 0, "hatch": "////"}
    axes.add_patch(PathPatch(Path.make_compound_path(*cells), **look))


def _name_cells(
    axes: Axes, rows: Sequence[Any], columns: Sequence[Any], tall: float, wide: float
) -> None:
    """Name rows and columns; ``tall`` and ``wide`` are a cell's sizes in inches."""
    for axis, names, size in ((axes.yaxis, rows, tall), (axes.xaxis, columns, wide)):
        every = max(1, math.ceil(0.1 / size))  # no smaller than can be read
        points = min(9.0, 72 * size * every * 0.62)
        labels = [shorten(token_text(name), 16) for name in names[::every]]
        upright = axis is axes.xaxis and max(map(len, labels)) * 0.65 * points / 72 > size * every
        axis.set_ticks(
            range(0, len(names), every), labels, fontsize=points, rotation=90 if upright else 0
        )
    axes.tick_params(length=0)
    axes.spines[:].set_color(GRAY)


def _write_cells(axes: Axes, head: np.ndarray, hidden: np.ndarray, middle: float) -> None:
    for i, j in np.ndindex(*head.shape):
        if not hidden[i, j]:
            color = "white" if head[i, j] > middle else INK
            axes.text(j, i, f"{head[i, j]:.2f}", ha="center", va="center", color=color, fontsize=8)
