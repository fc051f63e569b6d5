"""The output directory of a run: nothing of anybody's is ever replaced unasked."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from groundup.errors import UserError, dangling_link, write_error
from groundup.facts import NAME
from groundup.files import IN_USE, LOCK, RUN_KEPT, locked
from groundup.plots import PLOTS
from groundup.staging import STAGING, finish_update, sweep
from groundup.tasks.page import PAGE
from groundup.train.checkpoints import LAST, can_resume, delete_kept, kept_steps, last_checkpoint
from groundup.train.history import sweep_history
from groundup.train.state import FOLDER
from groundup.train.trackers import TENSORBOARD, WANDB
from groundup.train.tracking import METRICS, SAMPLES, read_metrics
from groundup.weights.checkpoint import ADAPTER, MODEL_FILES
from groundup.weights.finding import CHECKPOINTS, HISTORY

REPORT = "report"
"""The folder of a run for what was found on its test split."""

PARTS = f".{METRICS}.*.part"
"""What an earlier groundup wrote its measurements to, before they were in their place."""


def prepare_output(
    out: Path, *, overwrite: bool, resume: bool
) -> Callable[..., AbstractContextManager[None]]:
    """Check that a run may write to ``out``; return what makes it ready, to be called last.

    Nothing is touched until then, so a mistake in any other option loses nothing. It is a context
    that keeps other runs out of ``out``; it may be given a last check of the caller's.

    Raises:
        UserError: ``out`` is not empty and neither flag was given, is no run of ours, holds
            nothing to resume, has a name that is no text, or is where nothing can be made.
    """
    if overwrite and resume:
        raise UserError("--overwrite and --resume contradict each other; give one of them")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out takes a directory")
    try:
        str(out).encode()
    except UnicodeEncodeError:  # its model could be saved, but never opened by safetensors
        raise UserError(f"the name {out} is not UTF-8; choose another --out") from None
    if dangling_link(out) is not None:
        raise write_error(out, OSError(errno.ENOENT, ""), RUN_KEPT)
    if out.is_dir():
        finish_update(out)
    _check_free(out, overwrite=overwrite, resume=resume)
    _check_writable(out)
    before = _last_save(out)

    @contextmanager
    def make_ready(last_check: Callable[[], None] = lambda: None) -> Iterator[None]:
        last_check()
        with locked(out / LOCK, IN_USE.format(out), advice=RUN_KEPT):
            saved_meanwhile = not overwrite and _last_save(out) != before
            if saved_meanwhile or (not resume and not overwrite and (out / NAME).exists()):
                raise UserError(f"{out} has been written by another run meanwhile; see there")
            _sweep_run(out)
            if not resume:
                _remove_ours(out)
            yield

    return make_ready


def _check_free(out: Path, *, overwrite: bool, resume: bool) -> None:
    resumable = can_resume(out)
    if resume and not resumable:
        if (out / NAME).exists():
            raise UserError(
                f"{out} holds a model, but nothing to go on from: the run had not got so far; use "
                "--overwrite to start it anew, or another --out"
            )
        raise UserError(f"{out} holds no run to resume; leave out --resume to start one")
    if resume or not out.is_dir() or _has_saved_nothing(out):
        return
    if not _is_ours(out):
        so = ", so --overwrite will not touch it" if overwrite else " and is not empty"
        raise UserError(f"{out} was not made by groundup{so}; choose another --out")
    if not overwrite:
        go_on = "--resume to go on with it, " if resumable else ""
        raise UserError(f"{out} exists; use {go_on}--overwrite to replace it, or another --out")


def _check_writable(out: Path) -> None:
    """Learn before a long text is tokenized that nothing can be made there."""
    folder = next(p for p in (out, *out.absolute().parents) if p.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=STAGING, dir=folder):
            pass
    except OSError as error:
        raise write_error(out, error, RUN_KEPT) from None


def _has_saved_nothing(out: Path) -> bool:
    """Whether nothing is there but what a run leaves that ends before it has saved anything."""
    metrics = out / METRICS
    if metrics.exists() and not _is_ours(out) and not _is_begun(metrics):
        return False

    def is_nothing(path: Path) -> bool:
        inside = path.relative_to(out)
        if any(part.startswith(STAGING) for part in inside.parts):
            return True  # of a save that never came about
        if path.is_dir() and inside.parts[0] in (CHECKPOINTS, HISTORY):
            return True
        begun = inside.parts[0] in (LOCK, METRICS, PLOTS, TENSORBOARD, WANDB)
        begun |= inside.parts[0] in (SAMPLES, HISTORY) and metrics.exists()
        return begun or (path.parent == out and path.match(PARTS))

    return all(map(is_nothing, out.rglob("*")))


def _is_begun(metrics: Path) -> bool:
    """Whether no measurement is complete in there."""
    with metrics.open("rb") as file:
        line, begin = file.readline(), b'{"step": '
    return not line.endswith(b"\n") and line[: len(begin)] == begin[: len(line)]


def _last_save(out: Path) -> tuple[int, ...] | None:
    """What tells the last save of a run from others; None if there is none."""
    with suppress(OSError):
        found = (last_checkpoint(out) / NAME).stat()
        return found.st_dev, found.st_ino, found.st_mtime_ns
    return None


def _is_ours(out: Path) -> bool:
    """Whether a run of groundup wrote here (if only its first measurements)."""
    if (out / NAME).exists() or can_resume(out):
        return True
    try:
        return any("tokens_seen" in record for record in read_metrics(out))
    except UserError:
        return False


def _sweep_run(out: Path) -> None:
    """Delete what processes that died have left half written."""
    for path in out.glob(PARTS):
        path.unlink(missing_ok=True)
    for folder in (out, out / CHECKPOINTS / LAST, *kept_steps(out)):
        sweep(folder)
    for folder in kept_steps(out):
        finish_update(folder)
        if not (folder / NAME).exists():
            delete_kept(folder)  # half written, or half deleted
    sweep_history(out)


def _remove_ours(out: Path) -> None:
    """Delete what a run writes, and nothing else that may lie there."""
    for folder in (FOLDER, PLOTS, REPORT, ADAPTER, CHECKPOINTS, HISTORY, TENSORBOARD, WANDB):
        shutil.rmtree(out / folder, ignore_errors=True)
    # By the last two the rest is known as ours, if this is killed on the way.
    for name in (*sorted((MODEL_FILES | {SAMPLES, PAGE}) - {NAME}), NAME, METRICS):
        (out / name).unlink(missing_ok=True)
