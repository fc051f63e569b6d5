"""The checkpoints of a run: its best model, its last one with what it takes to go on, older ones.

    runs/demo                     the best model by validation (the last one, if nothing validates)
    runs/demo/checkpoints/last    the last model, and the training state
    runs/demo/checkpoints/step-N  older ones, with ``--keep``

Each is a whole model directory, so everything that opens models opens them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.errors import UserError
from groundup.facts import Facts
from groundup.files import RUN_KEPT, atomic_update
from groundup.model.gpt import GPTModel
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
from groundup.weights.finding import CHECKPOINTS
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
            publish(last, self.out / CHECKPOINTS / STEP.format(state["progress"]["step"]))
            self._drop_old()
        shutil.rmtree(self.out / FOLDER, ignore_errors=True)  # the first version's place for it

    def _drop_old(self) -> None:
        for path in kept_steps(self.out)[: -self.keep]:
            shutil.rmtree(path, ignore_errors=True)


def load_last(
    out: Path,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    parallel: Parallel | None = None,
    *,
    verify: bool = True,
) -> dict[str, Any]:
    """Put the training state of a run's last checkpoint back; return the loop's own state."""
    return load_training_state(last_checkpoint(out), optimizer, device, parallel, verify=verify)


def finish_publishing(out: Path, state: Mapping[str, Any]) -> None:
    """Call the last checkpoint the best, where the run died before it could.

    Args:
        out: the run's directory, which nobody else may be writing to.
        state: that of the last checkpoint.
    """
    last, facts = last_checkpoint(out), Facts.read(out)
    step, best = state["progress"]["step"], Best(**state["best"])
    behind = facts is None or facts.progress.get("step") != step
    if last != out and best.step == step and behind:
        publish(last, out)


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
    """Whether there is a state to go on from."""
    return (last_checkpoint(out) / FOLDER / STATE).exists()


def kept_steps(out: Path) -> list[Path]:
    """The older checkpoints of a run, the oldest first; a copy under another name is none."""
    found = {
        path.name.removeprefix(STEP.format("")): path
        for path in (out / CHECKPOINTS).glob(STEP.format("*"))
    }
    return [found[step] for step in sorted(filter(str.isdecimal, found), key=int)]


def publish(checkpoint: Path, target: Path) -> None:
    """Let a checkpoint's model appear in another place too, whole or not at all.

    The files are linked, not copied, where the file system can: nothing ever writes into one.
    """
    with atomic_update(target, advice=RUN_KEPT) as staging:
        for path in sorted(checkpoint.iterdir()):
            if path.name == ADAPTER:
                shutil.copytree(path, staging / ADAPTER, copy_function=_link_or_copy)
            elif path.is_file():
                _link_or_copy(path, staging / path.name)


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def check_space(out: Path, parameters: int, trained: int | None = None, *, keep: int = 0) -> None:
    """Refuse to begin a run whose checkpoints will not fit on the disk.

    The last checkpoint holds the weights and, of those that are trained (all of them unless told
    otherwise), AdamW's two moments, in fp32; the best and the older ones hold the weights. While a
    new one is written the old one is still there.

    Raises:
        UserError: there is less room than that.
    """
    folder = next(p for p in (out, *out.absolute().parents) if p.exists())
    weights, moments = 4 * parameters, 8 * (parameters if trained is None else trained)
    needed = weights + moments  # a new last one, beside the old one
    if not can_resume(out):
        needed += weights + moments + weights * (1 + keep)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"no space for checkpoints in {out}: they need {needed / 2**20:,.0f} MiB, "
            f"{free / 2**20:,.0f} MiB are free; free some space or choose another --out"
        )
