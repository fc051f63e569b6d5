"""``groundup pretrain``: train a GPT on a text."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path
from typing import Any

from groundup.cli.app import Flag, app, layered, pick, say, with_options
from groundup.config import ModelConfig
from groundup.data.sources import DATA
from groundup.data.text import STDIN
from groundup.errors import UserError
from groundup.tasks.config import PretrainConfig


@app.command
@with_options(from_preset="Model", Model=ModelConfig, Training=PretrainConfig)
def pretrain(
    *files: str,
    out: Path,
    config: Path | None = None,
    recipe: str | None = None,
    overwrite: Flag = False,
    resume: Flag = False,
    given: dict[str, Any],
) -> int:
    """Train a GPT on a text and leave a model directory.

    Args:
        files: text to learn from: files (UTF-8, .gz too), directories, globs, or - for stdin.
        out: the model directory to write.
        config: a TOML file of options; flags win over it.
        recipe: a packaged set of options: course (chapter 5 of the course) or demo.
        overwrite: replace what an earlier run left in --out.
        resume: go on with the run in --out, exactly where it was saved.
    """
    values = layered(given, PretrainConfig, ModelConfig, config=config, recipe=recipe)
    if resume:
        values, files = continued(out, values, files)
    elif values.get("init_from"):
        _check_init_from(values)
    options = PretrainConfig(**pick(values, PretrainConfig))

    from groundup.data.text import read_documents
    from groundup.tasks.pretrain import pretrain as run
    from groundup.train.interrupt import StopRequest

    documents = read_documents(files, options.document_separator)
    characters = sum(map(len, documents))
    count = f"{len(documents)} document{'s' * (len(documents) != 1)}"
    stop = StopRequest(say)
    record = run(
        documents,
        out,
        options,
        pick(values, ModelConfig),
        description=f"{count}, {characters:,} characters",
        files=files,
        overwrite=overwrite,
        resume=resume,
        say=say,
        stop=stop,
    )
    return report(out, record, stopped=stop.requested)


def _check_init_from(values: dict[str, Any]) -> None:
    """Refuse what a model that exists has decided already."""
    useless = [name for name in ("preset", "tokenizer", "init") if name in values]
    if useless:
        raise UserError(
            f"--init-from brings its own shape, tokenizer and weights; leave out "
            f"{', '.join('--' + name for name in useless)}"
        )


def continued(
    out: Path, values: dict[str, Any], files: tuple[str, ...] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options and files of the run in ``out``, with what was given now over them."""
    from groundup.weights.checkpoint import RunNotes

    notes = RunNotes.read(out)
    if not notes.config:
        raise UserError(f"{out} holds no run to resume; leave out --resume to start one")
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


def report(out: Path, record: dict[str, float], *, stopped: bool, again: str = "pretrain") -> int:
    """Say how a run ended and what to try next; return the exit status."""
    return closing(
        out,
        record,
        stopped=stopped,
        again=again,
        try_next=(
            'generate {model} "The" --temperature 0.8',
            "inspect {model}",
            "pretrain YOUR-TEXT.txt --out my-gpt",
        ),
    )


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
