"""What a user did wrong, said in one sentence: what was given, what is expected, what to do."""

from __future__ import annotations

import difflib
import errno
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeGuard


class UserError(ValueError):
    """A mistake that the user can mend; the command line prints it and exits with status 2."""


class TrainingFailed(RuntimeError):
    """A run that cannot go on (a non-finite loss, say); the command line exits with status 1."""


class EndedElsewhere(TrainingFailed):
    """One of several processes ends because another one has, which has told the reason."""


class Note(UserWarning):
    """What a user should know though it is no mistake; the command line prints it once."""


def note(text: str) -> None:
    """Tell the user something: a warning in Python, a line on the command line's stderr."""
    warnings.warn(text, Note, stacklevel=3)


def is_disk_full(error: BaseException) -> TypeGuard[OSError]:
    """Whether this says that there is no space left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this says that there is no memory left: Python's, a CPU's, a GPU's way of saying it.

    A ``UserError`` never does, whatever its sentence.
    """
    if isinstance(error, UserError):
        return False
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text


def os_error_in(error: BaseException | None) -> OSError | None:
    """What the system said, where a library put its own error around it; None if it said nothing.

    safetensors only quotes the number of the system's error; PyTorch raises a ``RuntimeError``
    while it handles the file's ``OSError``.
    """
    while error is not None and not isinstance(error, UserError):
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):
            number = int(found[1])
        if isinstance(error, OSError) and (number is None or error.errno is not None):
            return error
        if number is not None:
            return system_error(number)
        if not isinstance(error, RuntimeError):
            return None
        error = error.__cause__ or error.__context__
    return None


def system_error(number: int) -> OSError:
    """What the system means by a number of its own, which Rust's libraries quote."""
    if sys.platform == "win32":
        import ctypes

        return ctypes.WinError(number)
    return OSError(number, os.strerror(number))


def write_error(path: Path, error: OSError, advice: str) -> UserError:
    """What to tell the user about an ``OSError`` while writing; ``advice`` is for a full disk."""
    if error.errno in (errno.EEXIST, errno.ENOENT) and (link := dangling_link(path)) is not None:
        return UserError(
            f"cannot write to {path}: {link} is a link to {os.readlink(link)}, where nothing is; "
            "remove the link, or choose another place"
        )
    if not is_disk_full(error):
        return UserError(f"cannot write to {path}: {error.strerror or error}")
    detail = error.strerror
    if detail == os.strerror(error.errno or 0):  # it says only what we say anyway
        folder = next(p for p in (path, *path.absolute().parents) if p.is_dir())
        detail = f"{shutil.disk_usage(folder).free / 2**20:,.0f} MiB are free"
    return UserError(f"no space left while saving to {path} ({detail}); {advice}")


def dangling_link(path: Path) -> Path | None:
    """The link on the way to ``path``, or ``path`` itself, that leads nowhere."""
    ways = (path, *path.parents)
    return next((p for p in ways if os.path.islink(p) and not os.path.exists(p)), None)


def read_error(path: Path, error: Exception) -> UserError:
    """What to tell the user about a file that cannot be read: the system's reason, or damage."""
    reason = os_error_in(error)
    if reason is not None:
        return UserError(f"cannot read {path}: {reason.strerror or reason}")
    return UserError(f"{path} is damaged: {error}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'emb_dim'?"`` for the nearest known word, or an empty string."""
    # Comparing takes time and memory with the length, and nothing that is known is so long.
    nearest = difflib.get_close_matches(word[:200], list(known), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def first_ten(items: Sequence[str], between: str = ", ") -> str:
    """Join ten items at most, so that a message stays readable; of the rest, say how many."""
    more = f"{between.strip(', ')} and {len(items) - 10} more" if len(items) > 10 else ""
    return between.join(items[:10]) + more
