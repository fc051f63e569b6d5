"""Pictures of tokens: a text in its tokens, sliding windows over it, batches of instructions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from groundup.config import IGNORE_INDEX
from groundup.errors import UserError
from groundup.plots.boxes import PASTELS, Look, Sheet, legend_width
from groundup.plots.style import check_lengths, numbers, shorten, token_text, width_of

MOST_TOKENS, MOST_WINDOWS = 600, 24
MOST_ROWS, MOST_COLUMNS = 32, 128
LONGEST = 24
"""Letters that are shown of a token."""

LEARNED = Look("#9cc9ea", line="#0072B2")
TARGET = Look("#f9d796", "", "#b87d00")
END = Look("#8fd6bd", line="#007a59", width=1.8)
IGNORED = Look("#ffffff", "////", "#b5b5b5", ink="#666666")
PADDING = Look("#ececec", "..", "#b5b5b5", ink="#777777")
OUTSIDE = Look("#ffffff", line="#cccccc", ink="#888888")


def plot_tokens(
    tokens: Sequence[str | bytes], ids: Sequence[int] | None = None, *, columns: int = 88
) -> Any:
    """Draw a text with each of its tokens in a coloured box; a space is ·, a line end ↵.

    Args:
        tokens: the tokens, ``(N,)``; bytes that are no whole character are shown in hex.
        ids: their ids ``(N,)``, to be written below.
        columns: letters per line.

    Returns:
        The figure.

    Raises:
        UserError: the lengths differ, there are no tokens or too many, or ``columns`` is too small.
    """
    if ids is not None:
        check_lengths(tokens=tokens, ids=ids)
    if not 1 <= len(tokens) <= MOST_TOKENS:
        raise UserError(f"there are {len(tokens)} tokens; expected 1 to {MOST_TOKENS}")
    if columns < LONGEST + 2:
        raise UserError(f"columns is {columns}; expected at least {LONGEST + 2}")
    places: list[tuple[float, int, float, str]] = []
    x, line = 0.0, 0
    for number, token in enumerate(tokens):
        text = shorten(token_text(token), LONGEST)
        below = width_of(str(int(ids[number]))) * 0.8 if ids is not None else 0
        width = max(width_of(text), below) + 0.7
        if x + width > columns:
            x, line = 0.0, line + 1
        places.append((x, line, width, text))
        x += width + 0.25
        if token in ("\n", b"\n"):
            x, line = 0.0, line + 1
    lines = places[-1][1] + 1
    pitch = 1.85 if ids is not None else 1.15
    sheet = Sheet(max(x + width for x, _, width, _ in places), lines * pitch)
    for number, (x, line, width, text) in enumerate(places):
        sheet.box(x, line * pitch, width, text, PASTELS[number % len(PASTELS)])
        if ids is not None:
            middle = x + width / 2
            sheet.text(middle, line * pitch + 0.78, str(int(ids[number])), size=7.5, align="center")
    return sheet.done()


def plot_windows(tokens: Sequence[str | bytes], max_length: int, stride: int) -> Any:
    """Draw the sliding windows over a text: inputs, and below them the targets, one token on.

    They are those of ``create_dataloader_v1`` and ``TokenWindows``.

    Args:
        tokens: the text's tokens, ``(N,)``.
        max_length: tokens per window, T.
        stride: tokens from the beginning of one window to that of the next.

    Returns:
        The figure.

    Raises:
        UserError: ``max_length`` or ``stride`` is below 1, the text is too short for one window,
            or there are too many windows or tokens for a picture.
    """
    for name, value in (("max_length", max_length), ("stride", stride)):
        if value < 1:
            raise UserError(f"{name} is {value}; expected at least 1")
    starts = range(0, len(tokens) - max_length, stride)
    if not starts:
        raise UserError(
            f"there are {len(tokens)} tokens; one window needs max_length + 1 = {max_length + 1}"
        )
    if len(starts) > MOST_WINDOWS or len(tokens) > MOST_COLUMNS:
        raise UserError(
            f"{len(tokens)} tokens give {len(starts)} windows; a picture holds {MOST_COLUMNS} "
            f"tokens and {MOST_WINDOWS} windows: give a shorter text"
        )
    texts = [shorten(token_text(token), 14) for token in tokens]
    margin = 11.0
    edges = margin + np.cumsum([0.0, *(width_of(text) + 1.0 for text in texts)])
    legend = {"input": LEARNED, "target: the next token": TARGET}
    sheet = Sheet(max(edges[-1], margin + legend_width(legend)), 1.4 + 2.3 * len(starts) + 1.2)

    def row(y: float, begin: int, end: int, look: Look) -> None:
        for i in range(begin, end):
            sheet.box(edges[i], y, edges[i + 1] - edges[i] - 0.15, texts[i], look)

    sheet.text(0, 0, "text", bold=True)
    row(0, 0, len(texts), OUTSIDE)
    for number, start in enumerate(starts):
        y = 1.4 + 2.3 * number
        sheet.text(0, y, f"window {number}", bold=True)
        row(y, start, start + max_length, LEARNED)
        row(y + 0.95, start + 1, start + max_length + 1, TARGET)
    sheet.legend(1.4 + 2.3 * len(starts) + 0.2, legend, margin)
    return sheet.done()


def plot_collate(
    inputs: Any,
    targets: Any,
    *,
    pad_token_id: int = 50256,
    ignore_index: int = IGNORE_INDEX,
    decode: Callable[[list[int]], str] | None = None,
) -> Any:
    """Draw a batch of instructions: what the model reads, and of what it learns the next token.

    Args:
        inputs: ids ``(B, T)``.
        targets: ids ``(B, T)``, ``ignore_index`` where nothing is learned.
        pad_token_id: what fills the inputs at their end.
        ignore_index: what takes a place out of the targets.
        decode: a tokenizer's ``decode``, to show texts instead of ids.

    Returns:
        The figure.

    Raises:
        UserError: the shapes differ, or there are too many rows or columns for a picture.
    """
    rows = [
        numbers(name, ids, 2).astype(int)
        for name, ids in (("inputs", inputs), ("targets", targets))
    ]
    if rows[0].shape != rows[1].shape:
        raise UserError(
            f"inputs are {rows[0].shape} and targets {rows[1].shape}; expected the same"
        )
    count, length = rows[0].shape
    if not 1 <= count <= MOST_ROWS or not 1 <= length <= MOST_COLUMNS:
        raise UserError(
            f"the batch is of shape {(count, length)}; a picture holds 1 to {MOST_ROWS} rows and "
            f"1 to {MOST_COLUMNS} columns: choose some, as in inputs[:4, :40]"
        )

    def cell(token_id: int) -> str:
        if decode is None or token_id == ignore_index:
            return str(token_id)
        return shorten(token_text(decode([token_id])), 14)

    texts = [[[cell(value) for value in row] for row in ids.tolist()] for ids in rows]
    widths = [max(width_of(t[j]) for part in texts for t in part) + 2.6 for j in range(length)]
    edges = 9.0 + np.cumsum([0.0, *widths])
    looks = _collate_looks(rows[0], rows[1], pad_token_id, ignore_index)
    legend = {
        "read, or learned": LEARNED,
        "end of text, learned": END,
        f"{ignore_index}: not learned": IGNORED,
        "padding": PADDING,
    }
    lines = 2 * (count + 1.6)
    sheet = Sheet(max(edges[-1], legend_width(legend)), lines + 1)
    for part, name in enumerate(("inputs", "targets")):
        top = part * (count + 1.6)
        sheet.text(0, top, name, bold=True)
        for i in range(count):
            sheet.text(0, top + 1 + i, f"row {i}", size=9)
            for j in range(length):
                width = edges[j + 1] - edges[j] - 0.15
                sheet.box(edges[j], top + 1 + i, width, texts[part][i][j], looks[part][i][j])
    sheet.legend(lines, legend)
    return sheet.done()


def _collate_looks(
    inputs: np.ndarray, targets: np.ndarray, pad: int, ignore: int
) -> tuple[list[list[Look]], list[list[Look]]]:
    """How each place of inputs and targets looks; padding is the run of it at a row's end."""
    trailing = np.cumprod((inputs == pad)[:, ::-1], axis=1)[:, ::-1].astype(bool)
    ignored = targets == ignore
    above = np.where(trailing, PADDING, LEARNED)  # pyright: ignore
    # A target beside padding is what follows it; the first is the end of the text.
    below = np.where(ignored & trailing, PADDING, np.where(ignored, IGNORED, LEARNED))  # pyright: ignore
    below = np.where(~ignored & (targets == pad), END, below)  # pyright: ignore
    return above.tolist(), below.tolist()
