"""The output directory of a run: nothing of anybody's is ever replaced unasked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from groundup.errors import UserError
from groundup.facts import NAME
from groundup.files import IN_USE, LOCK, finish_update, locked
from groundup.plots import PLOTS
from groundup.tasks.page import PAGE
from groundup.train.checkpoints import can_resume
from groundup.train.state import FOLDER
from groundup.train.tracking import METRICS, SAMPLES, read_metrics
from groundup.weights.checkpoint import ADAPTER, MODEL_FILES
from groundup.weights.load import CHECKPOINTS

REPORT = "report"
"""The folder of a run for what was found on its test split."""


def prepare_output(
    out: Path, *, overwrite: bool, resume: bool
) -> Callable[..., AbstractContextManager[None]]:
    """Check that a run may write to ``out``; return what makes it ready, to be called last.

    Nothing is touched until then, so a mistake in any other option loses nothing. It is a context
    that keeps other runs out of ``out``; it may be given a last check of the caller's.

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
    names -= {LOCK}
    if names <= {METRICS, SAMPLES, PLOTS} and not resume and (not names or _is_ours(out)):
        names = set()  # a run that ended before it had saved anything
    if resume and not can_resume(out):
        raise UserError(f"{out} holds no run to resume; leave out --resume to start one")
    if names and not overwrite and not resume:
        raise UserError(
            f"{out} exists; use --resume to go on with it, --overwrite to replace it, "
            "or another --out"
        )
    if names and overwrite and not _is_ours(out):
        raise UserError(
            f"{out} was not made by groundup, so --overwrite will not touch it; "
            "choose another --out"
        )

    @contextmanager
    def make_ready(last_check: Callable[[], None] = lambda: None) -> Iterator[None]:
        last_check()
        with locked(out / LOCK, IN_USE.format(out)):
            if not resume and not overwrite and (out / NAME).exists():
                raise UserError(f"{out} has been written by another run meanwhile; see there")
            if not resume:
                _remove_ours(out)
            yield

    return make_ready


def _is_ours(out: Path) -> bool:
    """Whether a run of groundup wrote here (if only its first measurements)."""
    if (out / NAME).exists() or can_resume(out):
        return True
    try:
        return any("tokens_seen" in record for record in read_metrics(out))
    except UserError:
        return False


def _remove_ours(out: Path) -> None:
    """Delete what a run writes, and nothing else that may lie there."""
    for name in MODEL_FILES | {METRICS, SAMPLES, PAGE}:
        (out / name).unlink(missing_ok=True)
    for folder in (FOLDER, PLOTS, REPORT, ADAPTER, CHECKPOINTS):
        shutil.rmtree(out / folder, ignore_errors=True)
