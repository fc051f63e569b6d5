"""``groundup instruct respond``: answer a data set, for the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from groundup.cli.app import Flag, WholeNumber, with_options
from groundup.cli.instruct import instruct
from groundup.config import PrecisionChoice, Quantization
from groundup.decoding.answer_config import BATCH_SIZE, RespondConfig
from groundup.output import say, show


@instruct.command
@with_options(Sampling=RespondConfig)
def respond(
    model: str,
    /,
    *,
    out: Path,
    data: str | None = None,
    split: Literal["test", "validation", "train", "all"] | None = None,
    limit: WholeNumber | None = None,
    style: str | None = None,
    batch_size: WholeNumber = BATCH_SIZE,
    device: str = "auto",
    precision: PrecisionChoice = "auto",
    tokenizer: str | None = None,
    n_heads: WholeNumber | None = None,
    checkpoint: str | None = None,
    quantize: Quantization | None = None,
    no_verify: Flag = False,
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
        style: the prompt style (alpaca, chatml, phi3, plain; model is its own chat template) of a
            model that does not say it.
        batch_size: responses written at a time.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: fp32, bf16, or auto: bf16 where the hardware is fast at it.
        tokenizer: gpt2 or a directory, for a .pth that brings none.
        n_heads: attention heads, for a .pth that cannot say it.
        checkpoint: of a run: last, step-N, or history/step-N (its best one unless given).
        quantize: keep the matrices in fewer bytes, which is faster and a little less exact.
        no_verify: open it though a file is not as it was saved.
    """
    options = RespondConfig(**given)

    from groundup.runtime import resolve_runtime
    from groundup.tasks import respond as task
    from groundup.tasks.assistant import Assistant

    task.check_free(out)
    entries = task.choose_entries(model, data, split, limit, say, verify=not no_verify)
    runtime = resolve_runtime(device, precision)
    assistant = Assistant.load(
        model,
        runtime.device,
        style=style,
        tokenizer=tokenizer,
        n_heads=n_heads,
        checkpoint=checkpoint,
        quantize=quantize,
        verify=not no_verify,
        say=say,
    )
    assistant.model.to(runtime.dtype)
    reasons = task.respond(assistant, entries, out, options, batch_size=batch_size, say=say)
    say(task.describe(reasons))
    show(out)
    say(f"for their scores:\n  groundup judge {out}")
