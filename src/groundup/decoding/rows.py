"""What the scheduler hands to the engine: rows of the cache, their moves, the batch of one call."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from groundup.decoding.sequence import Sequence


@dataclass(eq=False)
class Slot:
    """A row of the cache, and what is in it."""

    place: int
    ids: list[int] = field(default_factory=list)
    adapter: str | None = None
    owner: Sequence | None = None
    used: int = 0


class Move(NamedTuple):
    """What to do with the cache's rows: swap two, or copy ``length`` tokens of one."""

    source: int
    target: int
    length: int
    swap: bool


@dataclass
class Batch:
    """One call of the model: so many further tokens of each of these, whose rows stand together.

    The slots hold what was guessed like anything else that was computed; :meth:`Scheduler.written`
    drops what turns out wrong.
    """

    rows: list[Sequence]
    counts: list[int]
    guesses: list[list[int]]
    """What may follow these; computed behind them."""
    first: int
    """The first of their rows in the cache."""
    lengths: list[int]
    """What is in these rows."""
    moves: list[Move]
    """To be done before."""
    adapter: str | None

    @cached_property
    def ids(self) -> list[list[int]]:
        """The tokens to compute, guesses included."""
        found = []
        for row, n, count, guess in zip(
            self.rows, self.lengths, self.counts, self.guesses, strict=True
        ):
            start = row.start + n
            found.append(row.ids[start : start + count] + guess)
        return found

    @property
    def complete(self) -> list[int]:
        """Which of them get their next token by this call (the others have more of a prompt)."""
        return [
            i
            for i, row in enumerate(self.rows)
            if row.start + self.lengths[i] + self.counts[i] == len(row.ids)
        ]
