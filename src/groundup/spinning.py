"""How long a thread that waits for another one spins before it sleeps: chosen by a measurement.

PyTorch's threads meet thousands of times per training step. One that comes first can spin, which
costs its core, or sleep, which costs the time of being woken. Neither is right everywhere: on a
virtual machine where waking is slow, sleeping makes two threads as slow as one; where other
programs run too, spinning takes from them (and from this program's own threads) what they need to
arrive.

Spinning for as long as waking takes, then sleeping, is never more than twice as slow as the better
of the two, whatever the others do (the ski-rental argument: Karlin et al. 1991). So the time that
waking takes is measured: one process wakes another one on another core, and is woken by it.
"""

from __future__ import annotations

import os
import signal
import sys
import time

SPINS_PER_MICROSECOND = 100
"""libgomp's own estimate."""

FEWEST, MOST = 1_000, 30_000
"""Bounds of what is chosen; libgomp's default is 300,000."""


def choose_spins() -> None:
    """Set ``GOMP_SPINCOUNT``, which libgomp reads once, when PyTorch is loaded.

    What the user has set stays, and nothing is done where it would come too late.
    """
    decided = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ)
    if not decided and "torch" not in sys.modules:
        spins = int(SPINS_PER_MICROSECOND * waking_microseconds())
        os.environ["GOMP_SPINCOUNT"] = str(min(max(spins, FEWEST), MOST))


def waking_microseconds(rounds: int = 50) -> float:
    """How long it takes to wake a process that sleeps on another core; 0 where it cannot be told.

    Of the rounds, one of the fastest counts: another program's work is none of the waking.
    """
    if not hasattr(os, "sched_setaffinity") or len(cores := sorted(os.sched_getaffinity(0))) < 2:
        return 0.0
    there, back = os.pipe(), os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is the parent's to hear
    child = os.fork()
    if child == 0:
        try:
            os.close(there[1])  # so that the parent's end, whatever its reason, ends the child
            os.sched_setaffinity(0, {cores[1]})
            while os.read(there[0], 1) == b"?":
                os.write(back[1], b"!")
        finally:
            os._exit(0)
    times = []
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.sched_setaffinity(0, {cores[0]})
        for _ in range(rounds):
            begun = time.perf_counter()
            os.write(there[1], b"?")
            os.read(back[0], 1)
            times.append(time.perf_counter() - begun)
        os.write(there[1], b".")
    finally:
        os.sched_setaffinity(0, set(cores))
        for end in (*there, *back):
            os.close(end)
        os.waitpid(child, 0)
    return 1e6 * sorted(times)[rounds // 5] / 2  # there and back are two wakings
