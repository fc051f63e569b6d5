import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from groundup.errors import UserError
from groundup.judge.answers import Answer, AnswersFile
from groundup.judge.config import JudgeConfig
from groundup.judge.report import headline
from groundup.judge.run import default_output, judge_responses
from tests.judge.conftest import Configure, Write, rows
from tests.judge.fake_llm import (
    DIGEST,
    FakeLLM,
    Fault,
    Handler,
    answer,
    broken_off,
    cut,
    garbage,
    says,
    stall,
    status,
)


def ollama(llm: FakeLLM, **changes: Any) -> JudgeConfig:
    options: dict[str, Any] = {"base_url": llm.url}
    return JudgeConfig(**(options | changes))


def prompts(llm: FakeLLM) -> Counter[str]:
    return Counter(body["messages"][0]["content"] for body in llm.asked)


def test_a_run_scores_every_entry(llm: FakeLLM, configure: Configure, write: Write) -> None:
    llm.answer = lambda prompt: json.dumps({"score": int(prompt.split("number ")[1][:1]) * 10})
    responses = write(rows(9))
    results = judge_responses(responses, configure())
    folder = responses.parent / "responses.judge"
    assert json.loads((folder / "results.json").read_text("utf-8")) == json.loads(
        json.dumps(results)
    )
    assert [row["score"] for row in results["entries"]] == list(range(10, 100, 10))
    summary = results["summary"]
    assert (summary["mean"], summary["median"], summary["scored"]) == (50, 50, 9)
    assert summary["interval"][0] < 50 < summary["interval"][1]
    assert max(prompts(llm).values()) == 1
    names = {"run.json", "answers.jsonl", "results.json", "report.md", "report.html"}
    assert names | {"distribution.svg"} <= {path.name for path in folder.iterdir()}


def test_what_was_asked_of_whom_is_recorded(llm: FakeLLM, write: Write) -> None:
    results = judge_responses(write(rows(2)), ollama(llm, seed=7))
    assert (results["judge"], results["digest"]) == ("ollama:llama3", DIGEST)
    assert results["server_version"] == "0.5.7" and results["structured"]
    assert results["settings"] == {"temperature": 0, "seed": 7, "num_ctx": 2048, "tries": 3}
    assert results["template"]["prompt"].startswith("Given the input `{prompt}`")
    assert results["template"]["scale"] == [0, 100]
    assert set(results["versions"]) == {"groundup", "ollama"}
    row = results["entries"][1]
    assert (row["answers"], row["attempts"]) == (['{"score": 85}'], 1)
    assert (row["reference"], row["response"]) == ("It is 2.", "The number is 2.")
    assert row["seconds"] > 0


def test_no_file_and_no_message_holds_a_password(
    llm: FakeLLM, configure: Configure, write: Write
) -> None:
    config = configure()
    address = str(config.base_url).replace("//", "//me:secret@")
    responses, said = write(rows(2)), []
    judge_responses(responses, replace(config, base_url=address), say=said.append)
    for path in (responses.parent / "responses.judge").iterdir():
        assert "secret" not in path.read_text(encoding="utf-8"), path
    assert "secret" not in "".join(said)
    asked = len(llm.asked)
    judge_responses(responses, config)  # the same judge, whoever asks
    assert len(llm.asked) == asked


def test_runs_of_the_first_version_are_gone_on_with(
    llm: FakeLLM, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = JudgeConfig(judge="openai:llama3:latest", base_url=f"{llm.url}/v1")
    responses, deciding = write(rows(2)), config.deciding()
    monkeypatch.setattr(JudgeConfig, "deciding", lambda self: deciding | {"num_ctx": 2048})
    assert "num_ctx" in judge_responses(responses, config)["settings"]
    monkeypatch.undo()
    results = judge_responses(responses, config)  # which says what the judge was told
    assert results["settings"] == deciding and "num_ctx" not in deciding
    assert len(llm.asked) == 2


def test_trouble_on_the_way_is_borne(
    llm: FakeLLM, configure: Configure, write: Write, waits: list[float]
) -> None:
    llm.faults = [
        answer,
        status(500),
        cut,
        stall,
        garbage,
        broken_off,
        status(429, "slower", Retry_After="17"),
    ]
    results = judge_responses(write(rows(5)), configure(timeout=0.5, concurrency=1, retries=6))
    assert results["summary"]["scored"] == 5
    assert waits == [1, 2, 4, 8, 16, 32]


def test_retry_after_outlasts_the_usual_wait(
    llm: FakeLLM, write: Write, waits: list[float]
) -> None:
    llm.faults = [status(429, "slower", Retry_After="17")]
    assert judge_responses(write(rows(2)), ollama(llm))["summary"]["scored"] == 2
    assert waits == [17]


def test_what_cannot_be_scored_keeps_its_place(
    llm: FakeLLM, configure: Configure, write: Write
) -> None:
    useless = {"1": "eighty-five", "2": "850", "3": "-1", "4": ""}
    good = {"5": "85/100", "6": "Score: 85", "7": "85", "8": '{"score": 85}'}
    texts = useless | good
    llm.answer = lambda prompt: texts[prompt.split("number ")[1][:1]]
    results = judge_responses(write(rows(8)), configure())
    assert [row["score"] for row in results["entries"]] == [None] * 4 + [85] * 4
    assert results["entries"][0]["answers"] == ["eighty-five"] * 3
    summary = results["summary"]
    assert (summary["unscored"], summary["mean"], summary["entries"]) == (4, 85, 8)
    seeds = [body.get("seed") or body["options"]["seed"] for body in llm.asked]
    assert Counter(seeds) == {123: 8, 124: 4, 125: 4}


def test_empty_responses_score_lowest_unasked(llm: FakeLLM, write: Write, tmp_path: Path) -> None:
    entries = rows(4)
    entries[0]["model_response"] = ""
    entries[2]["model_response"] = " \n"
    results = judge_responses(write(entries), ollama(llm))
    assert [row["score"] for row in results["entries"]] == [0, 85, 0, 85]
    assert (results["summary"]["empty"], results["summary"]["unscored"]) == (2, 0)
    assert (results["summary"]["mean"], results["summary"]["mean_without_empty"]) == (42.5, 85)
    assert len(llm.asked) == 2
    template = tmp_path / "q.toml"
    template.write_text('scale = [1, 5]\nprompt = "Rate {response}"', "utf-8")
    llm.answer = lambda prompt: "5"
    results = judge_responses(
        tmp_path / "responses.json", ollama(llm), template=template, out=tmp_path / "other"
    )
    assert [row["score"] for row in results["entries"]] == [1, 5, 1, 5]
    assert llm.asked[-1]["format"]["properties"]["score"]["maximum"] == 5


def test_only_empty_responses_need_no_judge_but_a_check(llm: FakeLLM, write: Write) -> None:
    results = judge_responses(write(rows(2, model_response="")), ollama(llm))
    assert results["summary"]["mean"] == 0 and llm.asked == []


def test_entries_that_are_the_same_have_a_score_each(llm: FakeLLM, write: Write) -> None:
    results = judge_responses(write(rows(1) * 3), ollama(llm))
    assert [row["score"] for row in results["entries"]] == [85] * 3
    assert len(llm.asked) == 3


def test_no_more_questions_at_once_than_asked_for(llm: FakeLLM, write: Write) -> None:
    judge_responses(write(rows(12)), ollama(llm, concurrency=3))
    assert llm.most_busy <= 3


def test_the_first_question_has_the_long_patience(llm: FakeLLM, write: Write) -> None:
    def slow(handler: Handler, body: dict[str, Any]) -> None:
        handler.llm.over.wait(0.4)
        answer(handler, body)

    llm.faults = [slow]
    config = ollama(llm, timeout=0.2, warmup_timeout=5.0, retries=0)
    assert judge_responses(write(rows(2)), config)["summary"]["scored"] == 2
    llm.faults = [answer, slow]
    with pytest.raises(UserError, match="nothing came for 0.2 s"):
        judge_responses(write(rows(2), "again.json"), config)


def test_a_prompt_that_fills_the_context_is_reported(llm: FakeLLM, write: Write) -> None:
    llm.tokens = 64
    results = judge_responses(write(rows(3)), ollama(llm, num_ctx=64))
    assert results["prompts_cut"] == [1, 2, 3]
    report = (write([]).parent / "responses.judge" / "report.md").read_text("utf-8")
    assert "filled the judge's context of 64 tokens" in report


def test_killed_three_times_nothing_is_asked_twice(llm: FakeLLM, write: Write) -> None:
    """Real processes, killed while they wait for an answer."""
    responses = write(rows(110))
    command = [sys.executable, "-m", "groundup", "judge", str(responses)]
    command += ["--base-url", llm.url, "--concurrency", "1"]

    def kill(handler: Handler, body: dict[str, Any]) -> None:
        process.kill()
        process.wait()

    for answered in (1, 30, 50):  # during the first wait after the warm-up too
        llm.faults = [*[answer] * answered, kill]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.communicate(timeout=120)
        assert process.returncode == (1 if os.name == "nt" else -signal.SIGKILL)
    assert sum(llm.answered.values()) == 81
    last = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert last.returncode == 0, last.stderr
    assert "of which 81 are answered already" in last.stderr
    assert len(llm.answered) == 110 and set(llm.answered.values()) == {1}
    assert len(llm.asked) == 110 + 3  # the three that were answered by a kill
    results = json.loads((responses.parent / "responses.judge" / "results.json").read_text("utf-8"))
    assert results["summary"]["scored"] == 110


def test_a_server_that_dies_leaves_what_is_done(
    llm: FakeLLM, write: Write, waits: list[float]
) -> None:
    llm.faults = [*[answer] * 10, *[status(503, "gone")] * 3]
    responses = write(rows(20))
    config = ollama(llm, retries=2, concurrency=1)
    with pytest.raises(UserError, match=r"503 gone; tried 3 times\); 10 of 20 answers are kept in"):
        judge_responses(responses, config)
    assert not (responses.parent / "responses.judge" / "results.json").exists()
    assert judge_responses(responses, config)["summary"]["scored"] == 20
    assert set(llm.answered.values()) == {1}


def test_ctrl_c_says_how_to_go_on(
    llm: FakeLLM, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    responses = write(rows(6))
    add = AnswersFile.add

    def add_then_interrupt(self: AnswersFile, one: Answer) -> None:
        add(self, one)
        if len(self.answers) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(AnswersFile, "add", add_then_interrupt)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        judge_responses(responses, ollama(llm, concurrency=1), say=said.append)
    assert "3 of 6 answers are kept in" in said[-1] and "the same command goes on" in said[-1]
    monkeypatch.setattr(AnswersFile, "add", add)
    assert judge_responses(responses, ollama(llm))["summary"]["scored"] == 6
    assert set(llm.answered.values()) == {1}


def test_a_finished_run_needs_no_judge(llm: FakeLLM, write: Write) -> None:
    responses = write(rows(3))
    first = judge_responses(responses, ollama(llm))
    llm.pages = {"/api/tags": (500, "", "text/plain")}
    assert judge_responses(responses, ollama(llm)) == first
    assert len(llm.asked) == 3


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ("digest", "the judge or its digest"),
        ("judge", "the judge or its digest"),
        ("seed", "the settings"),
        ("template", "the question or its scale"),
        ("responses", "the responses"),
    ],
)
def test_another_run_is_not_gone_on_with(
    llm: FakeLLM, write: Write, tmp_path: Path, change: str, differs: str
) -> None:
    responses = write(rows(3))
    judge_responses(responses, ollama(llm))
    template, config = None, ollama(llm)
    if change == "digest":  # the model was pulled anew, and a question is left to ask
        llm.models = {"llama3:latest": "new"}
        answers = tmp_path / "responses.judge" / "answers.jsonl"
        answers.write_text(
            "".join(answers.read_text("utf-8").splitlines(keepends=True)[:2]), "utf-8"
        )
    elif change == "judge":
        llm.models["phi3:latest"] = "another"
        config = ollama(llm, judge="ollama:phi3")
    elif change == "seed":
        config = ollama(llm, seed=5)
    elif change == "template":
        template = tmp_path / "q.txt"
        template.write_text("Rate {response}", "utf-8")
    else:
        write(rows(3, model_response="else"))
    before = (tmp_path / "responses.judge" / "results.json").read_text("utf-8")
    with pytest.raises(UserError, match=f"holds another run .*{differs}.*use --overwrite"):
        judge_responses(responses, config, template=template)
    assert (tmp_path / "responses.judge" / "results.json").read_text("utf-8") == before
    results = judge_responses(responses, config, template=template, overwrite=True)
    assert results["summary"]["scored"] == 3


def test_overwriting_begins_anew(llm: FakeLLM, write: Write) -> None:
    responses = write(rows(3))
    judge_responses(responses, ollama(llm))
    judge_responses(responses, ollama(llm), overwrite=True)
    assert set(llm.answered.values()) == {2}


def test_a_run_is_kept_if_the_judge_that_should_replace_it_is_away(
    llm: FakeLLM, write: Write, tmp_path: Path
) -> None:
    responses = write(rows(3))
    first = judge_responses(responses, ollama(llm))
    llm.models = {}
    with pytest.raises(UserError, match="ollama pull llama3"):
        judge_responses(responses, ollama(llm), overwrite=True)
    assert judge_responses(responses, ollama(llm)) == first


def test_a_judge_that_is_away_leaves_nothing_behind(
    llm: FakeLLM, write: Write, tmp_path: Path
) -> None:
    llm.models = {}
    with pytest.raises(UserError):
        judge_responses(write(rows(3)), ollama(llm))
    assert [path.name for path in tmp_path.iterdir()] == ["responses.json"]


def test_two_runs_never_share_a_directory(llm: FakeLLM, write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "responses.judge"
    folder.mkdir()
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="in use by another run"):
        judge_responses(write(rows(3)), ollama(llm))
    assert llm.asked == []


def test_foreign_files_are_never_touched(llm: FakeLLM, write: Write, tmp_path: Path) -> None:
    responses = write(rows(3))
    folder = tmp_path / "responses.judge"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine", "utf-8")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="was not made by `groundup judge`"):
            judge_responses(responses, ollama(llm), overwrite=overwrite)
    with pytest.raises(UserError, match="is a file; --out takes a directory"):
        judge_responses(responses, ollama(llm), out=responses)
    assert llm.asked == []


def test_a_server_that_refuses_every_question_ends_the_run(
    llm: FakeLLM, configure: Configure, write: Write
) -> None:
    llm.faults = [status(400, "does not support chat")] * 6  # with the schema and without it
    responses = write(rows(3))
    with pytest.raises(
        UserError, match=r"takes none of the 3 questions \(entry 1: 400 does not support chat\)"
    ):
        judge_responses(responses, configure())
    assert judge_responses(responses, configure())["summary"]["scored"] == 3  # all asked again


def test_the_only_question_refused_is_one_unscored_entry(llm: FakeLLM, write: Write) -> None:
    llm.faults = [status(400, "too long")] * 2
    results = judge_responses(write(rows(1)), ollama(llm))
    assert (results["summary"]["unscored"], results["summary"]["mean"]) == (1, None)
    assert results["entries"][0]["note"] == "400 too long"
    assert "0 of 1 scored" in headline(results)


def refuses(*numbers: int) -> Fault:
    """Refuse the questions about these numbers, answer all others."""

    def fault(handler: Handler, body: dict[str, Any]) -> None:
        prompt = body["messages"][0]["content"]
        if any(f"The number is {number}." in prompt for number in numbers):
            handler.error(400, "too long")
        else:
            answer(handler, body)

    return fault


@pytest.mark.parametrize("long", [(1,), (1, 2), (2, 3), (4,)])
@pytest.mark.parametrize("cut_before", [1, 2, 3, 4])
def test_where_a_run_is_cut_makes_no_difference_to_what_is_refused(
    llm: FakeLLM, write: Write, waits: list[float], long: tuple[int, ...], cut_before: int
) -> None:
    def die(handler: Handler, body: dict[str, Any]) -> None:
        dead = f"The number is {cut_before}." in body["messages"][0]["content"]
        (status(503, "gone") if dead else refuses(*long))(handler, body)

    responses, config = write(rows(4)), ollama(llm, retries=0, concurrency=1)
    llm.faults = [die] * 20
    with pytest.raises(UserError, match="503 gone"):
        judge_responses(responses, config)
    llm.faults = [refuses(*long)] * 20
    results = judge_responses(responses, config)
    told = [(row["score"], row["note"]) for row in results["entries"]]
    assert told == [(None, "400 too long") if n in long else (85, "") for n in range(1, 5)]
    assert set(llm.answered.values()) == {1}
    asked = len(llm.asked)
    assert judge_responses(responses, config) == results and len(llm.asked) == asked


def test_only_refusals_may_be_left(llm: FakeLLM, write: Write, waits: list[float]) -> None:
    responses, config = write(rows(3)), ollama(llm, retries=0, concurrency=1)
    llm.faults = [answer, status(503, "gone")]
    with pytest.raises(UserError, match="1 of 3 answers are kept"):
        judge_responses(responses, config)
    llm.faults = [status(413, "too long")] * 4
    assert [row["score"] for row in judge_responses(responses, config)["entries"]] == [
        85,
        None,
        None,
    ]


def test_a_later_refusal_is_one_unscored_entry(llm: FakeLLM, write: Write) -> None:
    llm.faults = [answer, *[status(400, "too long")] * 2]
    results = judge_responses(write(rows(3)), ollama(llm, concurrency=1))
    assert [row["score"] for row in results["entries"]] == [85, None, 85]
    assert results["entries"][1]["note"] == "400 too long"
    assert results["structured"]  # all that was answered


def test_pairs_are_asked_in_both_orders(llm: FakeLLM, configure: Configure, write: Write) -> None:
    ours = rows(5)
    theirs = [row | {"model_response": row["model_response"] + " Really."} for row in rows(5)]
    theirs[4]["model_response"] = ""

    def verdict(prompt: str) -> str:
        first = "Really.` and the model response B" in prompt  # theirs stands first
        number = prompt.split("number ")[1][:1]
        return {
            "1": '{"winner": "A"}' if first else '{"winner": "B"}',  # theirs
            "2": '{"winner": "B"}' if first else "A",  # ours
            "3": '{"winner": "A"}',  # whichever is first
            "4": "neither" if first else '{"winner": "A"}',
        }[number]

    llm.answer = verdict
    first, second = write(ours), write(theirs, "other.json")
    results = judge_responses(first, configure(), against=second)
    assert [row["winner"] for row in results["entries"]] == ["B", "A", "tie", None, "A"]
    summary = results["summary"]
    assert (summary["wins"], summary["ties"], summary["losses"]) == (2, 1, 1)
    assert (summary["by_order"], summary["unscored"], summary["empty"]) == (1, 1, 1)
    assert summary["win_rate"] == 2.5 / 4
    assert summary["interval"][0] < 2.5 / 4 < summary["interval"][1]
    assert (first.parent / "responses-against-other.judge" / "report.html").exists()


def test_pairs_of_the_same_name_are_told_apart_by_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(against: str) -> str:
        return default_output(Path("a/responses.json"), Path(against)).as_posix()

    assert name("other.json") == "a/responses-against-other.judge"
    assert name("b/responses.json") == "a/responses-against-b-responses.judge"
    assert name("c/responses.jsonl") == "a/responses-against-c-responses.judge"
    monkeypatch.chdir(tmp_path)
    assert name("responses.json") == f"a/responses-against-{tmp_path.name}-responses.judge"


def test_with_a_reference_no_output_is_needed(llm: FakeLLM, write: Write) -> None:
    bare = [{k: v for k, v in row.items() if k != "output"} for row in rows(2)]
    first, second = write(bare), write(bare, "other.json")
    reference = write(rows(2, output="the truth"), "full.json")
    assert judge_responses(first, ollama(llm), reference=reference)["summary"]["scored"] == 2
    assert all("correct output `the truth`" in prompt for prompt in prompts(llm))
    llm.answer = lambda prompt: "tie"
    results = judge_responses(first, ollama(llm), against=second, reference=reference)
    assert results["summary"]["ties"] == 2
    results = judge_responses(write(rows(2), "whole.json"), ollama(llm), against=second)
    assert results["summary"]["ties"] == 2  # the question has the first one's outputs


def test_two_empty_responses_tie(llm: FakeLLM, write: Write) -> None:
    first = write(rows(2, model_response=""))
    entries = rows(2)
    entries[0]["model_response"] = ""
    results = judge_responses(first, ollama(llm), against=write(entries, "other.json"))
    assert [row["winner"] for row in results["entries"]] == ["tie", "B"]
    assert llm.asked == []


def test_two_runs_are_compared_entry_by_entry(llm: FakeLLM, write: Write, tmp_path: Path) -> None:
    scores = iter([50, 60, 70, 80, 55, 65, 60, 90])
    llm.answer = lambda prompt: f'{{"score": {next(scores)}}}'
    config = ollama(llm, concurrency=1)
    judge_responses(write(rows(4), "old.json"), config)
    new = write(rows(4, model_response="new"), "new.json")
    llm.answer = lambda prompt: str(next(scores))
    results = judge_responses(new, config, compare_with=tmp_path / "old.judge")
    comparison = results["comparison"]
    differences = [row["difference"] for row in comparison["entries"]]
    assert differences == [5, 5, -10, 10]
    assert comparison["mean_difference"] == 2.5
    assert (comparison["better"], comparison["worse"], comparison["notes"]) == (3, 1, [])
    assert comparison["interval"][0] < 2.5 < comparison["interval"][1]
    assert "-10 (70 then, 60 now)" in (tmp_path / "new.judge" / "report.md").read_text("utf-8")


def test_unscored_entries_are_left_out_of_a_comparison(
    llm: FakeLLM, write: Write, tmp_path: Path
) -> None:
    config = ollama(llm, concurrency=1, tries=1)
    llm.faults = [says("none")]
    judge_responses(write(rows(3), "old.json"), config)
    other = ollama(llm, concurrency=1, tries=1, seed=9)
    new = write(rows(3), "new.json")
    comparison = judge_responses(new, other, compare_with=tmp_path / "old.judge")["comparison"]
    assert [row["entry"] for row in comparison["entries"]] == [2, 3]
    assert comparison["notes"] == [
        "the two runs have different settings, which alone can make the difference"
    ]


def test_a_comparison_may_have_no_pair_of_scores(
    llm: FakeLLM, write: Write, tmp_path: Path
) -> None:
    llm.answer = lambda prompt: "none"
    judge_responses(write(rows(2), "old.json"), ollama(llm))
    judge_responses(write(rows(2), "new.json"), ollama(llm), compare_with=tmp_path / "old.judge")
    report = (tmp_path / "new.judge" / "report.md").read_text("utf-8")
    assert "no entry has a score in both runs" in report and "## Differences" not in report


def test_what_cannot_be_compared(llm: FakeLLM, write: Write, tmp_path: Path) -> None:
    judge_responses(write(rows(3), "old.json"), ollama(llm))
    old = tmp_path / "old.judge"
    asked = len(llm.asked)
    with pytest.raises(UserError, match="has 3 entries, these responses are 4"):
        judge_responses(write(rows(4)), ollama(llm), compare_with=old)
    with pytest.raises(UserError, match="the instruction or the input differs in entry 2"):
        entries = rows(3)
        entries[1]["instruction"] = "else"
        judge_responses(write(entries), ollama(llm), compare_with=old)
    with pytest.raises(UserError, match="holds no finished run"):
        judge_responses(write(rows(3)), ollama(llm), compare_with=tmp_path)
    with pytest.raises(UserError, match="is not what a run"):
        judge_responses(write(rows(3)), ollama(llm), compare_with=write({"entries": 5}, "x.json"))
    with pytest.raises(UserError, match="leave out one"):
        judge_responses(write(rows(3)), ollama(llm), compare_with=old, against=old)
    template = tmp_path / "q.toml"
    template.write_text('scale = [1, 5]\nprompt = "Rate {response}"', "utf-8")
    with pytest.raises(UserError, match=r"on the scale \(0, 100\), this run is on \(1, 5\)"):
        judge_responses(write(rows(3)), ollama(llm), compare_with=old, template=template)
    assert len(llm.asked) == asked


def test_the_course_s_test_set(llm: FakeLLM, write: Write, data_dir: Path) -> None:
    data = json.loads((data_dir / "instruction-data.json").read_text(encoding="utf-8"))
    test = data[int(len(data) * 0.85) :][:110]
    responses = write([row | {"model_response": row["output"]} for row in test])
    results = judge_responses(responses, ollama(llm), reference=write(test, "test.json"))
    assert results["summary"]["scored"] == 110
    assert max(prompts(llm).values()) == 1
