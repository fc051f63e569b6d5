"""How byte-pair encoding puts a word together, as a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from groundup.errors import UserError
from groundup.plots.boxes import PASTELS, Look, Sheet
from groundup.plots.style import GRAY, shorten, token_text, width_of
from groundup.tokenizers.steps import merge_steps, ranks_of

MOST_BYTES = 40

TOKEN = Look("#9cc9ea", line="#0072B2", width=1.8)
LETTER = Look("#ffffff")
CAPTION = "#1 is the merge that was learned first; thick: the tokens that are left"


@dataclass(frozen=True)
class _Node:
    """A token: a byte, or two tokens that a merge has joined."""

    token: bytes
    begin: int  # its bytes in the word
    end: int
    height: int = 0
    rank: int | None = None
    parts: tuple[_Node, ...] = ()


def plot_merges(word: str | bytes, merges: Sequence[tuple[bytes, bytes]]) -> Any:
    """Draw which merges join the bytes of a word, and which tokens are left at the end.

    The word's bytes stand below; each box above joins two, and says when its merge was learned (1
    is the first). Boxes with a thick line are the tokens that the word becomes.

    Args:
        word: one piece of text, such as ``" lowest"``.
        merges: a tokenizer's ``merges``, pairs of bytes in the order in which they were learned.

    Returns:
        The figure.

    Raises:
        UserError: the word is empty or too long, or the merges are no pairs of bytes.
    """
    data = word.encode() if isinstance(word, str) else bytes(word)
    if not 1 <= len(data) <= MOST_BYTES:
        raise UserError(f"the word has {len(data)} bytes; expected 1 to {MOST_BYTES}")
    roots = _merged(data, merges)
    nodes = [node for root in roots for node in _all(root)]
    wide = max(7.5, *((width_of(_name(n)) + 2.5) / (n.end - n.begin) for n in nodes))
    top = max(node.height for node in roots)
    pitch = 2.1
    sheet = Sheet(max(wide * len(data), 0.8 * width_of(CAPTION)), pitch * top + 2)

    def middle(node: _Node) -> tuple[float, float]:
        return wide * (node.begin + node.end) / 2, pitch * (top - node.height)

    for node in nodes:
        x, y = middle(node)
        for part in node.parts:
            below_x, below_y = middle(part)
            sheet.line((x, below_x), (y + 0.9, below_y + 0.1))
    for node in nodes:
        x, y = middle(node)
        look = TOKEN if node in roots else PASTELS[2] if node.parts else LETTER
        width = width_of(_name(node)) + 1.4
        sheet.box(x - width / 2, y, width, _name(node), look)
        if node.rank is not None:
            text = f"#{node.rank + 1:,}"
            sheet.text(x, y + 0.85, text, size=7, align="center", behind="white")
    sheet.text(0, pitch * top + 1.1, CAPTION, size=7.5, color=GRAY)
    return sheet.done()


def _merged(data: bytes, merges: Sequence[tuple[bytes, bytes]]) -> list[_Node]:
    """Join neighbours, always by the earliest merge, of equals the leftmost."""
    try:
        ranks = ranks_of(merges)
    except (TypeError, ValueError):
        raise UserError(
            "merges are no pairs of bytes; give a tokenizer's, as in tokenizer.merges"
        ) from None
    nodes = [_Node(data[i : i + 1], i, i + 1) for i in range(len(data))]
    for step in merge_steps(data, ranks):
        a, b = nodes[step.place : step.place + 2]
        height = 1 + max(a.height, b.height)
        joined = _Node(a.token + b.token, a.begin, b.end, height, step.rank, (a, b))
        nodes[step.place : step.place + 2] = [joined]
    return nodes


def _all(node: _Node) -> list[_Node]:
    return [node, *(below for part in node.parts for below in _all(part))]


def _name(node: _Node) -> str:
    return shorten(token_text(node.token), 44)
