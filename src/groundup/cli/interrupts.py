"""Ctrl-C at any moment ends a command, also while it imports libraries that get it wrong.

PyTorch aborts if a ``KeyboardInterrupt`` comes while its C++ part is set up; other libraries make
an ``ImportError`` of it, or swallow it: as an optional import that failed, or in a callback, where
Python prints a traceback and goes on. So within an import it is raised at a safe place: where the
next module is looked for.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from types import FrameType, TracebackType

PATIENCE = 1.0
"""Seconds to wait for the next module, before an import is interrupted wherever it is."""

LOST_WITHIN = 2.0
"""Seconds after an interrupt in which another import means that it was put off, or swallowed."""


class Interrupts:
    """A context that raises ``KeyboardInterrupt`` for every Ctrl-C, in imports at a safe place.

    It is a finder of modules as well (``sys.meta_path``), which finds none: it is that place. A
    handler of somebody else's stays.
    """

    def __init__(self) -> None:
        self._heard: float | None = None
        self._timer: threading.Timer | None = None
        self._ours = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise what was put off, or swallowed."""
        heard, self._heard = self._heard, None
        if heard is not None and time.monotonic() < heard + LOST_WITHIN:
            self._calm()
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
        self._calm()
        sys.meta_path.remove(self)  # pyright: ignore[reportArgumentType]
        sys.unraisablehook = self._hook
        while error is not None and not isinstance(error, SystemExit):
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            error = error.__cause__ or error.__context__

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if _imports(frame):
            self._heard = time.monotonic()
            if self._timer is None:
                self._timer = threading.Timer(PATIENCE, _interrupt_main)
                self._timer.daemon = True
                self._timer.start()
                return
        self._calm()
        raise KeyboardInterrupt

    def _calm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            self._heard = time.monotonic()
        else:
            self._hook(lost)


def _imports(frame: FrameType | None) -> bool:
    """Whether this is executed by an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _interrupt_main() -> None:
    if hasattr(signal, "pthread_kill"):  # wakes a sleeper
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
