import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.judge.conftest import llm, rows, write  # fixtures
from tests.judge.fake_llm import FakeLLM, Handler, answer
from tests.systems import needs_signals

__all__ = ["llm", "write"]

Fails = Callable[..., str]


def test_the_result_is_printed_and_the_way_there_said(
    run: Run, llm: FakeLLM, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", llm.url)
    responses = write(rows(3))
    result = run("judge", responses)
    assert result.status == 0, result.err
    first, second = result.out.splitlines()
    assert first.startswith("mean 85.00 (95% interval 85.00 to 85.00), median 85 (3 of 3 scored")
    assert second == str(responses.parent / "responses.judge" / "report.html")
    assert f"ollama:llama3 at {llm.url} judges 3 questions" in result.err
    assert "while the server loads the model" in result.err
    again = run("judge", responses)
    assert again.out == result.out and "nothing is asked" in again.err


def test_every_option_is_passed_on(
    run: Run, llm: FakeLLM, write: Callable[..., Path], tmp_path: Path
) -> None:
    entries = [{**row, "answer": "mine"} for row in rows(2)]
    template = tmp_path / "q.toml"
    template.write_text('scale = [1, 5]\nprompt = "Rate {response}"', "utf-8")
    llm.answer = lambda prompt: "4/5"
    options: dict[str, Any] = {
        "judge": "openai:llama3:latest",
        "base-url": f"{llm.url}/v1",
        "key": "answer",
        "out": tmp_path / "out",
        "template": template,
        "reference": write(entries, "test.json"),
        "seed": 5,
        "tries": 1,
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    result = run("judge", write(entries), *given)
    assert result.out.startswith("mean 4.00"), result.err
    assert llm.asked[0]["messages"][0]["content"] == "Rate mine" and llm.asked[0]["seed"] == 5
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert results["template"] == {"prompt": "Rate {response}", "scale": [1, 5]}


def test_pairs_and_comparisons(
    run: Run, llm: FakeLLM, write: Callable[..., Path], tmp_path: Path
) -> None:
    first, second = write(rows(2)), write(rows(2, model_response="else"), "second.json")
    base = f"--base-url={llm.url}"
    llm.answer = lambda prompt: '{"winner": "A"}' if "A `else`" in prompt else '{"winner": "B"}'
    result = run("judge", first, "--against", second, base)
    assert result.out.startswith("A wins 0.0% (95% interval 0.0% to 65.8%): 0 wins"), result.err
    llm.answer = lambda prompt: "70" if "else" in prompt else "60"
    assert run("judge", first, base).status == 0
    result = run("judge", second, base, "--compare", tmp_path / "responses.judge")
    assert result.status == 0, result.err
    assert "+10.00" in (tmp_path / "second.judge" / "report.md").read_text("utf-8")


def test_mistakes_are_told_in_one_sentence(
    fails: Fails, llm: FakeLLM, write: Callable[..., Path], tmp_path: Path
) -> None:
    responses, base = write(rows(2)), f"--base-url={llm.url}"
    assert "no field 'answr'" in fails("judge", responses, base, "--key=answr")
    assert "judge is 'olama:llama3'" in fails("judge", responses, "--judge=olama:llama3")
    assert "`ollama pull phi3`" in fails("judge", responses, base, "--judge=ollama:phi3")
    assert "there is no file" in fails("judge", tmp_path / "none.json", base)
    assert "1.5" in fails("judge", responses, base, "--tries=1.5")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "a.txt").touch()
    assert "choose another --out" in fails("judge", responses, base, "--out", tmp_path / "taken")
    assert llm.asked == []


@needs_signals
def test_ctrl_c_ends_with_130(run: Run, llm: FakeLLM, write: Callable[..., Path]) -> None:
    def interrupt(handler: Handler, body: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)  # as the terminal does
        handler.llm.over.wait(5)

    llm.faults = [answer, answer, interrupt]
    responses = write(rows(5))
    result = run("judge", responses, f"--base-url={llm.url}", "--concurrency=1")
    assert result.status == 130, result.err
    assert "2 of 5 answers are kept in" in result.err
    assert "the same command goes on from there" in result.err
    result = run("judge", responses, f"--base-url={llm.url}")
    assert "of which 2 are answered already" in result.err and "5 of 5 scored" in result.out


def test_a_calibration_is_told_and_shown_later(
    run: Run, fails: Fails, llm: FakeLLM, write: Callable[..., Path], tmp_path: Path
) -> None:
    responses, base = write(rows(9)), f"--base-url={llm.url}"
    result = run("judge", responses, base, "--calibrate", "--calibration-tasks=4")
    assert result.status == 0, result.err
    verdict, behind, file = result.out.splitlines()
    assert verdict.startswith("this judge can't tell") and "(0.50 of 4, interval" in verdict
    assert behind.startswith("mean scores: reference 85.0, shuffled 85.0, near-empty 85.0; ")
    assert "1 different score (85)" in behind
    assert file == str(tmp_path / "responses.judge" / "calibration.json")
    assert "judges 12 questions" in result.err
    assert run("judge", responses, base, "--calibrate", "--calibration-tasks=4").out == result.out
    assert len(llm.asked) == 12
    judged = run("judge", responses, base, "--calibration-tasks=5")
    assert judged.status == 0 and f"warning: {verdict}" in judged.err
    assert "--calibration-tasks has no effect without --calibrate" in judged.err
    message = fails("judge", responses, base, "--calibrate", "--compare", tmp_path)
    assert "--compare compares responses' scores" in message
    assert "at least 2" in fails("judge", responses, base, "--calibrate", "--calibration-tasks=1")
    same = write(rows(3, output="Yes."), "same.json")
    assert "different references" in fails("judge", same, base, "--calibrate")


@needs_signals
def test_ctrl_c_ends_a_calibration_with_130(
    run: Run, llm: FakeLLM, write: Callable[..., Path]
) -> None:
    def interrupt(handler: Handler, body: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        handler.llm.over.wait(5)

    llm.faults = [answer, answer, interrupt]
    given = ("judge", write(rows(5)), f"--base-url={llm.url}", "--calibrate")
    result = run(*given, "--concurrency=1")
    assert result.status == 130, result.err
    assert "2 of 15 answers are kept in" in result.err
    result = run(*given)
    assert result.status == 0 and "of which 2 are answered already" in result.err
