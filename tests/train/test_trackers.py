"""TensorBoard and Weights & Biases are told each number once, also by a run that goes on."""

import importlib.util
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from groundup.errors import UserError
from groundup.train.config import TrainConfig
from groundup.train.trackers import check_trackers, trackers
from groundup.train.tracking import MetricsFile, SamplesFile, read_metrics
from tests.conftest import Run, small

OPTIONS = {"learning_rate": 0.5, "patience": None, "betas": [0.9, 0.95]}


def step(number: int, **more: float) -> dict[str, float]:
    times = {"seconds": number / 10, "tokens_per_second": 100.0 + number}
    rates = {"learning_rate": 0.1, "grad_norm": 2.0}
    return {"step": number, "epoch": number / 10, "loss": 5.0 - number, **rates, **times, **more}


def train(
    out: Path, config: TrainConfig, steps: range, *, crash: bool = False, resumed: int = 0
) -> None:
    """What the loop tells of these steps, with an evaluation and a sample after each even one."""

    class Crash(BaseException):
        pass

    metrics = MetricsFile(out, resumed)
    metrics.begin()
    samples = SamplesFile(out, resumed)
    try:
        with trackers(out, config, OPTIONS, metrics) as made:
            for number in steps:
                for listener in (metrics, *made):
                    listener.on_step(step(number))
                if number % 2 == 0:
                    record = step(number, running_loss=4.5, val_loss=6.0 - number)
                    for listener in (metrics, *made):
                        listener.on_evaluate(record)
                    for keeper in (samples, *made):
                        keeper.add(record, "The <b>", f"fox {number}")
            if crash:
                raise Crash
    except Crash:
        pass


def tensorboard(out: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = {"scalars": 0, "tensors": 0}
    return EventAccumulator(str(out / "tensorboard"), everything).Reload()


def scalars(out: Path, name: str) -> list[tuple[int, Any]]:
    return [(e.step, pytest.approx(e.value)) for e in tensorboard(out).Scalars(name)]


def texts(out: Path, name: str) -> dict[int, str]:
    found = tensorboard(out).Tensors(f"{name}/text_summary")
    return {e.step: e.tensor_proto.string_val[0].decode() for e in found}


def offline_rows(out: Path) -> Iterator[tuple[str, str, Any]]:
    """The records of Weights & Biases' files (LevelDB's log format), with the run's id."""
    from wandb.proto import wandb_internal_pb2 as messages

    for path in sorted((out / "wandb").glob("offline-run-*/run-*.wandb")):
        data, at, part = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if (left := 32768 - at % 32768) < 7:
                at += left
                continue
            length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
            part, at = part + data[at + 7 : at + 7 + length], at + 7 + length
            if kind in (1, 4):  # whole, or the last part
                row, part = messages.Record.FromString(part), b""  # pyright: ignore
                what = row.WhichOneof("record_type")
                yield path.stem, what, getattr(row, what)


def history(out: Path) -> list[dict[str, Any]]:
    rows = [row for _, what, row in offline_rows(out) if what == "history"]
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row.item}
        for row in rows
    ]


def test_tensorboard_has_every_number_once_after_a_crash(tmp_path: Path) -> None:
    config = TrainConfig(tensorboard=True)
    train(tmp_path, config, range(1, 6), crash=True)
    train(tmp_path, config, range(4, 8), resumed=3)  # saved after 3
    for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second"):
        assert scalars(tmp_path, name) == [(n, step(n)[name]) for n in range(1, 8)]
    assert scalars(tmp_path, "val_loss") == [(2, 4.0), (4, 2.0), (6, 0.0)]
    assert texts(tmp_path, "sample") == {n: f"    The <b>fox {n}\n" for n in (2, 4, 6)}
    about = texts(tmp_path, "options")[0]
    assert "| learning_rate | 0.5 |" in about and "| betas | [0.9, 0.95] |" in about
    assert "patience" not in about


def test_tensorboard_that_is_switched_on_later_shows_the_beginning_too(tmp_path: Path) -> None:
    train(tmp_path, TrainConfig(), range(1, 4))
    train(tmp_path, TrainConfig(tensorboard=True), range(4, 6), resumed=3)
    assert scalars(tmp_path, "loss") == [(n, 5.0 - n) for n in range(1, 6)]
    assert list(texts(tmp_path, "sample")) == [2, 4]


def test_wandb_has_every_number_once_under_one_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(tmp_path, TrainConfig(), range(1, 3))
    config = TrainConfig(wandb="project")
    train(tmp_path, config, range(3, 6), resumed=2)
    about = json.loads((tmp_path / "wandb" / "run.json").read_text(encoding="utf-8"))
    assert (about["told"], about["open"]) == (5, False)
    # As after a crash that undid steps 4 and 5.
    (tmp_path / "wandb" / "run.json").write_text(
        json.dumps(about | {"told": 0, "open": True}), encoding="utf-8"
    )
    train(tmp_path, config, range(4, 8), resumed=3)
    rows = history(tmp_path)
    assert [row["_step"] for row in rows] == list(range(1, 8))
    for row in rows:
        number = row["_step"]
        for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second"):
            assert row[name] == step(number)[name]
        assert row.get("val_loss") == (None if number % 2 else 6.0 - number)
        assert ("sample/path" in row) == (number % 2 == 0)
    pages = {path.read_text(encoding="utf-8") for path in tmp_path.rglob("sample_*.html")}
    assert pages == {f"<pre>The &lt;b&gt;fox {number}</pre>" for number in (2, 4, 6)}
    runs = [row for _, what, row in offline_rows(tmp_path) if what == "run"]
    assert {(run.run_id, run.project) for run in runs} == {(about["id"], "project")}
    config_of = {u.key: json.loads(u.value_json) for u in runs[0].config.update}
    assert config_of["learning_rate"] == 0.5 and config_of["betas"] == "[0.9, 0.95]"


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(TrainConfig(tensorboard=True, wandb="project"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_trackers(TrainConfig())
    with pytest.raises(UserError, match=r'--tensorboard needs .*pip install "groundup\[tensorb'):
        check_trackers(TrainConfig(tensorboard=True))
    with pytest.raises(UserError, match=r'--wandb needs .*pip install "groundup\[wandb\]"'):
        check_trackers(TrainConfig(wandb="project"))


def test_nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refuse(**given: object) -> None:
        raise wandb.Error("api_key not configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match="api_key not configured; log in .* WANDB_MODE=offline"):
        train(tmp_path, TrainConfig(wandb="project"), range(1, 2))


def test_the_flags_of_a_run(
    run: Run, fails: Callable[..., str], tmp_path: Path, text_file: Path
) -> None:
    out, given = tmp_path / "run", small("--max-steps=3", "--sample-tokens=3", "--tensorboard")
    done = run("pretrain", text_file, "--out", out, *given)
    assert done.status == 0, done.err
    assert run("pretrain", "--out", out, "--resume", "--max-steps=5").status == 0
    losses = [(r["step"], r["loss"]) for r in read_metrics(out) if "running_loss" not in r]
    assert scalars(out, "loss") == losses and [s for s, _ in losses] == [1, 2, 3, 4, 5]
    assert 1 in texts(out, "sample")
