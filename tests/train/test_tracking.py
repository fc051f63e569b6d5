import json
import sys
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.train.tracking import (
    METRICS,
    Latest,
    MetricsFile,
    ProgressBar,
    RunningLoss,
    is_evaluation,
    read_metrics,
)
from tests.terminal import in_terminal


def record(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "epoch": 0.0, "loss": float(step), **more}


def test_metrics_are_lines_of_json_and_resuming_drops_what_came_later(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path)
    for step in (1, 2, 3):
        metrics.on_step(record(step))
    metrics.on_evaluate(record(3, running_loss=2.0, val_loss=2.5))
    lines = (tmp_path / METRICS).read_text("utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 3]
    resumed = MetricsFile(tmp_path, resume_step=2)
    assert [r["step"] for r in resumed.records] == [1, 2]
    assert len(read_metrics(tmp_path)) == 4  # nothing is dropped before the run begins
    resumed.begin()
    resumed.on_step(record(3, again=1.0))
    assert read_metrics(tmp_path)[-1] == record(3, again=1.0)
    MetricsFile(tmp_path).begin()
    assert read_metrics(tmp_path) == []


def test_a_torn_last_line_is_left_out_and_damage_elsewhere_is_named(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    path.write_text('{"step": 1, "epoch": 0.5}\n{"step": 2, "lo', "utf-8")
    assert read_metrics(tmp_path) == [{"step": 1, "epoch": 0.5}]
    path.write_text('{"step": 1, "epoch": 0.5}\nnonsense\n{"step": 3, "epoch": 1}\n', "utf-8")
    with pytest.raises(UserError, match="line 2 is no record"):
        read_metrics(tmp_path)
    assert read_metrics(tmp_path / "none") == []


def test_the_first_versions_name_of_the_running_loss_is_read(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text(
        '{"step": 1, "epoch": 0.5, "loss": 3.0, "train_loss": 2.5}\n', "utf-8"
    )
    assert read_metrics(tmp_path) == [{"step": 1, "epoch": 0.5, "loss": 3.0, "running_loss": 2.5}]
    assert is_evaluation(read_metrics(tmp_path)[0])


def test_the_running_loss_is_the_mean_of_the_last_steps_also_after_a_resume() -> None:
    records = [record(step) for step in range(1, 31)]
    records.insert(10, record(10, running_loss=99.0))  # an evaluation is not a step
    running = RunningLoss()
    for r in records:
        if "running_loss" not in r:
            running.on_step(r)
    assert running.mean() == sum(range(11, 31)) / 20
    resumed = RunningLoss(records[:16])
    for r in records[16:]:
        resumed.on_step(r)
    assert resumed.mean() == running.mean()


def test_latest_keeps_the_newest_of_everything() -> None:
    latest = Latest([record(1, val_loss=5.0)])
    latest.on_step(record(2))
    assert latest.record == record(2, val_loss=5.0)


def test_the_live_bar_shows_speed_losses_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    bar = ProgressBar(total_steps=10)
    bar.bar.ncols, bar.bar.mininterval = 80, 0
    bar.on_step(record(1, tokens_per_second=1234.5))
    bar.on_evaluate(record(1, running_loss=2.0, val_loss=2.5))
    bar.on_step(record(2, tokens_per_second=16234.5))
    bar.close()
    line = capsys.readouterr().err.split("\r")[-1].strip()
    assert "2/10" in line and "16,234 tok/s, train 2.000, val 2.500]" in line
    assert len(line) <= 80 and "<" in line  # elapsed < left


PROGRAM = """
from groundup.train.tracking import ProgressBar
bar = ProgressBar(1000, done=200)
bar.bar.mininterval = 0
step = {"step": 201, "epoch": 1.5, "loss": 2.0, "tokens_per_second": 16234.0}
bar.on_evaluate(step | {"running_loss": 2.0, "val_loss": 2.5, "val_accuracy": 0.953})
bar.say("\\x1b[31mred")
bar.on_step(step)
bar.close()
"""


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (60, "16,234 tok/s]"),
        (80, "16,234 tok/s, train 2.000, val 2.500]"),
        (100, "16,234 tok/s, train 2.000, val 2.500, accuracy 95.3%]"),
    ],
)
def test_the_bar_keeps_its_end_and_evaluations_stand_above_it(columns: int, shown: str) -> None:
    status, written = in_terminal(sys.executable, "-c", PROGRAM, columns=columns)
    lines = [line.strip() for line in written.replace("\r", "\n").splitlines() if line.strip()]
    assert status == 0, written
    told = "step 201/1000, epoch 1.50: train 2.000, val 2.500, accuracy 95.3%, 16,234 tok/s"
    assert told in lines and "\\x1b[31mred" in lines
    assert lines[-1].endswith(shown) and len(lines[-1]) <= columns


def test_without_a_terminal_each_evaluation_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(total_steps=10)
    bar.on_step(record(1, tokens_per_second=5.0))
    bar.on_evaluate(record(1, running_loss=2.0, val_loss=2.5, tokens_per_second=5.0))
    bar.close()
    assert capsys.readouterr().err == "step 1/10, epoch 0.00: train 2.000, val 2.500, 5 tok/s\n"
