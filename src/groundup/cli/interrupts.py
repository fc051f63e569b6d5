"""Ctrl-C at any moment ends a command, also while it imports libraries that get it wrong.

A library may turn a ``KeyboardInterrupt`` into an ``ImportError`` of its own, or may swallow it: as
an optional import that failed, or in a callback, where Python prints a traceback and goes on.
"""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType, TracebackType

LOST_WITHIN = 2.0
"""Seconds after an interrupt in which another import means that it was swallowed."""


class Interrupts:
    """A context that raises ``KeyboardInterrupt`` for every Ctrl-C that would be lost in an import.

    It is a finder of modules as well (``sys.meta_path``), which finds none: it raises what was
    swallowed when the next module is looked for. A handler of somebody else's stays.
    """

    def __init__(self) -> None:
        self._heard: float | None = None
        self._ours = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise what was swallowed."""
        heard, self._heard = self._heard, None
        if heard is not None and time.monotonic() < heard + LOST_WITHIN:
            raise KeyboardInterrupt

    def __enter__(self) -> Interrupts:
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        sys.meta_path.insert(0, self)  # pyright: ignore[reportArgumentType]
        self._ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        try:
            if self._ours:
                signal.signal(signal.SIGINT, self._handle)
        except ValueError:  # only the main thread may
            self._ours = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.meta_path.remove(self)  # pyright: ignore[reportArgumentType]
        sys.unraisablehook = self._hook
        while error is not None and not isinstance(error, SystemExit):
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            error = error.__cause__ or error.__context__

    def _handle(self, number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                self._heard = time.monotonic()
                break
            frame = frame.f_back
        raise KeyboardInterrupt

    def _unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            self._heard = time.monotonic()
        else:
            self._hook(lost)
