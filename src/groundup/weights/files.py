"""Writing into a model directory so that a crash never leaves a broken one.

New files are written to a staging folder, flushed to disk, and moved into place only when all are
there. A marker file makes the moves repeatable: if the process dies between two of them, the next
reader finishes them. Every update has a staging folder of its own, so a reader that helps with one
cannot touch the next.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from groundup.errors import UserError, write_error

STAGING = ".saving-"
COMPLETE = ".complete"

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


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is missing, or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not a complete model: {path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}; expected a JSON object")
    return value


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
