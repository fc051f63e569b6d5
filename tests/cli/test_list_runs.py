"""`groundup runs` lists runs: their states, their losses, where they differ."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.cli.list_runs import duration
from groundup.facts import Facts, Schedule
from groundup.files import LOCK, locked
from groundup.tasks.listing import differing_options, list_runs

Fails = Callable[..., str]


def made(
    out: Path,
    steps: int,
    planned: int,
    *,
    resumable: bool = True,
    waited: int = 0,
    **options: object,
) -> Path:
    """What a run leaves, but for its model; the last loss of its validation is no number."""
    last = out / "checkpoints" / "last"
    (last / "training_state").mkdir(parents=True)
    records = [
        {"step": n, "epoch": n / 10, "tokens_seen": 9 * n, "loss": 4 - n / 10, "seconds": 60.0 * n}
        for n in range(1, steps + 1)
    ]
    losses = [2.0, 1.5, 3.0, float("nan")]
    more = [{**records[-1], "running_loss": 3.0, "val_loss": loss} for loss in losses]
    lines = [json.dumps(record) for record in [*records, *more]]
    (out / "metrics.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    facts = Facts(task="pretrain", options=dict(options), schedule=Schedule(planned, 0))
    facts.progress = {"step": steps}
    facts.write(last)
    facts.write(out)
    if resumable:
        state = {"progress": {}, "best": {"step": 1, "score": [-1.5], "waited": waited}}
        (last / "training_state" / "state.json").write_text(json.dumps(state), "utf-8")
    return out


def test_runs_are_listed_with_their_states_and_where_they_differ(tmp_path: Path) -> None:
    common: dict[str, Any] = {"seed": 1, "patience": 3}
    made(tmp_path / "a", 4, 4, learning_rate=1e-3, **common)
    made(tmp_path / "b", 3, 9, learning_rate=3e-4, keep=2, new=1, **common)
    made(tmp_path / "deep" / "c", 2, 9, learning_rate=1e-3, waited=3, **common)
    made(tmp_path / "d", 2, 9, resumable=False, learning_rate=1e-3, **common)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "metrics.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "no-run").mkdir()
    runs = {run.path.name: run for run in list_runs(tmp_path)}
    assert {name: run.state for name, run in runs.items()} == {
        "a": "finished",
        "b": "can resume",
        "c": "stopped early",
        "d": "nothing to resume",
        "e": "damaged",
    }
    b = runs["b"]
    assert (b.step, b.steps, b.val_loss, b.train_loss, b.seconds) == (3, 9, 1.5, 3.0, 180.0)
    assert "line 1 is no record" in runs["e"].problem
    differing = differing_options([run for run in runs.values() if run.task])
    assert differing[b.path] == {"learning_rate": 3e-4}
    with locked(tmp_path / "b" / LOCK, "busy"):
        assert {run.state for run in list_runs(tmp_path / "b")} == {"running"}
    assert {run.state for run in list_runs(tmp_path / "b")} == {"can resume"}


def test_the_table(
    run: Callable[..., object], fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "runs" / "a", 4, 4, learning_rate=1e-3)
    made(tmp_path / "runs" / "b", 3, 9, learning_rate=3e-4)
    monkeypatch.chdir(tmp_path)
    result = run("runs")
    lines = [" ".join(line.split()) for line in result.out.splitlines()]  # pyright: ignore
    assert lines == [
        "run task state steps val loss train loss time differs in",
        "a pretrain finished 4 1.500 3.000 4 min learning_rate 0.001",
        "b pretrain can resume 3 of 9 1.500 3.000 3 min learning_rate 0.0003",
    ]
    (tmp_path / "empty").mkdir()
    assert "there are no runs in empty" in fails("runs", "empty")
    assert "there is no directory 'nowhere'" in fails("runs", "nowhere")


def test_times_for_people() -> None:
    assert [duration(s) for s in (12.3, 300, 7200)] == ["12 s", "5 min", "2.0 h"]
