"""Writing that survives crashes: whole folders, files, lines of JSON; and the one lock.

The new files of a folder are written to a staging folder, flushed to disk, and moved into place
only when all are there (``staging.py``).
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.errors import UserError, read_error, write_error
from groundup.parsing import from_json
from groundup.parsing import read_json as read_json  # here, too, beside write_json
from groundup.staging import complete, finish_update, flush, new_staging, replace

Row = Mapping[str, Any]

LOCK = ".lock"
"""The file in a run's directory that keeps other runs out of it."""

IN_USE = "{} is in use by another run that is going on; choose another --out"

PROBED = 0.1
"""Seconds for which a lock may be held by somebody who only looks whether it is free."""

KEPT = "nothing that was saved before is lost: free some space, or choose another --out"
"""What to do about a full disk."""

RUN_KEPT = (
    "nothing that was saved before is lost: free some space (a run that has saved a checkpoint "
    "goes on with --resume), or choose another --out"
)
"""The same for a run."""


@contextmanager
def atomic_update(directory: Path, *, advice: str = KEPT) -> Iterator[Path]:
    """Yield a staging folder whose files appear in ``directory`` all together, or not at all.

    Args:
        directory: made if it is missing.
        advice: what to do about a full disk.

    Raises:
        UserError: the disk is full or cannot be written to; ``directory`` is as it was.
    """
    with new_staging(directory, directory, advice) as staging:
        finish_update(directory)
        yield staging
        complete(staging, directory)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file that takes the place of ``path`` when it is complete.

    Raises:
        UserError: the disk is full or cannot be written to; ``path`` is as it was.
    """
    with new_staging(path.parent, path, KEPT) as staging:
        temporary = staging / path.name
        yield temporary
        flush(temporary)
        replace(temporary, path)
        flush(path.parent)


@contextmanager
def locked(
    lock_file: Path, busy: str, *, wait: Callable[[str], None] | None = None, advice: str = KEPT
) -> Iterator[None]:
    """Keep other processes from doing the same thing meanwhile.

    Args:
        lock_file: stands for the thing; its folder is made if it is missing. It stays there.
        busy: the sentence for when another process holds it.
        wait: wait for that process instead, and tell this so.
        advice: what to do about a full disk.

    Raises:
        UserError: another process holds it, or the file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file)
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=PROBED, poll_interval=PROBED / 5)
        except Timeout:
            if not lock_file.exists():  # in /proc, say, where the library tries for ever
                raise OSError(errno.EPERM, "no file can be made there") from None
            if wait is None:
                raise UserError(busy) from None
            wait(busy)
            lock.acquire()
    except OSError as error:
        raise write_error(lock_file.parent, error, advice) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(lock_file: Path) -> bool:
    """Whether another process holds a lock of :func:`locked`."""
    from filelock import FileLock, Timeout

    if not lock_file.exists():
        return False
    try:
        FileLock(lock_file).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    except OSError:  # a directory that is only to be read: no run of ours writes there
        return False
    return False


class JsonLines:
    """An append-only file of JSON objects, one a line: metrics, responses, a judge's answers.

    An incomplete last line, which a crash leaves, never counts.

    Args:
        path: the file; made with the first row.
        row: what a row is, for messages.
        durable: whether each row is on the disk, and not only in the system's memory, before
            :meth:`append` returns.
        advice: what to do about a full disk.
    """

    def __init__(
        self, path: Path, *, row: str = "record", durable: bool = False, advice: str = KEPT
    ) -> None:
        self.path, self.row, self.durable, self.advice = path, row, durable, advice
        self._lock = threading.Lock()

    def read(self) -> list[dict[str, Any]]:
        """All rows; none if there is no file.

        Raises:
            UserError: a line is damaged.
        """
        data = self._bytes()
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
            try:
                row = from_json(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{self.path} is damaged: line {number} is no {self.row}")
            rows.append(row)
        return rows

    def mend(self) -> None:
        """Cut an incomplete last line off, so that what is appended begins a line of its own."""
        data = self._bytes()
        if not data.endswith(b"\n") and data:
            os.truncate(self.path, data.rfind(b"\n") + 1)

    def append(self, row: Row) -> None:
        """Add a row; several threads may do so at once.

        Raises:
            UserError: the disk is full or cannot be written to.
        """
        try:
            with self._lock, self.path.open("ab") as file:
                file.write(_line(row))
                file.flush()
                if self.durable:
                    os.fsync(file.fileno())
        except OSError as error:
            raise write_error(self.path, error, self.advice) from error

    def rewrite(self, rows: Iterable[Row]) -> None:
        """Replace all rows, at once.

        Raises:
            UserError: the disk is full or cannot be written to; the file is as it was.
        """
        with atomic_file(self.path) as temporary:
            temporary.write_bytes(b"".join(map(_line, rows)))

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise read_error(self.path, error) from error


def _line(row: Row) -> bytes:
    return _encoded(json.dumps(dict(row), ensure_ascii=False))


def _encoded(text: str) -> bytes:
    """JSON as UTF-8; a file's name that is no text comes back from it as it was."""
    return text.encode("utf-8", "backslashreplace") + b"\n"


def write_json(path: Path, value: object) -> None:
    """Write readable JSON with a newline at the end."""
    path.write_bytes(_encoded(json.dumps(value, indent=2, ensure_ascii=False)))
