"""What the commands that train have in common: going on with a run, and how it ends."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from groundup.cli.app import expect_model, pick
from groundup.data.finding import STDIN
from groundup.data.sources import DATA
from groundup.errors import UserError
from groundup.facts import Facts
from groundup.output import say, shell
from groundup.tasks.config import TaskConfig
from groundup.tasks.resume import check_same_task

if TYPE_CHECKING:
    from groundup.train.interrupt import StopRequest

T = TypeVar("T")

PAGE = "report.html"
"""The page of a run (``groundup.tasks.page`` writes it, which loads PyTorch)."""


def saved_run(config: type[TaskConfig], out: Path) -> Facts:
    """What the last checkpoint of the run in ``out`` says, or the newest that can be read.

    Raises:
        UserError: there is no run, or it is another task's.
    """
    from groundup.train.checkpoints import kept_steps, last_checkpoint

    saved, damage = None, None
    for path in (last_checkpoint(out), *reversed(kept_steps(out)), out):
        try:
            saved = saved or Facts.read(path)
        except UserError as error:  # the run itself says so, and takes another one
            damage = damage or error
    if saved is None and damage is not None:
        raise damage
    if saved is None:
        raise UserError(f"{out} holds no run to resume; leave out --resume to start one")
    check_same_task(config, saved, out)
    return saved


def effective(config: type[T], values: dict[str, Any], saved: Facts | None) -> T:
    """The options of a run as far as they decide on its data."""
    before = saved.options if saved is not None else {}
    return config(**(pick(before, config) | pick(values, config)))


def saved_files(out: Path, saved: Facts) -> tuple[str, ...]:
    """The files that a run read its text from.

    Raises:
        UserError: they are not there.
    """
    files = tuple(saved.data.files)
    if STDIN in files:
        raise UserError(
            f"{out} read its text from stdin; give it again: "
            f"groundup pretrain - --out {out} --resume < TEXT"
        )
    named = [f for f in files if f not in DATA and not has_magic(f)]
    missing = [f for f in named if not Path(f).exists()]
    if missing:
        raise UserError(
            f"the text of the run in {out} is not at {missing[0]!r} (seen from here); "
            "name its files again"
        )
    return files


def refuse_useless(values: dict[str, Any]) -> None:
    """Refuse options that would have no effect, and a model that is not there."""
    useless = []
    if values.get("model"):
        made = [name for name in ("preset", "tokenizer", "init") if name in values]
        useless += [f"--{name} (--model brings its own)" for name in made]
    if values.get("train") != "lora":
        given = [name for name in ("lora_rank", "lora_alpha", "lora_dropout") if name in values]
        useless += [f"--{name.replace('_', '-')} (for --train lora)" for name in given]
    if useless:
        raise UserError(f"these options have no effect here: {', '.join(useless)}; leave them out")
    if values.get("model"):
        expect_model(values["model"])


def closing(
    out: Path,
    record: dict[str, float],
    *,
    stop: StopRequest,
    again: str,
    try_next: Sequence[str],
    files: Sequence[str] = ("plots/loss.png",),
) -> int:
    """Say how a run ended, what it left and what to try next; return the exit status."""
    names = {"running_loss": "train loss (mean of the last steps)", "val_loss": "val loss"}
    losses = ", ".join(f"{said} {record[n]:.3f}" for n, said in names.items() if n in record)
    say(
        f"\n{'stopped' if stop.requested else 'done'} after {int(record['step']):,} steps, "
        f"{record['seconds']:.0f} s: {losses}\n"
        f"model:  {out}{_which(out, record)}"
    )
    for name in files:
        say(f"{Path(name).parts[0].removesuffix('s') + ':':<7} {out / name}")
    if (out / PAGE).exists():
        say(f"page:   {out / PAGE}")
    # In a virtual environment that is not activated, the bare name would not be found.
    beside = Path(sys.executable).with_name("groundup")
    groundup = shell("groundup" if shutil.which("groundup") else str(beside))
    model = shell(str(out))
    if stop.requested:
        say(f"\nTo go on:\n  {groundup} {again} --out {model} --resume")
        return stop.status
    commands = "\n".join(f"  {groundup} {line.format(model=model)}" for line in try_next)
    say(f"\nTry next:\n{commands}")
    return 0


def _which(out: Path, record: dict[str, float]) -> str:
    """Which of the run's models lies in its directory, if that is not the last one."""
    facts = Facts.read(out)
    step = int(facts.progress.get("step", 0)) if facts is not None else 0
    if step in (0, record["step"]):
        return ""
    return f" (the best one, of step {step:,}; the last one is --checkpoint last)"
