"""``groundup instruct respond``: answer a data set, for the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from groundup.cli.app import WholeNumber, opening_of, pick, with_options
from groundup.cli.instruct import instruct
from groundup.decoding.answer_config import BATCH_SIZE, RespondConfig
from groundup.output import say, show
from groundup.weights.open_config import OpenConfig


@instruct.command
@with_options(Opening=OpenConfig, Sampling=RespondConfig)
def respond(
    model: str,
    /,
    *,
    out: Path,
    data: str | None = None,
    split: Literal["test", "validation", "train", "all"] | None = None,
    limit: WholeNumber | None = None,
    batch_size: WholeNumber = BATCH_SIZE,
    # One response per entry: there is no such flag.
    num_samples: Annotated[int, Parameter(parse=False)] = 1,
    given: dict[str, Any],
) -> None:
    """Answer the entries of a data set and write them with the responses as JSON.

    Without --data, these are the test split of what the model was trained on. The same command
    goes on with a run that was interrupted. `groundup judge` scores what it writes.

    Args:
        model: a model directory, a GGUF file, a .pth of the course, or the name of a downloaded or
            imported model.
        out: the JSON file to write; it must not exist.
        data: JSON or JSONL with instruction and input, or messages; "-" reads stdin.
        split: which part of the data: the run's own splits, made again by its seed (all of --data
            unless given).
        limit: answer only so many entries.
        batch_size: responses written at a time.
    """
    opening = opening_of(given, model)
    options = RespondConfig(**pick(given, RespondConfig))

    from groundup.tasks import respond as task
    from groundup.tasks.assistant import Assistant

    task.check_free(out)
    entries = task.choose_entries(model, data, split, limit, say, verify=opening.verify)
    runtime = opening.runtime
    assistant = Assistant.load(model, runtime.device, style=opening.style, say=say, **opening.how)
    assistant.model.to(runtime.dtype)
    reasons = task.respond(assistant, entries, out, options, batch_size=batch_size, say=say)
    say(task.describe(reasons))
    show(out)
    say(f"for their scores:\n  groundup judge {out}")
