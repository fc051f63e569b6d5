"""Answers that take a while: streamed, or whole; whoever hangs up is noticed at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Send

from groundup.serve.asking import Problem

T = TypeVar("T")

STALLED = 60.0
"""Seconds in which a client has to read on; one that doesn't is let go."""


class Streamed(StreamingResponse):
    """Lines that are sent as they come.

    Args:
        lines: what to send; it is closed if the client hangs up or reads no further.
        media_type: what they are.
        end: called in any case, once no more is sent.
    """

    def __init__(self, lines: AsyncIterator[str], media_type: str, end: Callable[[], None]) -> None:
        # No proxy should wait for more before it passes them on.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(lines, headers=headers, media_type=media_type)
        self._end = end

    async def stream_response(self, send: Send) -> None:
        """Send them all."""

        async def in_time(message: Message) -> None:
            async with asyncio.timeout(STALLED):
                await send(message)

        try:
            with suppress(TimeoutError):
                await super().stream_response(in_time)
        finally:
            self._end()


async def unless_gone(
    request: Request, doing: Awaitable[T], end: Callable[[], None] = lambda: None
) -> T:
    """What is awaited; if the client hangs up before, it is cancelled and ``end`` called.

    Raises:
        Problem: the client hung up; nobody reads this.
    """
    work = asyncio.ensure_future(doing)
    gone = asyncio.ensure_future(_hangs_up(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise Problem("the client hung up", 499)
    finally:
        gone.cancel()
        if not work.done() or work.cancelled() or work.exception() is not None:
            work.cancel()
            end()


async def _hangs_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def as_event(value: dict[str, Any]) -> str:
    """One of SSE's events."""
    return f"data: {as_json(value)}\n\n"


def as_line(value: dict[str, Any]) -> str:
    """A line of NDJSON."""
    return f"{as_json(value)}\n"


def as_json(value: dict[str, Any]) -> str:
    """JSON on one line, with every character spelled out that a line could end with."""
    return json.dumps(value, separators=(",", ":"))
