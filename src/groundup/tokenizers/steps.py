"""How byte-pair encoding puts a piece of text together, merge by merge: to be shown, not for speed.

    steps = merge_steps(b" lower", tokenizer.merges)     # [Step(rank=4, place=2), ...]

``bpe.merge_piece`` does the same for use; a test holds both equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from groundup.tokenizers.vocabulary import Merge


@dataclass(frozen=True)
class Step:
    """Two neighbours become one.

    Attributes:
        rank: which merge it is; 0 was learned first.
        place: which of the parts there are then is joined with the one after it, from 0.
    """

    rank: int
    place: int


def ranks_of(merges: Sequence[Merge]) -> dict[Merge, int]:
    """When each merge was learned."""
    return {(bytes(left), bytes(right)): rank for rank, (left, right) in enumerate(merges)}


def merge_steps(piece: bytes, ranks: Mapping[Merge, int]) -> Iterator[Step]:
    """Yield the merges of a piece in their order: the earliest learned, of equals the leftmost.

    Args:
        piece: its bytes, one word or so: the work grows with the square of their number.
        ranks: of :func:`ranks_of`.
    """
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        pairs = zip(parts, parts[1:], strict=False)
        found = [(ranks[pair], i) for i, pair in enumerate(pairs) if pair in ranks]
        if not found:
            return
        rank, place = min(found)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
        yield Step(rank, place)
