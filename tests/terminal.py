"""Commands run as processes of their own: in a terminal, or with streams of another encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

GROUNDUP = [sys.executable, "-m", "groundup"]


def environment(**changes: str) -> dict[str, str]:
    """This process's, without what says how wide a terminal is."""
    return {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")} | changes


def in_terminal(*command: object, columns: int = 80, **changes: str) -> tuple[int, str]:
    """Run a command in a terminal; return its exit status and all that it wrote there."""
    pty = pytest.importorskip("pty")
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    fcntl.ioctl(
        theirs,
        termios.TIOCSWINSZ,
        b"".join(n.to_bytes(2, sys.byteorder) for n in (24, columns, 0, 0)),
    )
    child = subprocess.Popen(
        [str(part) for part in command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm", **changes),
    )
    os.close(theirs)
    written = b""
    with suppress(OSError):  # Linux's way of saying that the other end is closed
        while part := os.read(ours, 65536):
            written += part
    os.close(ours)
    return child.wait(60), written.decode("utf-8", "backslashreplace").replace("\r\n", "\n")


def groundup(*args: object, **changes: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``groundup`` with pipes."""
    command = [*GROUNDUP, *(os.fspath(a) if isinstance(a, Path) else str(a) for a in args)]
    return subprocess.run(command, capture_output=True, env=environment(**changes), timeout=120)
