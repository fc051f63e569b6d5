"""``groundup instruct``: turn a language model into an assistant, and use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App

from groundup.cli.app import Flag, app, layered, with_options
from groundup.cli.runs import closing, effective, refuse_useless, saved_run
from groundup.config import ModelConfig
from groundup.data.sources import data_file
from groundup.output import say
from groundup.tasks.config import InstructConfig

instruct = App(name="instruct", help="Follow instructions: train an assistant, respond, chat.")
app.command(instruct)

USELESS = [name for name in ModelConfig.field_names() if name not in InstructConfig.SHAPE]
"""What the model that is trained has decided already."""


@instruct.command
@with_options(from_preset="Model", hide=USELESS, Model=ModelConfig, Training=InstructConfig)
def train(
    *,
    out: Path,
    config: Path | None = None,
    recipe: str | None = None,
    overwrite: Flag = False,
    resume: Flag = False,
    no_verify: Flag = False,
    given: dict[str, Any],
) -> int:
    """Teach a model to follow instructions and leave a model directory.

    The data is a JSON or JSONL file in Alpaca's format (instruction, input, output; system,
    history), dolly's or ShareGPT's, with chat messages, or with prompts and completions;
    "instructions" is the course's, once downloaded. --model says which model learns.

    Args:
        out: the model directory to write.
        config: a TOML file of options; flags win over it.
        recipe: a packaged set of options: course (chapter 7 of the course, GPT-2 355M).
        overwrite: replace what an earlier run left in --out.
        resume: go on with the run in --out, exactly where it was saved.
        no_verify: go on, or begin with a model, though a file is not as it was saved.
    """
    values = layered(given, InstructConfig, ModelConfig, config=config, recipe=recipe)
    saved = saved_run(InstructConfig, out) if resume else None
    if saved is None:
        refuse_useless(values)
    options = effective(InstructConfig, values, saved)
    path = data_file(options.data)

    from groundup.data.instruction_files import read_instructions
    from groundup.tasks.instruct import train_assistant
    from groundup.train.interrupt import StopRequest

    stop = StopRequest(say)
    record = train_assistant(
        read_instructions(path, say=say),
        out,
        values,
        overwrite=overwrite,
        resume=resume,
        verify=not no_verify,
        say=say,
        stop=stop,
    )
    return closing(
        out,
        record,
        stop=stop,
        again="instruct train",
        try_next=(
            "instruct chat {model}",
            "instruct respond {model} --out responses.json",
            "judge responses.json --judge ollama:llama3",
        ),
    )
