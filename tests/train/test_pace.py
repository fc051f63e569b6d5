import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.data.batching import Batch, ShuffledBatches
from groundup.model.gpt import GPTModel
from groundup.runtime import Runtime
from groundup.tasks.config import PretrainConfig
from groundup.tasks.pretrain import pretrain
from groundup.train.objective import NextToken
from groundup.train.pace import Pace, find_pace, steps_within
from groundup.train.tracking import is_evaluation, read_metrics
from tests.conftest import TEXT, facts_of, tiny_config

CPU = Runtime(torch.device("cpu"), "fp32", "a test")


def batches() -> ShuffledBatches:
    ids = torch.randint(0, 300, (12, 17), generator=torch.Generator().manual_seed(9))
    return ShuffledBatches(12, 4, 1, lambda rows: (ids[list(rows), :-1], ids[list(rows), 1:]))


class Timed(NextToken):
    """Takes so many seconds, whatever the threads."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds = seconds

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        time.sleep(self.seconds[torch.get_num_threads()])
        return next(model.parameters()).sum()


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(1)


def test_nothing_but_the_threads_changes(four_threads: None) -> None:
    model, data = GPTModel(tiny_config(drop_rate=0.2)).init_gpt2().eval(), batches()
    data.next(2)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    position, numbers = data.state_dict(), torch.get_rng_state()
    find_pace(model, data, NextToken(), CPU)
    assert data.state_dict() == position and torch.equal(torch.get_rng_state(), numbers)
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not model.training


@pytest.mark.parametrize(
    ("seconds", "threads"),
    [
        ({4: 0.03, 2: 0.01, 1: 0.03}, 2),
        ({4: 0.03, 2: 0.03, 1: 0.005}, 1),
        ({4: 0.02, 2: 0.04, 1: 0.06}, 4),
        ({4: 0.040, 2: 0.039, 1: 0.039}, 4),  # not clearly faster: noise decides nothing
    ],
)
def test_fewer_threads_are_taken_where_they_are_clearly_faster(
    four_threads: None, seconds: dict[int, float], threads: int
) -> None:
    pace = find_pace(GPTModel(tiny_config()), batches(), Timed(seconds), CPU)
    assert pace.threads == threads == torch.get_num_threads()
    assert seconds[threads] < pace.seconds < 4 * seconds[threads]
    assert f"threads: {threads} (a step with 4: " in pace.note


def test_the_users_own_number_stays(four_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    seconds = {4: 0.03, 2: 0.001, 1: 0.001}
    pace = find_pace(GPTModel(tiny_config()), batches(), Timed(seconds), CPU)
    assert pace.threads == 4 and pace.note == ""


def test_steps_that_fit_into_minutes() -> None:
    assert steps_within(1, Pace(1, 0.1), eval_batches=0, eval_freq=100, batches=1) == 600
    # 30 batches to measure on, each a third of one to train on, every 10 steps: twice as long.
    assert steps_within(1, Pace(1, 0.1), eval_batches=30, eval_freq=10, batches=1) == 300
    assert steps_within(0.001, Pace(1, 9.0), eval_batches=0, eval_freq=1, batches=1) == 1


SHAPE: dict[str, Any] = {"vocab_size": 300, "context_length": 16, "emb_dim": 32, "n_heads": 4}


def test_a_run_of_so_many_minutes_plans_its_steps_and_keeps_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("groundup.tasks.length.find_pace", lambda *a, **k: Pace(1, 0.25))
    options = {"batch_size": 4, "minutes": 0.05, "sample_tokens": 0, "eval_iter": 1, "keep": 9}
    options |= {"precision": "fp32", "eval_freq": 100, "save_freq": 5}
    config = PretrainConfig(**options)
    pretrain([TEXT * 20], tmp_path, config, SHAPE, say=said.append)
    assert any("plan: 11 steps" in line for line in said)
    steps = [r["step"] for r in read_metrics(tmp_path) if not is_evaluation(r)]
    assert len(steps) == 11 and facts_of(tmp_path).options["max_steps"] == 11
    assert facts_of(tmp_path).options["threads"] == torch.get_num_threads()


def test_the_number_of_threads_is_saved_and_kept_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    inner = NextToken.loss

    def watched(self: NextToken, model: nn.Module, batch: Batch) -> Tensor:
        used.append(torch.get_num_threads())
        return inner(self, model, batch)

    monkeypatch.setattr(NextToken, "loss", watched)
    options = {"batch_size": 4, "max_steps": 2, "threads": 2, "sample_tokens": 0}
    before = torch.get_num_threads()
    quiet: dict[str, Any] = {"say": lambda text: None}
    pretrain([TEXT * 20], tmp_path, options, SHAPE, **quiet)
    assert set(used) == {2} and torch.get_num_threads() == before
    used.clear()
    pretrain([TEXT * 20], tmp_path, {"max_steps": 4}, resume=True, **quiet)
    assert set(used) == {2} and torch.get_num_threads() == before
