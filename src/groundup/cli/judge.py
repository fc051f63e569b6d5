"""``groundup judge``: let a language model score what a model answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.cli.app import Flag, app, with_options
from groundup.judge.config import JudgeConfig
from groundup.output import say, show


@app.command
@with_options(Judge=JudgeConfig)
def judge(
    responses: Path,
    /,
    *,
    out: Path | None = None,
    template: Path | None = None,
    against: Path | None = None,
    reference: Path | None = None,
    compare: Path | None = None,
    overwrite: Flag = False,
    given: dict[str, Any],
) -> None:
    """Let a language model score responses, and write a report.

    Every answer is kept as it arrives: the same command goes on with a run that was interrupted.

    Args:
        responses: JSON or JSON lines with instruction, input, output and the response.
        out: the directory to write (responses.judge beside the file by default).
        template: a file with another question than the course's: the text with {instruction},
            {input}, {prompt}, {reference} and {response}; or a .toml file with it as `prompt`, and
            scale = [1, 5].
        against: other responses to the same tasks; the judge says which is better, A or B
            ({response_a}, {response_b}), asked in both orders.
        reference: the data set that was answered, whose outputs count; each of its entries must
            have its response.
        compare: the directory of an earlier run over the same tasks, to see what has changed.
        overwrite: replace the run that --out holds.
    """
    config = JudgeConfig(**given)

    from groundup.judge.report import PAGE, headline
    from groundup.judge.run import default_output, judge_responses

    if "num_ctx" in given and "num_ctx" not in config.deciding():
        say("note: --num-ctx has no effect: only Ollama's judges are told their context")
    folder = out or default_output(responses, against)
    results = judge_responses(
        responses,
        config,
        out=folder,
        template=template,
        against=against,
        reference=reference,
        compare_with=compare,
        overwrite=overwrite,
        say=say,
    )
    show(headline(results))
    show(folder / PAGE)
