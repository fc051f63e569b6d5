"""What the commands that train have in common: going on with a run, and how it ends."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path
from typing import Any

from groundup.cli.app import say
from groundup.data.sources import DATA
from groundup.data.text import STDIN
from groundup.errors import UserError
from groundup.tasks.config import TaskConfig


def continued(
    config: type[TaskConfig], out: Path, values: dict[str, Any], files: tuple[str, ...] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options and files of the run in ``out``, with what was given now over them.

    Raises:
        UserError: there is no run, it is another task's, or its text is not there.
    """
    from groundup.weights.checkpoint import RunNotes

    notes = RunNotes.read(out)
    if not notes.config:
        raise UserError(f"{out} holds no run to resume; leave out --resume to start one")
    if notes.task != config.TASK:
        raise UserError(f"{out} holds a run of another task ({notes.task}); choose another --out")
    saved = dict(notes.config)
    # Of the two limits the one that is given now counts, not the other one from before.
    if "epochs" in values or "max_steps" in values:
        saved |= {"epochs": None, "max_steps": None}
    # What was asked for is not what a short text gave; and the tokenizer is there already.
    values = {name: value for name, value in values.items() if name != "vocab_size"}
    changed = [
        f"{n} {saved.get(n)} to {v}" for n, v in values.items() if saved.get(n) not in (None, v)
    ]
    if changed:
        say(f"note: from here on the run changes {', '.join(changed)}")
    if not files:
        files = tuple(notes.data.get("files", ()))
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
    return saved | values, files


def refuse_useless(values: dict[str, Any]) -> None:
    """Refuse options that would have no effect."""
    useless = []
    if values.get("model"):
        made = [name for name in ("preset", "tokenizer", "init") if name in values]
        useless += [f"--{name} (--model brings its own)" for name in made]
    if values.get("train") != "lora":
        given = [name for name in ("lora_rank", "lora_alpha", "lora_dropout") if name in values]
        useless += [f"--{name.replace('_', '-')} (for --train lora)" for name in given]
    if useless:
        raise UserError(f"these options have no effect here: {', '.join(useless)}; leave them out")


def closing(
    out: Path,
    record: dict[str, float],
    *,
    stopped: bool,
    again: str,
    try_next: Sequence[str],
    files: Sequence[str] = ("plots/loss.png",),
) -> int:
    """Say how a run ended, what it left and what to try next; return the exit status."""
    names = [name for name in ("train_loss", "val_loss") if name in record]
    losses = ", ".join(f"{name.replace('_', ' ')} {record[name]:.3f}" for name in names)
    say(
        f"\n{'stopped' if stopped else 'done'} after {int(record['step']):,} steps, "
        f"{record['seconds']:.0f} s: {losses}\n"
        f"model:  {out}"
    )
    for name in files:
        say(f"{Path(name).parts[0].removesuffix('s') + ':':<7} {out / name}")
    # In a virtual environment that is not activated, the bare name would not be found.
    beside = Path(sys.executable).with_name("groundup")
    groundup = shlex.quote("groundup" if shutil.which("groundup") else str(beside))
    model = shlex.quote(str(out))
    if stopped:
        say(f"\nTo go on:\n  {groundup} {again} --out {model} --resume")
        return 128 + 2  # what a shell calls the end by SIGINT
    commands = "\n".join(f"  {groundup} {line.format(model=model)}" for line in try_next)
    say(f"\nTry next:\n{commands}")
    return 0
