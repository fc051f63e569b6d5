"""Ctrl-C asks a run to stop after the step under way; a second Ctrl-C insists."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType


class StopRequest:
    """A context in which SIGINT and SIGTERM set :attr:`requested` instead of raising.

    SIGTERM is what a cluster's scheduler sends before it takes the machine away.

    Args:
        say: told at once that the request was heard, since a step can take a while.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self.requested = False
        self.say = say
        self._previous: dict[signal.Signals, object] = {}

    def request(self) -> None:
        """Ask the run to stop after the step under way."""
        self.requested = True

    def __enter__(self) -> StopRequest:
        # Only the main thread may set handlers; elsewhere (a notebook's worker) request() works.
        if threading.current_thread() is threading.main_thread():
            for name in (signal.SIGINT, signal.SIGTERM):
                self._previous[name] = signal.signal(name, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, handler in self._previous.items():
            signal.signal(name, handler)  # pyright: ignore[reportArgumentType]
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self.say("\nstopping after this step and saving (once more to stop without saving)")
