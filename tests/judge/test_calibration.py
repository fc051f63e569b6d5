import json
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from groundup.errors import UserError
from groundup.judge.answers import Answer, AnswersFile
from groundup.judge.calibration import (
    calibration_work,
    details,
    find_calibration,
    rank_correlation,
    summarize,
)
from groundup.judge.config import JudgeConfig
from groundup.judge.intervals import wilson_interval
from groundup.judge.responses import Entry
from groundup.judge.run import calibrate_judge, judge_responses
from groundup.judge.scoring import COURSE, PAIRWISE
from tests.judge.conftest import Configure, Write, rows
from tests.judge.fake_llm import FakeLLM, status

SCORED = re.compile(r"correct output `(.*)`, score the model response `(.*)` on a scale")
COMPARED = re.compile(r"output `(.*)`, compare the model response A `(.*)` and .* B `(.*)`\. ")


def good(prompt: str) -> str:
    """A judge that knows the right answer when it sees it."""
    if found := SCORED.search(prompt):
        reference, response = found.groups()
        return "95" if response == reference else "20" if len(response) > 1 else "0"
    found = COMPARED.search(prompt)
    assert found, prompt
    return '{"winner": "A"}' if found[1] == found[2] else '{"winner": "B"}'


@pytest.fixture
def config(llm: FakeLLM) -> JudgeConfig:
    return JudgeConfig(base_url=llm.url)


def spearman(scores: Sequence[float], worth: Sequence[float]) -> float:
    found: Any = spearmanr(scores, worth)
    return found.statistic


def tasks(outputs: list[str]) -> list[Entry]:
    return [Entry(n, f"Task {n}.", "", output, "") for n, output in enumerate(outputs, 1)]


def test_a_good_judge_can_tell(llm: FakeLLM, configure: Configure, write: Write) -> None:
    llm.answer = good
    responses = write(rows(20))
    results = calibrate_judge(responses, configure(calibration_tasks=12))
    told = results["summary"]
    assert (told["tasks"], told["asked"], told["unscored"], told["compared"]) == (12, 36, 0, 12)
    assert told["right"] == 1.0 and told["can_tell"]
    assert told["interval"] == wilson_interval(12, 12)
    assert told["means"] == {"reference": 95, "shuffled": 20, "near-empty": 0}
    assert told["scores"] == {"0": 12, "20": 12, "95": 12}
    assert told["correlation"] == pytest.approx(
        spearman([95] * 12 + [20] * 12 + [0] * 12, [1] * 12 + [0] * 24)
    )
    assert told["verdict"] == (
        "this judge can tell references from other tasks' answers "
        "(1.00 of 12, interval 0.76 to 1.00)"
    )
    folder = responses.parent / "responses.judge"
    kept = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(results))
    assert len(llm.asked) == 36 and set(llm.answered.values()) == {1}


@pytest.mark.parametrize(
    ("says", "distinct", "unscored", "words"),
    [
        ("100", {"100": 24}, 0, "(0.50 of 8, interval 0.22 to 0.78): its scores mean nothing"),
        ("I like it!", {}, 24, "(no usable answer): its scores mean nothing"),
    ],
)
def test_a_judge_that_always_says_the_same_cannot_tell(
    llm: FakeLLM, write: Write, says: str, distinct: dict[str, int], unscored: int, words: str
) -> None:
    llm.answer = lambda prompt: says
    config = JudgeConfig(base_url=llm.url, tries=1, calibration_tasks=8)
    told = calibrate_judge(write(rows(20)), config)["summary"]
    assert (told["scores"], told["unscored"], told["correlation"]) == (distinct, unscored, None)
    assert not told["can_tell"]
    assert told["verdict"] == f"this judge can't tell references from other tasks' answers {words}"
    assert ("24 of 24 answers stated none" in details(told)) is bool(unscored)
    assert "rank correlation none" in details(told)


def test_what_is_half_right_is_barely_believed(llm: FakeLLM, write: Write) -> None:
    def now_and_then(prompt: str) -> str:
        return good(prompt) if int(prompt.split("number ")[1].split(".")[0]) % 5 < 2 else "100"

    llm.answer = now_and_then
    config = JudgeConfig(base_url=llm.url, calibration_tasks=35)
    told = calibrate_judge(write(rows(35)), config)["summary"]
    assert told["right"] == pytest.approx(0.7) and told["can_tell"]  # 14 won, 21 tied
    assert told["verdict"].startswith("this judge can barely tell references")


def test_a_worse_than_random_judge_cannot_tell(llm: FakeLLM, write: Write) -> None:
    llm.answer = lambda prompt: str(100 - int(good(prompt)))
    told = calibrate_judge(write(rows(10)), JudgeConfig(base_url=llm.url))["summary"]
    assert told["right"] == 0 and not told["can_tell"] and told["correlation"] < 0


def test_pairs_are_asked_in_both_orders(llm: FakeLLM, configure: Configure, write: Write) -> None:
    llm.answer = good
    first, second = write(rows(12)), write(rows(12, model_response="else"), "other.json")
    told = calibrate_judge(first, configure(), against=second)["summary"]
    assert (told["tasks"], told["asked"], told["by_order"]) == (12, 24, 0)
    assert (told["right"], told["said"]) == (1.0, {"A": 12, "B": 12, "tie": 0})
    assert told["can_tell"] and "can tell" in told["verdict"]
    assert (first.parent / "responses-against-other.judge" / "calibration.json").exists()
    shown = [COMPARED.search(body["messages"][0]["content"]) for body in llm.asked]
    assert all(found and (found[1] == found[2]) != (found[1] == found[3]) for found in shown)


def test_a_judge_that_only_says_a_cannot_tell(llm: FakeLLM, write: Write) -> None:
    llm.answer = lambda prompt: "A"
    config = JudgeConfig(base_url=llm.url)
    first, second = write(rows(12)), write(rows(12), "other.json")
    told = calibrate_judge(first, config, against=second)["summary"]
    assert (told["said"], told["by_order"]) == ({"A": 24, "B": 0, "tie": 0}, 12)
    assert told["right"] == 0.5 and not told["can_tell"]
    assert told["verdict"].endswith("its verdicts mean nothing")
    assert "A 24, B 0, tie 0; 12 of 12 pairs changed with the order" in details(told)
    said: list[str] = []
    results = judge_responses(first, config, against=second, say=said.append)
    assert results["calibration"]["verdict"] == told["verdict"]
    assert any(line.startswith(f"warning: {told['verdict']}") for line in said)


def test_wrong_answers_are_other_tasks_and_never_the_same_text() -> None:
    outputs = ["Yes.", "yes. ", "No.", "Yes.", "Paris", "No.", " ", ""]
    work = calibration_work(tasks(outputs), COURSE, 40, 1, pairwise=False)
    assert [entry.number for entry in work.entries] == list(range(1, 19))  # two have no reference
    for place, output in enumerate(outputs[:6]):
        right, wrong, nothing = work.entries[3 * place : 3 * place + 3]
        assert {right.instruction, wrong.instruction} == {f"Task {place + 1}."}
        assert right.response == right.reference == wrong.reference == output
        assert wrong.response in outputs
        assert wrong.response.strip().lower() != output.strip().lower()
        assert nothing.response == "." and not nothing.empty
    assert calibration_work(tasks(outputs), COURSE, 40, 1, pairwise=False) == work


def test_the_seed_shuffles_and_the_tasks_are_evenly_spaced() -> None:
    many = tasks([f"Answer {n}." for n in range(101)])
    works = [calibration_work(many, PAIRWISE, 11, seed, pairwise=True) for seed in (1, 1, 2)]
    assert [entry.reference for entry in works[0].entries] == [
        f"Answer {n}." for n in range(0, 101, 10)
    ]
    wrong = [[entry.response for entry in work.others or ()] for work in works]
    assert wrong[0] == wrong[1] != wrong[2]
    assert sorted(wrong[0]) == sorted(wrong[2])  # every answer once
    assert JudgeConfig().calibration_tasks == 40


def test_without_different_references_there_is_nothing_to_tell(write: Write) -> None:
    with pytest.raises(UserError, match="2 of the 3 given have one, and those of the 2 chosen"):
        calibration_work(tasks(["Yes.", "yes.", ""]), COURSE, 40, 1, pairwise=False)
    with pytest.raises(UserError, match="1 of the 1 given"):
        calibration_work(tasks(["Yes."]), COURSE, 40, 1, pairwise=True)
    with pytest.raises(UserError, match="calibration_tasks is 1; expected at least 2"):
        JudgeConfig(calibration_tasks=1)


def test_the_summary_agrees_with_a_count_by_hand() -> None:
    work = calibration_work(tasks(["a", "b", "c"]), COURSE, 40, 1, pairwise=False)
    verdicts = [90, 40, 0, 50, 50, 100, None, 30, 0]  # won, tied, and the reference unscored
    answers = [
        Answer("", entry.number, "", verdict, ["…"], 0.0, True)
        for entry, verdict in zip(work.entries, verdicts, strict=True)
    ]
    told = summarize(work, answers)
    assert (told["right"], told["compared"], told["unscored"]) == (0.75, 2, 1)
    assert told["scored"] == {"reference": 2, "shuffled": 3, "near-empty": 3}
    assert told["means"] == {"reference": 70, "shuffled": 40, "near-empty": pytest.approx(100 / 3)}
    scores, right = [90, 50, 40, 50, 30, 0, 100, 0], [1, 1, 0, 0, 0, 0, 0, 0]
    assert told["correlation"] == pytest.approx(spearman(scores, right))


def test_the_rank_correlation_is_spearman_s() -> None:
    rng = np.random.default_rng(1)
    scores, worth = rng.integers(0, 5, 60).tolist(), rng.integers(0, 2, 60).tolist()
    found = rank_correlation(scores, worth)
    assert found == pytest.approx(spearman(scores, worth))
    assert rank_correlation([1, 1], [0, 1]) is rank_correlation([], []) is None


@pytest.mark.parametrize("against", [False, True])
def test_an_interrupted_calibration_goes_on(
    llm: FakeLLM, write: Write, monkeypatch: pytest.MonkeyPatch, against: bool
) -> None:
    llm.answer = good
    first = write(rows(6))
    other = write(rows(6), "other.json") if against else None
    add = AnswersFile.add

    def add_then_interrupt(self: AnswersFile, one: Answer) -> None:
        add(self, one)
        if len(self.answers) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(AnswersFile, "add", add_then_interrupt)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        calibrate_judge(
            first, JudgeConfig(base_url=llm.url, concurrency=1), against=other, say=said.append
        )
    assert "the same command goes on" in said[-1]
    monkeypatch.setattr(AnswersFile, "add", add)
    config = JudgeConfig(base_url=llm.url)
    results = calibrate_judge(first, config, against=other)
    assert results["summary"]["right"] == 1 and set(llm.answered.values()) == {1}
    llm.models = {}  # finished: the judge need not be there
    assert calibrate_judge(first, config, against=other) == results


def test_a_file_of_references_needs_no_responses(
    llm: FakeLLM, config: JudgeConfig, write: Write
) -> None:
    llm.answer = good
    bare = [{k: v for k, v in row.items() if k != "model_response"} for row in rows(6)]
    assert calibrate_judge(write(bare, "test.json"), config)["summary"]["right"] == 1
    asked = len(llm.asked)
    answered = write([{k: v for k, v in row.items() if k != "output"} for row in rows(6)])
    reference = write(bare, "test.json")
    told = calibrate_judge(answered, config, reference=reference)["summary"]
    assert told["right"] == 1 and len(llm.asked) == 2 * asked
    with pytest.raises(UserError, match="output"):
        calibrate_judge(answered, config, out="never")
    other = write(rows(5), "other.json")
    changes: list[dict[str, Any]] = [{"reference": other}, {"against": other}]
    for given in changes:
        with pytest.raises(UserError, match="must hold the same tasks"):
            calibrate_judge(write(rows(6)), config, out="never", **given)
    assert not Path("never").exists()


def test_the_verdict_is_in_later_reports(
    llm: FakeLLM, config: JudgeConfig, write: Write, tmp_path: Path
) -> None:
    def reports(folder: str) -> list[str]:
        names = ("report.md", "report.html")
        return [(tmp_path / folder / name).read_text(encoding="utf-8") for name in names]

    responses, said = write(rows(9)), []
    judge_responses(responses, config, say=said.append)
    assert all("none; --calibrate tells whether" in text for text in reports("responses.judge"))
    llm.answer = lambda prompt: "85"
    verdict = calibrate_judge(responses, config)["summary"]["verdict"]
    asked = len(llm.asked)
    results = judge_responses(responses, config, say=said.append, overwrite=False)
    assert len(llm.asked) == asked and not results["calibration"]["can_tell"]
    for text in reports("responses.judge"):
        plain = re.sub(r"&#39;", "'", text).replace("\\", "")
        assert plain.count(verdict) == 2  # among the facts, and as a warning
    assert f"warning: {verdict}" in said[-1]
    # Other responses, the same judge: the calibration lies beside theirs.
    write(rows(9, model_response="else"), "else.json")
    found = judge_responses(tmp_path / "else.json", config, say=said.append)["calibration"]
    assert found["verdict"] == verdict and "responses.judge" in found["from"]
    run = json.loads((tmp_path / "else.judge" / "run.json").read_text(encoding="utf-8"))
    assert find_calibration(tmp_path / "else.judge", run) == found
    for name, change in {"settings": "seed", "asked_of": "digest", "template": "prompt"}.items():
        another = run | {name: run[name] | {change: "another"}}
        assert find_calibration(tmp_path / "else.judge", another) is None


def test_a_good_verdict_warns_of_nothing(llm: FakeLLM, config: JudgeConfig, write: Write) -> None:
    llm.answer, responses, said = good, write(rows(9)), []
    calibrate_judge(responses, config)
    results = judge_responses(responses, config, say=said.append)
    assert results["calibration"]["can_tell"] and "warning" not in " ".join(said)
    report = (responses.parent / "responses.judge" / "report.md").read_text(encoding="utf-8")
    assert "this judge can tell references" in report and "warning" not in report


def test_runs_and_calibrations_replace_only_themselves(
    llm: FakeLLM, config: JudgeConfig, write: Write, tmp_path: Path
) -> None:
    llm.answer, responses, folder = good, write(rows(4)), tmp_path / "responses.judge"
    kept = calibrate_judge(responses, config)["summary"]
    judged = judge_responses(responses, config, overwrite=True)["summary"]
    assert (folder / "calibration.json").exists()
    with pytest.raises(UserError, match=r"holds another run \(the responses differ\)"):
        calibrate_judge(write(rows(5)), config)
    assert calibrate_judge(write(rows(5)), config, overwrite=True)["summary"]["tasks"] == 5
    assert kept["tasks"] == 4
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["summary"] == json.loads(json.dumps(judged))


def test_foreign_directories_and_files_are_left_alone(
    llm: FakeLLM, config: JudgeConfig, write: Write, tmp_path: Path
) -> None:
    responses, folder = write(rows(3)), tmp_path / "mine"
    (folder / "calibration").mkdir(parents=True)
    (folder / "calibration" / "thesis.txt").write_text("mine", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="was not made by `groundup judge`"):
            calibrate_judge(responses, config, out=folder, overwrite=overwrite)
    assert llm.asked == []
    run = {"asked_of": 1, "settings": 1, "template": 1}
    (tmp_path / "theirs").mkdir()
    for text in ("{", "[]", json.dumps(run | {"summary": 5}), json.dumps(run | {"summary": {}})):
        (tmp_path / "theirs" / "calibration.json").write_text(text, encoding="utf-8")
        assert find_calibration(tmp_path / "ours", run) is None


def test_a_judge_that_is_away_leaves_nothing_behind(
    llm: FakeLLM, config: JudgeConfig, write: Write, tmp_path: Path, waits: list[float]
) -> None:
    llm.models = {}
    with pytest.raises(UserError, match="ollama pull llama3"):
        calibrate_judge(write(rows(3)), config)
    assert [path.name for path in tmp_path.iterdir()] == ["responses.json"]
    llm.models = {"llama3:latest": "d"}
    llm.faults = [status(503, "gone")] * 20
    with pytest.raises(UserError, match="0 of 9 answers are kept"):
        calibrate_judge(write(rows(3)), config)


def test_every_score_that_was_given_is_counted(
    llm: FakeLLM, config: JudgeConfig, write: Write, tmp_path: Path
) -> None:
    template = tmp_path / "q.toml"
    template.write_text('scale = [1, 5]\nprompt = "Is {response} {reference}?"', "utf-8")

    def verdict(prompt: str) -> str:
        found = re.fullmatch(r"Is (.*) It is (.*)\?", prompt)
        assert found
        return "5/5" if found[1] == f"It is {found[2]}" else "1"

    llm.answer = verdict
    told = calibrate_judge(write(rows(8)), config, template=template)["summary"]
    assert told["scores"] == {"1": 16, "5": 8} and told["right"] == 1
    assert "2 different scores (1, 5)" in details(told)
    assert [key for key, _ in groupby(told["means"].values())] == [5, 1]
