"""A run is asked to stop after the step under way: by Ctrl-C, or by a cluster's scheduler.

Ctrl-C (SIGINT) is a person's wish: the run saves and ends with status 130, as programs that are
interrupted do; a second Ctrl-C insists. SIGTERM, and SIGUSR1 as Slurm sends it ahead of the time
limit (``--signal=USR1@120``), are a scheduler's: the run saves and ends with status 75, which is
``EX_TEMPFAIL`` of BSD's sysexits.h, "try again later": a job script has it queued again.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

INTERRUPTED = 128 + 2
"""Status of what Ctrl-C has ended, as a shell says it."""

TRY_AGAIN = 75
"""Status of a run that was asked to leave, has saved and can go on."""

SIGNALS = {
    getattr(signal, name): status
    for name, status in (("SIGINT", INTERRUPTED), ("SIGTERM", TRY_AGAIN), ("SIGUSR1", TRY_AGAIN))
    if hasattr(signal, name)  # Windows has no SIGUSR1
}
"""What stops a run, and the status that it then ends with."""

LAUNCHED = "TORCHELASTIC_RUN_ID"
"""What torchrun sets for the processes that it starts."""

AT_ONCE = 1.0
"""Seconds in which a second SIGINT is the same Ctrl-C, where torchrun passes it on to all."""


def say_last_words() -> None:
    """From here on torchrun lets this process end by itself: it has still to say why it does.

    When one process has died, torchrun ends those that are left; the one that says what has gone
    wrong, for all of them, need not be the first that is gone.
    """
    if LAUNCHED in os.environ and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


class StopRequest:
    """A context in which these signals set :attr:`requested` instead of ending the process.

    Attributes:
        requested: whether the run is to stop.
        status: what the command that trains exits with then.

    Args:
        say: told at once that the request was heard, since a step can take a while.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self.requested, self.status = False, INTERRUPTED
        self.say, self._since = say, -AT_ONCE
        self._previous: dict[signal.Signals, object] = {}

    def request(self) -> None:
        """Ask the run to stop after the step under way."""
        self.requested = True

    def __enter__(self) -> StopRequest:
        # Only the main thread may set handlers; elsewhere (a notebook's worker) request() works.
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                self._previous[name] = signal.signal(name, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and LAUNCHED in os.environ:
            self._previous[signal.SIGTERM] = signal.SIG_IGN  # without a gap: say_last_words()
        for name, handler in self._previous.items():
            signal.signal(name, handler)  # pyright: ignore[reportArgumentType]
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            late = time.monotonic() - self._since > AT_ONCE or LAUNCHED not in os.environ
            if number == signal.SIGINT and late:
                raise KeyboardInterrupt
            return  # Slurm's SIGTERM follows its SIGUSR1: it must not disturb the save
        self.requested, self.status = True, SIGNALS[signal.Signals(number)]
        self._since = time.monotonic()
        if number == signal.SIGINT:
            self.say("\nstopping after this step and saving (once more to stop without saving)")
        else:
            name = signal.Signals(number).name
            self.say(
                f"\n{name}: stopping after this step and saving; the status will be {TRY_AGAIN}"
            )
