import json
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.data.instruction_files import read_instructions, split_instructions
from groundup.judge.responses import read_entries
from groundup.tasks.kept_responses import KeptResponses
from groundup.tokenizers import BPETokenizer
from tests.assistants import ENTRIES, save_assistant
from tests.conftest import Run

Fails = Callable[..., str]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(ENTRIES), encoding="utf-8")
    return path


@pytest.fixture
def model(tmp_path: Path, tokenizer: BPETokenizer, data: Path) -> Path:
    return save_assistant(
        tmp_path / "assistant", tokenizer, data=str(data), train_ratio=0.5, test_ratio=0.3
    )


def test_responses_are_written_for_the_judge(run: Run, model: Path, data: Path) -> None:
    out = data.parent / "responses.json"
    result = run("instruct", "respond", model, "--data", data, "--out", out, "--max-new-tokens=8")
    assert result.status == 0, result.err
    assert result.out == f"{out}\n"
    assert "7 responses ended: " in result.err and f"groundup judge {out}" in result.err
    found = json.loads(out.read_text(encoding="utf-8"))
    for entry, row in zip(ENTRIES, found, strict=True):
        assert list(row) == ["instruction", "input", "output", "model_response", "finish_reason"]
        assert row | entry == row
    assert len(read_entries(out, "model_response", data)) == 7
    assert len(read_instructions(out)) == 7


def test_options_reach_what_they_are_for(run: Run, model: Path, data: Path) -> None:
    def texts(name: str, *options: str) -> list[str]:
        out = data.parent / name
        result = run("instruct", "respond", model, "--out", out, "--precision=fp32", *options)
        assert result.status == 0, result.err
        return [row["model_response"] for row in json.loads(out.read_text(encoding="utf-8"))]

    greedy = texts("a.json", "--data", str(data), "--max-new-tokens=9")
    assert texts("b.json", "--max-new-tokens=9") == greedy[3:5]  # the run's own test split
    assert texts("c.json", "--split=train", "--limit=2", "--max-new-tokens=9") == greedy[:2]
    drawn = ["--split=all", "--max-new-tokens=9", "--temperature=1", "--top-k=50", "--seed=1"]
    assert texts("d.json", *drawn) == texts("e.json", *drawn) != greedy
    batches = texts("f.json", "--split=all", "--max-new-tokens=9", "--batch-size=1")
    assert batches == greedy


def test_a_trained_model_answers_the_test_split_of_its_run(
    run: Run, fails: Fails, tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    data, base = tmp_path / "entries.json", save_assistant(tmp_path / "base", tokenizer)
    entries = [{"instruction": f"Say {n}.", "output": str(n)} for n in range(20)]
    data.write_text(json.dumps(entries), "utf-8")
    trained, out = tmp_path / "trained", tmp_path / "r.json"
    options = ["--max-steps=1", "--split-seed=1", "--style=plain", "--sample-answers=0"]
    command = ["instruct", "train", "--model", base, "--data", data, "--out", trained, *options]
    assert run(*command).status == 0
    answer = ["instruct", "respond", trained, "--max-new-tokens=3", "--out"]
    result = run(*answer, out)
    assert result.status == 0 and "note" not in result.err, result.err
    expected = split_instructions(entries, seed=1).test
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [row["output"] for row in found] == [entry["output"] for entry in expected]
    data.write_text(json.dumps(entries[1:]), "utf-8")
    other = tmp_path / "other.json"
    assert "has changed since the model was trained on it" in fails(*answer, other)
    result = run(*answer, other, "--data", data, "--split=test")
    assert result.status == 0 and "is not what the model was trained on" in result.err


def test_ctrl_c_says_how_to_go_on(
    run: Run, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = data.parent / "r.json"
    command = ["instruct", "respond", model, "--data", data, "--out", out, "--max-new-tokens=8"]
    original = KeptResponses.add

    def add(self: KeptResponses, *response: object) -> None:
        if len(self.responses) == 4:
            raise KeyboardInterrupt
        original(self, *response)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(KeptResponses, "add", add)
        stopped = run(*command)
    assert stopped.status == 130
    kept = f"{out}.partial.jsonl"
    assert f"4 of 7 responses are kept in {kept}; the same command goes on" in stopped.err
    going_on = run(*command)
    assert going_on.status == 0 and f"going on with {kept}: 4 of 7" in going_on.err
    assert len(json.loads(out.read_text(encoding="utf-8"))) == 7


def test_mistakes_are_told_in_one_sentence(
    fails: Fails, run: Run, model: Path, model_dir: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    names = {path.name for path in tmp_path.iterdir()}

    def told(*options: object) -> str:
        return fails("instruct", "respond", *options, "--out", out)

    assert "unknown prompt style 'alpacka'; did you mean 'alpaca'?" in told(
        model, "--style=alpacka"
    )
    assert "trained in the prompt style alpaca" in told(model, "--style=phi3")
    assert "there is no file" in told(model, "--data=none.json")
    assert "batch_size is 0" in told(model, "--batch-size=0")
    assert "limit is 0" in told(model, "--limit=0")
    assert "top_k is 0" in told(model, "--top-k=0")
    assert "num-samples" in told(model, "--num-samples=2")
    assert "there is no model directory" in told(tmp_path / "none")
    assert "does not say what it was trained on" in told(model_dir)
    assert "names no prompt style" in told(model_dir, "--data", data)
    data.write_text('[{"instructions": "x"}]', "utf-8")
    assert "entry 1: has no instruction" in told(model)
    assert {path.name for path in tmp_path.iterdir()} == names
    out.write_text("", "utf-8")
    assert "r.json exists; choose another --out" in told(model)


def test_a_model_without_a_style_is_asked_in_the_one_that_is_named(
    run: Run, model_dir: Path, data: Path
) -> None:
    out = data.parent / "r.json"
    options = ["--data", data, "--style=plain", "--max-new-tokens=2", "--limit=2"]
    result = run("instruct", "respond", model_dir, *options, "--out", out)
    assert result.status == 0, result.err
    assert "does not say that it was trained in any prompt style" in result.err
    assert len(json.loads(out.read_text(encoding="utf-8"))) == 2
