"""Ctrl-C at any moment ends a command, also while it imports libraries that get it wrong.

PyTorch aborts if a ``KeyboardInterrupt`` comes while its C++ part is set up; other libraries make
an ``ImportError`` of it, or swallow it: as an optional import that failed, or in a callback, where
Python prints a traceback and goes on. So within an import it is raised at a safe place, where the
next module is looked for, and again at every next one until that import is left.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from types import FrameType, TracebackType

PATIENCE = 1.0
"""Seconds after which an import that has not been left is interrupted wherever it is."""


class Interrupts:
    """A context that raises ``KeyboardInterrupt`` for every Ctrl-C, in imports at a safe place.

    It is a finder of modules as well (``sys.meta_path``), which finds none: it is that place. A
    handler of somebody else's stays.
    """

    def __init__(self) -> None:
        self._within: FrameType | None = None  # the import that is to be left
        self._raised = self._ours = self._insists = False
        self._timer: threading.Timer | None = None

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise what was put off, or swallowed."""
        if self._within is None:
            return
        if self._raised and self._has_left(sys._getframe()):
            self._within = None
            return
        self._raised = True
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
        if self._timer is not None:
            self._timer.cancel()
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.meta_path.remove(self)  # pyright: ignore[reportArgumentType]
        sys.unraisablehook = self._hook
        while error is not None and not isinstance(error, SystemExit):
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            error = error.__cause__ or error.__context__

    def _handle(self, number: int, frame: FrameType | None) -> None:
        insists, self._insists = self._insists, False
        if insists and self._raised and self._has_left(frame):
            return
        outermost = _import_of(frame)
        if outermost is not None and self._within is None:
            self._within, self._raised = outermost, False
            self._timer = threading.Timer(PATIENCE, self._insist)
            self._timer.daemon = True
            self._timer.start()
            return
        self._raised = True
        raise KeyboardInterrupt

    def _insist(self) -> None:
        self._insists = True
        if hasattr(signal, "pthread_kill"):  # wakes a sleeper
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        else:
            _thread.interrupt_main()

    def _has_left(self, frame: FrameType | None) -> bool:
        """Whether the import that was to be left is over."""
        while frame is not None and frame is not self._within:
            frame = frame.f_back
        return frame is None

    def _unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            here = sys._getframe()
            self._within, self._raised = _import_of(here) or here, False
        else:
            self._hook(lost)


def _import_of(frame: FrameType | None) -> FrameType | None:
    """The outermost import that executes this; None without one."""
    found = None
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            found = frame
        frame = frame.f_back
    return found
