"""The output directory of a run: nothing of anybody's is ever replaced unasked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from groundup.errors import UserError
from groundup.files import finish_update
from groundup.plots import PLOTS
from groundup.train.state import FACTS, FOLDER
from groundup.train.tracking import METRICS, read_metrics
from groundup.weights.checkpoint import ADAPTER, MODEL_FILES, NOTES

LOCK = ".lock"

REPORT = "report"
"""The folder of a run for what was found on its test split."""


def prepare_output(out: Path, *, overwrite: bool, resume: bool) -> Callable[[], FileLock]:
    """Check that a run may write to ``out``; return what makes it ready, to be called last.

    Nothing is touched until then, so a mistake in any other option loses nothing. It returns the
    lock that keeps other runs out; release it at the end.

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
    if names <= {METRICS, PLOTS} and not resume and (not names or _is_ours(out)):
        names = set()  # a run that ended before it had saved anything
    if resume and not (out / FOLDER / FACTS).exists():
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

    def make_ready() -> FileLock:
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock = FileLock(out / LOCK, blocking=False)
            lock.acquire()
            if not resume and not overwrite and (out / NOTES).exists():
                lock.release()
                raise UserError(f"{out} has been written by another run meanwhile; see there")
            if not resume:
                _remove_ours(out)
        except Timeout:
            raise UserError(
                f"{out} is in use by another run that is going on; choose another --out"
            ) from None
        except OSError as error:
            raise UserError(f"cannot prepare the directory {out}: {error.strerror}") from error
        return lock

    return make_ready


def check_space(out: Path, parameters: int, trained: int | None = None) -> None:
    """Refuse to begin a run whose checkpoints will not fit on the disk.

    A checkpoint holds the weights and, of those that are trained (all of them unless told
    otherwise), AdamW's two moments, in fp32; while a new one is written the old one is still there.

    Raises:
        UserError: there is less room than for two checkpoints (one, if one is there already).
    """
    folder = next(p for p in (out, *out.absolute().parents) if p.exists())
    trained = parameters if trained is None else trained
    needed = 4 * (parameters + 2 * trained) * (1 if (out / NOTES).exists() else 2)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"no space for checkpoints in {out}: they need {needed / 2**20:,.0f} MiB, "
            f"{free / 2**20:,.0f} MiB are free; free some space or choose another --out"
        )


def _is_ours(out: Path) -> bool:
    """Whether a run of groundup wrote here (if only its first measurements)."""
    if (out / NOTES).exists():
        return True
    try:
        return any("tokens_seen" in record for record in read_metrics(out))
    except UserError:
        return False


def _remove_ours(out: Path) -> None:
    """Delete what a run writes, and nothing else that may lie there."""
    for name in MODEL_FILES | {METRICS}:
        (out / name).unlink(missing_ok=True)
    for folder in (FOLDER, PLOTS, REPORT, ADAPTER):
        shutil.rmtree(out / folder, ignore_errors=True)
