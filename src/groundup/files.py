"""Writing that survives crashes: whole folders, files, lines of JSON; and the one lock.

The new files of a folder are written to a staging folder, flushed to disk, and moved into place
only when all are there. A marker file makes the moves repeatable: if the process dies between two
of them, the next reader finishes them. Every update has a staging folder of its own, so a reader
that helps with one cannot touch the next.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from groundup.errors import UserError, write_error
from groundup.parsing import from_json
from groundup.parsing import read_json as read_json  # here, too, beside write_json

Row = Mapping[str, Any]

STAGING = ".saving-"
COMPLETE = ".complete"
LOCK = ".lock"
"""The file in a run's directory that keeps other runs out of it."""

IN_USE = "{} is in use by another run that is going on; choose another --out"

KEPT = (
    "nothing that was saved before is lost: free some space (a run goes on with --resume), or "
    "choose another --out"
)
"""What to do about a full disk."""


@contextmanager
def atomic_update(directory: Path) -> Iterator[Path]:
    """Yield a staging folder whose files appear in ``directory`` all together, or not at all.

    Raises:
        UserError: the disk is full or cannot be written to; ``directory`` is as it was.
    """
    staging = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        finish_update(directory)
        for litter in directory.glob(f"{STAGING}*"):  # of a process that died while it wrote
            shutil.rmtree(litter, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=directory))
        yield staging
        for path in staging.rglob("*"):
            _flush(path)
        _flush(staging)
        (staging / COMPLETE).touch()
        finish_update(directory)
    except OSError as error:
        raise write_error(directory, error, KEPT) from error
    finally:
        if staging is not None and not (staging / COMPLETE).exists():
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that takes its place when it is complete.

    Raises:
        UserError: the disk is full or cannot be written to; ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise write_error(path, error, KEPT) from error
    finally:
        temporary.unlink(missing_ok=True)


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
            lock.acquire(timeout=0)
        except Timeout:
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
        return self.path.read_bytes() if self.path.exists() else b""


def _line(row: Row) -> bytes:
    return json.dumps(dict(row), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def finish_update(directory: Path) -> None:
    """Finish updates that were complete but not yet (all) moved into place.

    Several processes may do so at once: each file is moved by one of them.
    """
    for staging in directory.glob(f"{STAGING}*"):
        if not (staging / COMPLETE).exists():
            continue
        folders, paths = [directory], []
        with suppress(FileNotFoundError):  # another process has finished it
            paths = sorted(staging.rglob("*"))
        for path in paths:
            target = directory / path.relative_to(staging)
            if path.is_dir():
                target.mkdir(exist_ok=True)
                folders.append(target)
            elif path.name != COMPLETE:
                with suppress(FileNotFoundError):  # another process has moved it
                    os.replace(path, target)
        for folder in folders:
            _flush(folder)
        shutil.rmtree(staging, ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """Write readable JSON with a newline at the end."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _flush(path: Path) -> None:
    """Make sure that a file, or a directory's list of names, is on disk and not only in memory."""
    if path.is_dir() and os.name != "posix":
        return  # Windows has no such call for directories
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync a directory
            raise
    finally:
        os.close(handle)
