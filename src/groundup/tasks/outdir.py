"""The output directory of a run: nothing of anybody's is ever replaced unasked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from groundup.errors import UserError
from groundup.train.state import FACTS, FOLDER
from groundup.train.tracking import METRICS
from groundup.weights.checkpoint import NOTES
from groundup.weights.files import finish_update


def prepare_output(out: Path, *, overwrite: bool, resume: bool) -> Callable[[], None]:
    """Check that a run may write to ``out``; return what makes it ready, to be called last.

    Nothing is touched until then, so a mistake in any other option loses nothing.

    Raises:
        UserError: ``out`` is not empty and neither flag was given, is no run of ours, or holds
            nothing to resume.
    """
    if overwrite and resume:
        raise UserError("--overwrite and --resume contradict each other; give one of them")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out takes a directory")
    if out.is_dir():
        finish_update(out)
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if resume and not (out / FOLDER / FACTS).exists():
        raise UserError(f"{out} holds no run to resume; leave out --resume to start one")
    if names and not overwrite and not resume:
        raise UserError(
            f"{out} exists; use --resume to go on with it, --overwrite to replace it, "
            "or another --out"
        )
    if names and overwrite and not names & {NOTES, METRICS}:
        raise UserError(
            f"{out} was not made by groundup, so --overwrite will not delete it; "
            "choose another --out"
        )

    def make_ready() -> None:
        if overwrite and out.exists():
            shutil.rmtree(out)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the directory {out}: {error.strerror}") from error

    return make_ready
