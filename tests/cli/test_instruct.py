"""`groundup instruct train`: what it accepts and prints, and every mistake that it answers."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from groundup.options import option_fields
from groundup.tasks.config import InstructConfig
from groundup.tokenizers import BPETokenizer
from groundup.train.tracking import read_metrics
from groundup.train.trainer import Trainer
from tests.assistants import save_assistant
from tests.conftest import Run, facts_of
from tests.labelled import save_classifier

Fails = Callable[..., str]

QUICK = "--style=plain --batch-size=4 --epochs=1 --precision=fp32 --sample-answers=0".split()
ENTRIES = [{"instruction": f"Say {n}.", "input": "", "output": f"{n} foxes"} for n in range(20)]
"""17 to train on, 2 to test, 1 to validate."""


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the training."""
    monkeypatch.setattr("groundup.tasks.run.plot_run", lambda out: [])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "data.json", ENTRIES)


@pytest.fixture
def base(tmp_path: Path, tokenizer: BPETokenizer) -> Path:
    """A model whose context has room for alpaca's prompt."""
    return save_assistant(tmp_path / "base", tokenizer, None)


def write(path: Path, entries: object) -> Path:
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def test_a_run_says_what_it_does_and_what_to_try_next(
    run: Run, tmp_path: Path, base: Path, data: Path
) -> None:
    out = tmp_path / "bot"
    begin = ("instruct", "train", "--model", base, "--data", data, "--out", out)
    result = run(*begin, "--batch-size=4", "--epochs=1")
    assert result.status == 0, result.err
    for expected in (
        "entries: 17 to train on, 1 to validate, 2 to test",
        "prompt style alpaca",
        "step 5/5, epoch 1.00: train",
        "  Say 19. -> ",
        f"model:  {out}",
        f"groundup instruct chat {out}",
        f"groundup instruct respond {out} --out responses.json",
        "groundup judge responses.json --judge",
    ):
        assert expected in result.err, expected
    assert result.out == ""
    assert facts_of(out).prompt_style == "alpaca"


def test_what_it_trained_answers_and_chats(
    run: Run, tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, file = tmp_path / "bot", tmp_path / "r.json"
    flags = ["--train=lora", "--train-ratio=0.5", "--test-ratio=0.25", "--split-seed=3"]
    train = ("instruct", "train", "--model", base, "--data", data, *QUICK, *flags)
    assert run(*train, "--out", out).status == 0
    for model in (out, out / "adapter"):
        result = run("instruct", "respond", model, "--out", file, "--max-new-tokens=3")
        assert result.status == 0, result.err
        found = json.loads(file.read_text(encoding="utf-8"))
        entries = [{name: row[name] for name in ENTRIES[0]} for row in found]
        assert len(entries) == 5 and all(entry in ENTRIES for entry in entries)
        assert entries != ENTRIES[10:15]
        file.unlink()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Say 3.\n"), encoding="utf-8"))
    result = run("instruct", "chat", out, "--max-new-tokens=3")
    assert result.status == 0 and "never instruction-tuned" not in result.err


def test_options_come_from_recipe_file_and_flags(
    run: Run, tmp_path: Path, base: Path, data: Path
) -> None:
    out, config = tmp_path / "bot", tmp_path / "run.toml"
    config.write_text(f'style = "chatml"\ndata = "{data}"\n[x]\nbatch-size = 2\n', "utf-8")
    flags = ["--max-length=320", "--batch-size=5", "--max-steps=1"]
    begin = ("instruct", "train", "--recipe=course", "--config", config, "--model", base)
    result = run(*begin, "--out", out, *flags)
    assert result.status == 0, result.err
    saved = facts_of(out).options
    expected = {"style": "chatml", "batch_size": 5, "lr_schedule": "constant", "data": str(data)}
    assert {name: saved[name] for name in expected} == expected


def test_going_on_after_ctrl_c(
    run: Run, fails: Fails, tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    begin = ("instruct", "train", "--model", base, "--data", data, *QUICK, "--drop-rate=0.1")
    assert run(*begin, "--out", whole).status == 0

    class Interrupted(Trainer):
        def _set_learning_rate(self) -> float:
            if self.progress.step == 2:
                self.stop.request()
            return super()._set_learning_rate()

    with monkeypatch.context() as patch:
        patch.setattr("groundup.tasks.run.Trainer", Interrupted)
        stopped = run(*begin, "--out", broken)
    assert stopped.status == 130
    assert f"instruct train --out {broken} --resume" in stopped.err
    again = ("instruct", "train", "--out", broken, "--resume")
    assert "would change style 'plain' to 'phi3'" in fails(*again, "--style=phi3")
    other = write(tmp_path / "other.json", ENTRIES[1:])
    assert "was trained on another text" in fails(*again, "--data", other)
    resumed = run(*again)
    assert resumed.status == 0, resumed.err
    a, b = (load_file(folder / "model.safetensors") for folder in (whole, broken))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert read_metrics(broken)[-1]["step"] == 5
    assert f"{broken} exists; use --resume" in fails(*begin, "--out", broken)


NOT_TRAINED: list[tuple[list[str], str]] = [
    (["--data={data}"], "an assistant begins as a language model: name one with --model"),
    (["--model={model}"], "no data was given; name a file, or one of .*instructions"),
    (["--model={model}", "--data=nowhere"], "there is no file 'nowhere'"),
    (["--model={model}", "--data=instruction"], "did you mean 'instructions'"),
    (["--model=nowhere", "--data={data}"], "there is no model directory 'nowhere'"),
    (["--model={spam}", "--data={data}"], r"is a classifier \(ham, spam\), not a language model"),
    (["--style=alpacka"], "unknown prompt style 'alpacka'; did you mean 'alpaca'.*chatml"),
    (["--train-ratio=0.95"], "train_ratio 0.95 and test_ratio 0.1 are more than everything"),
    (["--max-length=321", "--model={model}", "--data={data}"], "max_length is 321.* is 320"),
    (["--max-length=1.5"], "1.5"),
    (["--train-on=answers"], "train-on"),
    (["--train=last"], "last"),
    (["--recipe=cours"], "unknown recipe 'cours'; did you mean 'course'"),
    (["--lora-rank=4"], "no effect here: --lora-rank .for --train lora.; leave"),
    (["--model={model}", "--tokenizer=gpt2"], "Unknown option: --tokenizer"),
    (["--model={model}", "--context-length=9"], "Unknown option: --context-length"),
    (["--model={model}", "--preset=nano"], "Unknown option: --preset"),
    (["--resume"], "holds no run to resume"),
]


@pytest.mark.parametrize(("flags", "message"), NOT_TRAINED)
def test_options_that_make_no_sense(
    fails: Fails,
    tmp_path: Path,
    tokenizer: BPETokenizer,
    base: Path,
    data: Path,
    flags: list[str],
    message: str,
) -> None:
    spam = save_classifier(tmp_path / "spam", tokenizer)
    paths = {"data": data, "model": base, "spam": spam}
    before = sorted(tmp_path.rglob("*"))
    said = fails(
        *("instruct", "train", "--out", tmp_path / "bot", "--epochs=1"),
        *(flag.format(**paths) for flag in flags),
    )
    assert re.search(message, said), said
    assert sorted(tmp_path.rglob("*")) == before


BAD_DATA: list[tuple[Any, str]] = [
    ([{"instruction": "a", "output": ""}, {"output": "b"}], "entry 1: the output is empty; entry"),
    ([], "has no entries"),
    ([{"messages": [{"role": "user", "content": "a"}]}], "expected the assistant's response"),
    (ENTRIES[:1], "of 1 entries leaves none to train on"),
]


@pytest.mark.parametrize(("entries", "message"), BAD_DATA)
def test_bad_data(fails: Fails, tmp_path: Path, base: Path, entries: Any, message: str) -> None:
    data, out = write(tmp_path / "bad.json", entries), tmp_path / "bot"
    said = fails("instruct", "train", "--model", base, "--data", data, "--out", out)
    assert message in said, said
    assert not out.exists()


def test_help_has_every_option(run: Run) -> None:
    shown = run("instruct", "train", "--help").out
    for name in option_fields(InstructConfig):
        assert f"--{name.replace('_', '-')}" in shown, name
