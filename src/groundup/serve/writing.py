"""The texts of one request while they are written, as the request sees them: pieces that come.

``runner.py`` has the other side, the thread that writes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from groundup.decoding.sequence import Logprob
from groundup.decoding.sequence import Sequence as Text
from groundup.decoding.text import FinishReason
from groundup.errors import UserError


class Busy(UserError):
    """There is no room for another request just now, or no more are taken."""


class Broken(RuntimeError):
    """What a request is told whose texts cannot be written on, by no fault of its own."""


class Piece(NamedTuple):
    """One token of one of a request's texts."""

    place: int
    """Which of its texts."""
    token_id: int
    text: str
    """What is certain with this token, which may be nothing."""
    logprob: Logprob | None
    finish_reason: FinishReason | None


@dataclass(eq=False)
class Writing:
    """The texts that are written for one request; iterate over their pieces once.

    Whoever has enough calls :meth:`stop`, which frees their places before the next step.

    Attributes:
        texts: what is written.
        name: what the model is called that writes.
        abort: writes no more of it.
        began: when it was asked for, in seconds of ``time.perf_counter``; ``first``: when its first
            token was there; ``last``: when its newest was.
        tokens: how many were written, of all texts.
    """

    texts: Sequence[Text]
    name: str
    abort: Callable[[Writing], None]
    loop: asyncio.AbstractEventLoop
    began: float = field(default_factory=time.perf_counter)
    first: float | None = None
    last: float | None = None
    tokens: int = 0
    came: asyncio.Queue[list[Piece] | Exception] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self._left = len(self.texts)
        self._early: list[Piece] = []

    async def begun(self) -> Writing:
        """Wait until there is a first piece, which iterating begins with.

        Raises:
            Exception: what kept it from being written.
        """
        self._early = await self._next()
        return self

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while self._left:
            pieces, self._early = self._early or await self._next(), []
            for piece in pieces:
                self._left -= piece.finish_reason is not None
                yield piece

    async def all(self) -> list[Piece]:
        """Every piece, once the last one is there."""
        return [piece async for piece in self]

    def stop(self) -> None:
        """Write no more of it; if all is written, nothing changes."""
        if self._left:
            self._left = 0
            self.abort(self)

    async def _next(self) -> list[Piece]:
        came = await self.came.get()
        if isinstance(came, Exception):
            self._left = 0
            raise came
        return came
