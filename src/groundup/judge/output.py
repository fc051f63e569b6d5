"""The output directory of a judged run: nothing of anybody's is ever replaced unasked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from groundup import files
from groundup.errors import UserError
from groundup.files import IN_USE, LOCK
from groundup.judge.answers import ADVICE, ANSWERS
from groundup.judge.results import RESULTS
from groundup.judge.written import FILES

CALIBRATING = "calibration"
"""Where, within it, the questions of a calibration are kept as those of a run are."""

RUN = "run.json"
"""What was asked of whom: a run is only gone on with if this is the same."""


def check_output(folder: Path, overwrite: bool) -> None:
    """Check that a run may write to ``folder``.

    Raises:
        UserError: it holds anything, and no run of ours.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; --out takes a directory")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names - {LOCK} and RUN not in names and not (folder / CALIBRATING / RUN).exists():
        advice = "so --overwrite will not touch it; " if overwrite else ""
        raise UserError(
            f"{folder} exists and was not made by `groundup judge`; {advice}choose another --out"
        )


def remove_ours(folder: Path) -> None:
    """Delete what a judged run writes, and nothing else that may lie there.

    A calibration stays: it is of the judge.
    """
    for name in (ANSWERS, RESULTS, *FILES, RUN):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a directory and keep other runs out of it; if nothing is written, remove it again.

    Raises:
        UserError: another run is going on there, or it cannot be made.
    """
    is_new = not folder.exists()
    try:
        with files.locked(folder / LOCK, IN_USE.format(folder), advice=ADVICE):
            yield
    finally:
        if is_new and folder.is_dir() and {path.name for path in folder.iterdir()} <= {LOCK}:
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()
