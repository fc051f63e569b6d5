"""``groundup pretrain``: train a GPT on a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from groundup.cli.app import Flag, app, layered, pick, say, with_options
from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.tasks.config import FIXED_ON_RESUME, PretrainConfig


@app.command
@with_options(Model=ModelConfig, Training=PretrainConfig)
def pretrain(
    *files: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path,
    config: Path | None = None,
    recipe: str | None = None,
    overwrite: Flag = False,
    resume: Flag = False,
    given: dict[str, Any],
) -> None:
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
        values, files = _continued(out, values, files)
    options = PretrainConfig(**pick(values, PretrainConfig))

    from groundup.data.text import read_documents
    from groundup.tasks.pretrain import pretrain as run

    documents = read_documents(files, options.document_separator)
    characters = sum(map(len, documents))
    count = f"{len(documents)} document{'s' * (len(documents) != 1)}"
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
    )
    report(out, record)


def _continued(
    out: Path, values: dict[str, Any], files: tuple[str, ...]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options and files of the run in ``out``, with those that may change replaced."""
    from groundup.weights.checkpoint import RunNotes

    notes = RunNotes.read(out)
    changed = [
        f"{name} {notes.config.get(name)!r} to {values[name]!r}"
        for name in FIXED_ON_RESUME
        if name in values and values[name] != notes.config.get(name)
    ]
    if notes.config and changed:
        raise UserError(
            f"--resume goes on with the same run, but this would change {', '.join(changed)}; "
            "leave these options out, or start a new run with --init-from"
        )
    return notes.config | values, files or tuple(notes.data.get("files", ()))


def report(out: Path, record: dict[str, float]) -> None:
    """Say how a run ended and what to try next."""
    losses = [
        f"{n.replace('_', ' ')} {record[n]:.3f}" for n in ("train_loss", "val_loss") if n in record
    ]
    say(
        f"\ndone: {', '.join(losses)} after {int(record['step']):,} steps, "
        f"{record['seconds']:.0f} s\n"
        f"model: {out}\nplot:  {out / 'plots' / 'loss.png'}\n\n"
        "Try next:\n"
        f'  groundup generate {out} "The" --temperature 0.8\n'
        f"  groundup inspect {out}\n"
        "  groundup pretrain YOUR-TEXT.txt --out my-gpt"
    )
