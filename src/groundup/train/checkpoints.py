"""The checkpoints of a run: its best model, its last one with what it takes to go on, older ones.

    runs/demo                     the best model by validation (the last one, if nothing validates)
    runs/demo/checkpoints/last    the last model, and the training state
    runs/demo/checkpoints/step-N  older ones, with ``--keep``, and what it takes to go on from them

Each is a whole model directory, so everything that opens models opens them. The newest of the older
ones is the last one under another name: the same files, until the next save.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.errors import UserError, first_ten
from groundup.facts import NAME, Facts
from groundup.files import RUN_KEPT, atomic_update
from groundup.model.gpt import GPTModel
from groundup.snapshot import changed_files
from groundup.staging import finish_update
from groundup.tokenizers import Tokenizer
from groundup.train.best import Best
from groundup.train.parallel import Parallel
from groundup.train.state import (
    FOLDER,
    STATE,
    load_training_state,
    save_training_state,
    training_tensors,
)
from groundup.train.trainer import Record
from groundup.weights.checkpoint import ADAPTER, save_model
from groundup.weights.finding import CHECKPOINTS, HISTORY
from groundup.weights.huggingface import WEIGHTS

LAST, STEP = "last", "step-{}"


class Checkpoints:
    """Writes a run's checkpoints.

    Args:
        out: the run's directory.
        model: what is saved.
        tokenizer: saved with it.
        facts: what ``groundup.json`` says.
        optimizer: its state is saved with the last one.
        parallel: how several processes share the work; the main one writes.
        device: where the run computes.
        keep: how many older checkpoints to keep.
        latest: the newest value of everything that was recorded.
    """

    def __init__(
        self,
        out: Path,
        model: GPTModel,
        tokenizer: Tokenizer,
        facts: Facts,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        *,
        parallel: Parallel | None = None,
        keep: int = 0,
        latest: Callable[[], Record] = dict,
    ) -> None:
        self.out, self.model, self.tokenizer, self.facts = out, model, tokenizer, facts
        self.optimizer, self.device = optimizer, device
        self.parallel = parallel or Parallel(model)
        self.keep, self.latest = keep, latest

    def save(self, state: dict[str, Any], record: Record, *, best: bool, due: bool) -> None:
        """Write what is due: the last checkpoint with the loop's state, or only the best model.

        As long as no evaluation has told which model is the best, the last one is. All processes
        call it together, for each may have a part of the model.
        """
        # The first version's state lies beside the weights that it belongs to, so these must not
        # change without it: everything moves to today's places.
        due = due or self.parallel.world.agreed((self.out / FOLDER).exists())
        tensors = training_tensors(self.optimizer, self.device, self.parallel) if due else {}
        with self.parallel.whole_model() as model:
            if self.parallel.world.is_main:
                self._write(model, tensors, state, record, best=best, due=due)

    def _write(
        self,
        model: GPTModel,
        tensors: dict[str, Tensor],
        state: dict[str, Any],
        record: Record,
        *,
        best: bool,
        due: bool,
    ) -> None:
        best = best or (due and state["best"]["score"] is None)
        facts = replace(self.facts, progress=self.latest() | record)
        title = self.out.resolve().name
        if not due:
            save_model(self.out, model, self.tokenizer, facts, title=title, advice=RUN_KEPT)
            return
        training = partial(save_training_state, tensors=tensors, state=state)
        last = self.out / CHECKPOINTS / LAST
        what = model, self.tokenizer, facts, training
        save_model(last, *what, title=title, advice=RUN_KEPT)
        if best or not (self.out / WEIGHTS).exists():
            publish(last, self.out)
        if self.keep:
            kept = self.out / CHECKPOINTS / STEP.format(state["progress"]["step"])
            publish(last, kept, folders=(ADAPTER, FOLDER))
            self._drop_old()
        shutil.rmtree(self.out / FOLDER, ignore_errors=True)  # the first version's place for it

    def _drop_old(self) -> None:
        for path in kept_steps(self.out)[: -self.keep]:
            delete_kept(path)


def load_last(
    out: Path,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    parallel: Parallel | None = None,
    *,
    checkpoint: Path | None = None,
    verify: bool = True,
) -> dict[str, Any]:
    """Put the training state of a run's last checkpoint back; return the loop's own state.

    Or that of the ``checkpoint`` that is gone on from instead (see :func:`sound_checkpoint`).
    """
    path = checkpoint or last_checkpoint(out)
    return load_training_state(path, optimizer, device, parallel, verify=verify)


def sound_checkpoint(out: Path, *, verify: bool = True) -> tuple[Path, str]:
    """The newest checkpoint that a run can go on from, and a warning if that is not the last one.

    Args:
        out: the run's directory.
        verify: whether its files must be as they were saved; else the last one is taken as it is.

    Raises:
        UserError: none is as it was saved.
    """
    last = last_checkpoint(out)
    if not verify:
        return last, ""
    damage: dict[Path, str] = {}
    for path in (last, *reversed(kept_steps(out))):
        finish_update(path)
        wrong = changed_files(path)
        for name in (NAME, f"{FOLDER}/{STATE}"):
            if not (path / name).exists():
                wrong.setdefault(name, "it is missing")
        if not wrong:
            if path == last:
                return path, ""
            return path, (
                f"warning: {last} is not as it was saved ({damage[last]}); the run goes on from "
                f"{path} instead, and what was recorded after that step is dropped"
            )
        damage[path] = first_ten([f"{name}: {what}" for name, what in wrong.items()], "; ")
    others = [f"nor is {path} ({what})" for path, what in damage.items() if path != last]
    advice = (
        "copy these files again"
        if others
        else "no older checkpoint was kept (--keep 2 would have kept the one before it); copy the "
        "files again"
    )
    raise UserError(
        f"{last} is not as it was saved ({damage[last]}), so the run cannot go on from it"
        f"{''.join(', ' + other for other in others)}; {advice}, or take it as it is with "
        "--no-verify (verify=False)"
    )


def finish_publishing(out: Path, checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Call the checkpoint that is gone on from the best, where the run died before it could.

    If that is an older one, the newer ones are deleted; and it stands for the best model where that
    is damaged as well, until there is a better one.

    Args:
        out: the run's directory, which nobody else may be writing to.
        checkpoint: the one that is gone on from.
        state: its state.
    """
    step, best = state["progress"]["step"], Best(**state["best"])
    fell_back = checkpoint not in (out, out / CHECKPOINTS / LAST)
    if fell_back:
        for path in kept_steps(out):
            if step_of(path) > step:
                delete_kept(path)
    if fell_back and changed_files(out, without=FOLDER):
        publish(checkpoint, out)
        return
    facts = Facts.read(out)
    behind = facts is None or facts.progress.get("step") != step
    if checkpoint != out and best.step == step and behind:
        publish(checkpoint, out)


def last_checkpoint(out: Path) -> Path:
    """Where the last checkpoint of a run lies, or would lie.

    Runs of the first version had but one, in the run's directory itself.
    """
    last = out / CHECKPOINTS / LAST
    for folder in (last, out):
        if folder.is_dir():
            finish_update(folder)
    return out if (out / FOLDER / STATE).exists() and not last.exists() else last


def can_resume(out: Path) -> bool:
    """Whether there is a state to go on from: that of the last checkpoint, or of an older one."""
    return any((p / FOLDER / STATE).exists() for p in (last_checkpoint(out), *kept_steps(out)))


def kept_steps(out: Path) -> list[Path]:
    """The older checkpoints of a run, the oldest first; a copy under another name is none."""
    return steps_in(out / CHECKPOINTS)


def steps_in(folder: Path) -> list[Path]:
    """The models of steps in a folder, the first step first, whole or half written."""
    found = {
        path.name.removeprefix(STEP.format("")): path for path in folder.glob(STEP.format("*"))
    }
    return [found[step] for step in sorted(filter(str.isdecimal, found), key=int)]


def step_of(path: Path) -> int:
    """Of which step a model of :func:`steps_in` is."""
    return int(path.name.removeprefix(STEP.format("")))


def delete_kept(path: Path) -> None:
    """Delete an older checkpoint; if the process dies meanwhile, what is left of it is none."""
    (path / NAME).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def publish(checkpoint: Path, target: Path, folders: Collection[str] = (ADAPTER,)) -> None:
    """Let a checkpoint's model appear in another place too, whole or not at all.

    The files are linked, not copied, where the file system can: nothing ever writes into one. Of
    its folders, those that are named go along.
    """
    with atomic_update(target, advice=RUN_KEPT) as staging:
        for path in sorted(checkpoint.iterdir()):
            if path.name in folders:
                shutil.copytree(path, staging / path.name, copy_function=_link_or_copy)
            elif path.is_file():
                _link_or_copy(path, staging / path.name)


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def check_space(
    out: Path, parameters: int, trained: int | None = None, *, keep: int = 0, history: int = 0
) -> None:
    """Refuse to begin a run whose checkpoints will not fit on the disk.

    A checkpoint holds the weights and, of those that are trained (all of them unless told
    otherwise), AdamW's two moments, in fp32; the best model holds the weights. While a new one is
    written the old ones are still there, of which the last is the newest of those that are kept.
    Each snapshot of the history holds the weights in fp16.

    Raises:
        UserError: there is less room than that.
    """
    folder = next(p for p in (out, *out.absolute().parents) if p.exists())
    weights, moments = 4 * parameters, 8 * (parameters if trained is None else trained)
    there = max(1, len(kept_steps(out))) if can_resume(out) else 0
    missing = max(1, max(1, keep) + 1 - there)
    needed = missing * (weights + moments) + (0 if there else weights)
    needed += 2 * parameters * max(0, history - len(steps_in(out / HISTORY)))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"no space for checkpoints in {out}: they need {needed / 2**20:,.0f} MiB, "
            f"{free / 2**20:,.0f} MiB are free; free some space or choose another --out"
        )
