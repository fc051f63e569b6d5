"""`groundup sweep`: what it makes, how it goes on, and every mistake that it answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.cli.app import app
from groundup.train.tracking import MetricsFile, read_metrics
from tests.conftest import LAST, SMALL, Run, facts_of

Fails = Callable[..., str]
COMMON = [*SMALL, "--max-steps=3", "--eval-freq=3", "--grad-clip=0"]


def sweep_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "sweep.json").read_text("utf-8"))


def states(out: Path) -> dict[str, str]:
    return {run["name"]: run["state"] for run in sweep_of(out)["runs"]}


def test_a_sweep_goes_past_a_diverged_run_and_goes_on_where_it_was(
    run: Run, fails: Fails, tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "sweep"
    command = ["pretrain", text_file, "--out", out, *COMMON]

    class Killed(BaseException):
        """Nothing catches it."""

    class Dies(MetricsFile):
        def on_step(self, record: dict[str, float]) -> None:
            super().on_step(record)
            if record["step"] == 3:
                raise Killed

    values = "--learning-rate=1e30,1e-3"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("groundup.tasks.run.MetricsFile", Dies)
        run("sweep", values, *command, "--save-freq=2")
    bad, good = "learning_rate=1e+30", "learning_rate=0.001"
    assert states(out) == {bad: "diverged", good: "not begun"}
    assert facts_of(out / good / LAST).progress["step"] == 2
    done = run("sweep", values, *command, "--save-freq=2")
    assert done.status == 0, done.err
    assert f"run 2 of 2: {good} (goes on)" in done.err and "run 1 of 2" not in done.err
    assert states(out) == {bad: "diverged", good: "finished"}
    table = [line for line in done.out.splitlines() if line.startswith("learning")]
    assert [line.split()[0] for line in table] == [good, bad]  # the best first
    assert "training has diverged" in done.err
    assert (out / "runs.png").read_bytes()[:4] == b"\x89PNG"
    entry = sweep_of(out)["runs"][1]
    records = read_metrics(out / good)
    assert [r["step"] for r in records if "running_loss" not in r] == [1, 2, 3]
    assert entry["options"] == {"learning_rate": 0.001} and entry["step"] == 3
    assert entry["val_loss"] == min(r["val_loss"] for r in records if "val_loss" in r)
    assert facts_of(out / good).options["learning_rate"] == 1e-3
    before = (out / good / "model.safetensors").stat().st_mtime_ns
    again = run("sweep", values, *command, "--save-freq=2")
    assert again.status == 0 and "run 1 of" not in again.err and "run 2 of" not in again.err
    assert (out / good / "model.safetensors").stat().st_mtime_ns == before
    message = fails("sweep", "--seed=1,2", *command, "--save-freq=2")
    assert "holds another sweep, over learning_rate of `pretrain" in message
    assert "holds no sweep" in fails("sweep", values, *command, "--out", tmp_path)


def test_each_combination_is_a_command_that_the_task_understands(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[tuple[str, dict[str, Any]]] = []
    asked = app.parse_args

    def remember(words: list[str], **how: Any) -> int:
        command, bound, _ = asked(words, **how)
        parsed.append((command.__name__, dict(bound.arguments)))
        return 0

    values = ["--stratify", "true,false", "--max-length=8,none", "--learning-rate=1e-3"]
    common = ["classify", "train", "--data=t.csv", "--epochs=2", "--out", tmp_path / "sweep"]
    with monkeypatch.context() as patch:
        patch.setattr("groundup.cli.sweep.app", remember)
        assert run("sweep", *values, *common).status == 0
    options = ("stratify", "max_length", "learning_rate", "data", "epochs")
    assert [(name, *(given[option] for option in options)) for name, given in parsed] == [
        ("train", stratify, length, 1e-3, "t.csv", 2)
        for stratify in (True, False)
        for length in (8, None)
    ]
    outs = [given["out"].name for _, given in parsed]
    assert outs[1] == "stratify=True,max_length=None,learning_rate=0.001"
    assert list(states(tmp_path / "sweep")) == outs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no command that trains is named (pretrain, classify, instruct)"),
        (["pretrain", "t", "--out=o"], "no option with values is named before pretrain"),
        (["--seed", "pretrain", "t", "--out=o"], "--seed has no values; give some with commas"),
        (["--seed=", "pretrain", "t", "--out=o"], "--seed has no values"),
        (["--seed=,", "pretrain", "t", "--out=o"], "--seed has no values"),
        (["--seed=1,,2", "pretrain", "t", "--out=o"], "--seed: '' is not a whole number"),
        (["--seed=1,two", "pretrain", "t", "--out=o"], "--seed: 'two' is not a whole number"),
        (["--learning-rate=1,x", "pretrain", "t", "--out=o"], "'x' is not a number"),
        (["--learning-rate=nan", "pretrain", "t", "--out=o"], "'nan' is not a number"),
        (["--decay=all,some", "pretrain", "t", "--out=o"], "'some' is not one of matrices, all"),
        (["--learning-rate=1,-1", "pretrain", "t", "--out=o"], "--learning-rate is -1; expected"),
        (["--sed=1,2", "pretrain", "t", "--out=o"], "no option --sed; did you mean '--seed'?"),
        (["--stride=1,2", "instruct", "train", "--out=o"], "instruct has no option --stride"),
        (["--emb-dim=1,2", "instruct", "train", "--out=o"], "instruct has no option --emb-dim"),
        (["--seed=1,1", "pretrain", "t", "--out=o"], "--seed has a value twice"),
        (["--seed=1", "--seed=2", "pretrain", "t", "--out=o"], "--seed is given twice"),
        (["--seed=1,2", "pretrain", "t", "--seed=3", "--out=o"], "is given before and after"),
        (["--seed=1,2", "pretrain", "t"], "--out is missing: the sweep's directory"),
        (["--seed=1,2", "pretrain", "t", "--out=o", "--resume"], "leave out --resume"),
        (["--seed=1,2", "pretrain", "-", "--out=o"], "stdin can be read once; name a file"),
        (["--seed=1,2", "classify", "predict", "m"], "the one that trains is `classify train`"),
        (["seed=1,2", "pretrain", "t", "--out=o"], "'seed=1,2' is neither an option"),
    ],
)
def test_mistakes(
    fails: Fails,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails("sweep", *words)
    assert not list(tmp_path.iterdir())
