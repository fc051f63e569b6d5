"""``groundup pretrain``: train a GPT on a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.cli.app import Flag, app, expect_model, layered, with_options
from groundup.cli.runs import closing, effective, saved_files, saved_run
from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.output import say
from groundup.tasks.config import PretrainConfig

if TYPE_CHECKING:
    from groundup.train.interrupt import StopRequest


@app.command
@with_options(from_preset="Model", Model=ModelConfig, Training=PretrainConfig)
def pretrain(
    *files: str,
    out: Path,
    config: Path | None = None,
    recipe: str | None = None,
    overwrite: Flag = False,
    resume: Flag = False,
    no_verify: Flag = False,
    given: dict[str, Any],
) -> int:
    """Train a GPT on a text and leave a model directory.

    Args:
        files: text to learn from: files (UTF-8, .gz and .zst too), directories, globs, or - for
            stdin; or one corpus of `groundup data prepare`.
        out: the model directory to write.
        config: a TOML file of options; flags win over it.
        recipe: a packaged set of options: course (chapter 5 of the course), demo or speedrun.
        overwrite: replace what an earlier run left in --out.
        resume: go on with the run in --out, exactly where it was saved.
        no_verify: go on, or begin with a model, though a file is not as it was saved.
    """
    values = layered(given, PretrainConfig, ModelConfig, config=config, recipe=recipe)
    saved = saved_run(PretrainConfig, out) if resume else None
    if saved is not None:
        files = files or saved_files(out, saved)
    elif values.get("init_from"):
        _check_init_from(values)
    options = effective(PretrainConfig, values, saved)
    if options.validation is not None and "train_ratio" in given:
        raise UserError("with --validation all of the text trains; leave out --train-ratio")

    from groundup.data.mixture import parse_shares
    from groundup.tasks.mixture import Mixture
    from groundup.tasks.pretrain import pretrain as run
    from groundup.tasks.texts import open_texts
    from groundup.train.interrupt import StopRequest

    separator = options.document_separator
    if options.mix is not None and files:
        raise UserError(f"--mix names what to train on; leave out {files[0]}")
    if options.mix is not None:
        texts = Mixture(parse_shares(options.mix))
    else:
        texts = open_texts(files, separator, say)
    validation = options.validation
    stop = StopRequest(say)
    record = run(
        texts,
        out,
        values,
        files=files,
        validation=() if validation is None else open_texts([validation], separator, say, files),
        overwrite=overwrite,
        resume=resume,
        verify=not no_verify,
        say=say,
        stop=stop,
    )
    return report(out, record, stop=stop)


def _check_init_from(values: dict[str, Any]) -> None:
    """Refuse what a model that exists has decided already."""
    useless = [name for name in ("preset", "tokenizer", "init") if name in values]
    if useless:
        raise UserError(
            f"--init-from brings its own shape, tokenizer and weights; leave out "
            f"{', '.join('--' + name for name in useless)}"
        )
    expect_model(values["init_from"])


def report(
    out: Path, record: dict[str, float], *, stop: StopRequest, again: str = "pretrain"
) -> int:
    """Say how a run ended and what to try next; return the exit status."""
    return closing(
        out,
        record,
        stop=stop,
        again=again,
        try_next=(
            'generate {model} "The" --temperature 0.8',
            "inspect {model}",
            'xray {model} "The value of a word" --out xray.html',
            "serve {model}",
            "pretrain YOUR-TEXT.txt --out my-gpt",
        ),
    )
