"""Staging folders: how the new files of a folder get into it, all of them or none.

A marker file makes the moves repeatable: if the process dies between two of them, the next reader
finishes them. Every update has a staging folder of its own, so a reader that helps with one cannot
touch the next. While its writer lives it holds a lock in there; one that nobody holds is litter,
and the next writer sweeps it away.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from groundup.errors import os_error_in, write_error

STAGING = ".saving-"
COMPLETE, ALIVE = ".complete", ".alive"

PATIENCE = 5.0
"""Seconds that files wait for those who read the old ones; then they are moved all the same."""

HELD, HELD_PATIENCE = (5, 32, 1224), 60.0
"""Windows' numbers for a file that somebody holds open or maps, and the seconds that it may."""


@contextmanager
def new_staging(directory: Path, shown: Path, advice: str) -> Iterator[Path]:
    """A new folder in ``directory`` that nobody sweeps away while it is in use.

    Args:
        directory: made if it is missing.
        shown: what is being written, for messages.
        advice: what to do about a full disk.

    Raises:
        UserError: the system refused to write, whatever a library has made of that.
    """
    staging = lock = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        sweep(directory)
        staging, lock = _claimed(directory)
        yield staging
    except Exception as error:
        reason = os_error_in(error)
        if reason is None:
            raise
        raise write_error(shown, reason, advice) from error
    finally:
        if lock is not None:
            lock.release()
        if staging is not None and not (staging / COMPLETE).exists():
            shutil.rmtree(staging, ignore_errors=True)


def complete(staging: Path, directory: Path) -> None:
    """Let what is in ``staging`` appear in ``directory``: from here on the update is a fact."""
    for path in staging.rglob("*"):
        if path.name != ALIVE:
            flush(path)
            _check_movable(path, directory / path.relative_to(staging))
    flush(staging)
    (staging / COMPLETE).touch()
    finish_update(directory)


def finish_update(directory: Path) -> None:
    """Finish updates that were complete but not yet (all) moved into place.

    Several processes may do so at once: each file is moved by one of them.
    """
    for staging in pending_updates(directory):
        with in_turn(directory, exclusive=True):
            _move(staging, directory)


def pending_updates(directory: Path) -> list[Path]:
    """The staging folders of updates that are complete but not yet moved into place."""
    return [path for path in directory.glob(f"{STAGING}*") if (path / COMPLETE).exists()]


def sweep(directory: Path) -> None:
    """Delete the staging folders of processes that died while they wrote to ``directory``."""
    for staging in directory.glob(f"{STAGING}*"):
        from filelock import FileLock, Timeout

        lock = FileLock(staging / ALIVE)
        with suppress(Timeout, OSError):  # its writer lives, or it is not ours to delete
            lock.acquire(timeout=0)
            try:
                if not (staging / COMPLETE).exists():
                    shutil.rmtree(staging, ignore_errors=True)
            finally:
                lock.release()
            staging.rmdir()  # Windows keeps a file as long as it is open, as the lock was


@contextmanager
def in_turn(directory: Path, *, exclusive: bool) -> Iterator[None]:
    """Keep those who read a directory and those who move files into it from each other's way.

    It is a courtesy: no reader begins anew because of every save, and no save waits for longer
    than ``PATIENCE``. Whether a reader has seen one state is found out by looking
    (``snapshot.py``), so nothing depends on the file system's locks, or on there being any.
    """
    handle = None
    with suppress(OSError, ImportError):  # Windows has no such locks; there replace() waits
        import fcntl

        handle = os.open(directory, os.O_RDONLY)
        how = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        patient_until = time.monotonic() + PATIENCE
        while time.monotonic() < patient_until:
            try:
                fcntl.flock(handle, how | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.002)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def replace(path: Path, target: Path) -> None:
    """Put a file or folder in the place of another one.

    Windows refuses that while anybody has the old one open: somebody who reads the model, a virus
    scanner. They let go of it soon, so it is tried again.
    """
    patient_until = time.monotonic() + HELD_PATIENCE
    while True:
        try:
            return os.replace(path, target)
        except OSError as error:
            if getattr(error, "winerror", None) not in HELD:
                raise
            if time.monotonic() > patient_until:
                reason = f"{error.strerror} (does another program have {target.name} open?)"
                raise OSError(error.errno, reason, str(target)) from error
        time.sleep(0.01)


def flush(path: Path) -> None:
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


def _claimed(directory: Path) -> tuple[Path, Any]:
    """A new staging folder and its lock, which is held."""
    from filelock import FileLock, Timeout

    while True:
        staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=directory))
        lock = FileLock(staging / ALIVE)
        # Before it is held, somebody else may take the folder for litter; then there is another.
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        except FileNotFoundError:
            if not staging.exists():
                continue
        except OSError:
            pass  # a file system without locks: nobody can hold it, so nobody sweeps it away
        return staging, lock


def _check_movable(staged: Path, target: Path) -> None:
    """Refuse, while nothing has been moved, what cannot be: a file in a folder's place."""
    if target.exists() and target.is_dir() != staged.is_dir():
        code = errno.EISDIR if target.is_dir() else errno.ENOTDIR
        raise OSError(code, f"{os.strerror(code)}: {target.name}", str(target))


def _move(staging: Path, directory: Path) -> None:
    folders, paths = [directory], []
    with suppress(FileNotFoundError):  # another process has finished it
        paths = sorted(staging.rglob("*"))
    for path in paths:
        target = directory / path.relative_to(staging)
        if path.is_dir():
            target.mkdir(exist_ok=True)
            folders.append(target)
        elif path.name not in (COMPLETE, ALIVE):
            with suppress(FileNotFoundError):  # another process has moved it
                replace(path, target)
    for folder in folders:
        flush(folder)
    shutil.rmtree(staging, ignore_errors=True)
