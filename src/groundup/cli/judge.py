"""``groundup judge``: let a language model score what a model answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.cli.app import Flag, app, with_options
from groundup.errors import UserError
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
    calibrate: Flag = False,
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
        calibrate: judge no responses, but the judge: does it score the references above other
            tasks' answers and above next to nothing? (With --against: does it prefer them?) Later
            reports show what came out.
        overwrite: replace the run that --out holds (with --calibrate, its calibration).
    """
    config = JudgeConfig(**given)

    from groundup.judge.calibration import CALIBRATION, details
    from groundup.judge.report import headline
    from groundup.judge.run import calibrate_judge, default_output, judge_responses
    from groundup.judge.written import PAGE

    if "num_ctx" in given and "num_ctx" not in config.deciding():
        say("note: --num-ctx has no effect: only Ollama's judges are told their context")
    folder = out or default_output(responses, against)
    told: dict[str, Any] = {
        "out": folder,
        "template": template,
        "against": against,
        "reference": reference,
        "overwrite": overwrite,
        "say": say,
    }
    if calibrate:
        if compare is not None:
            raise UserError("--compare compares responses' scores, and --calibrate gives none")
        summary = calibrate_judge(responses, config, **told)["summary"]
        show(summary["verdict"])
        show(details(summary))
        show(folder / CALIBRATION)
        return
    if "calibration_tasks" in given:
        say("note: --calibration-tasks has no effect without --calibrate")
    results = judge_responses(responses, config, compare_with=compare, **told)
    show(headline(results))
    show(folder / PAGE)
