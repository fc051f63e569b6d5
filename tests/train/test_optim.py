from typing import Any

import pytest
import torch

from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.train.config import TrainConfig
from groundup.train.optim import build_optimizer, build_schedule
from tests.conftest import tiny_config


def test_only_matrices_decay_unless_asked_otherwise() -> None:
    model = GPTModel(tiny_config(tie_weights=True))
    groups = build_optimizer(model, TrainConfig(weight_decay=0.1)).param_groups
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert all(p.dim() >= 2 for p in groups[0]["params"])
    assert all(p.dim() == 1 for p in groups[1]["params"])
    assert sum(p.numel() for g in groups for p in g["params"]) == model.num_parameters()
    groups = build_optimizer(model, TrainConfig(decay="all")).param_groups
    assert len(groups) == 1


def test_frozen_parameters_are_left_out() -> None:
    model = GPTModel(tiny_config())
    model.requires_grad_(False)
    model.final_norm.requires_grad_(True)
    groups = build_optimizer(model, TrainConfig()).param_groups
    assert sum(len(g["params"]) for g in groups) == 2


def test_warmup_then_cosine() -> None:
    config = TrainConfig(learning_rate=1.0, min_learning_rate=0.1)
    lr = build_schedule(config, 101, warmup=10)
    assert [lr(0), lr(4), lr(9)] == pytest.approx([0.1, 0.5, 1.0])
    assert lr(10) == pytest.approx(1.0)
    assert lr(55) == pytest.approx(0.55)
    assert lr(100) == pytest.approx(0.1)
    assert lr(500) == pytest.approx(0.1)
    assert all(lr(i) >= lr(i + 1) for i in range(10, 100))


def test_cosine_is_pytorchs() -> None:
    config = TrainConfig(learning_rate=1.0, min_learning_rate=0.1)
    lr = build_schedule(config, 51, warmup=0)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.1)
    for step in range(51):
        assert lr(step) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_a_constant_rate_after_the_warmup() -> None:
    lr = build_schedule(TrainConfig(learning_rate=1.0, lr_schedule="constant"), 100, warmup=5)
    assert lr(0) == pytest.approx(0.2) and lr(4) == lr(5) == lr(99) == 1.0


def test_straight_schedules() -> None:
    config: dict[str, Any] = {"learning_rate": 1.0, "min_learning_rate": 0.2}
    lr = build_schedule(TrainConfig(lr_schedule="linear", **config), 101, warmup=0)
    assert [lr(0), lr(50), lr(100)] == pytest.approx([1.0, 0.6, 0.2])
    lr = build_schedule(TrainConfig(lr_schedule="trapezoid", **config), 101, warmup=0)
    assert [lr(0), lr(60), lr(80), lr(100)] == pytest.approx([1.0, 1.0, 0.6, 0.2])


def test_a_minimum_above_the_peak_is_refused() -> None:
    with pytest.raises(UserError, match=r"min_learning_rate \(0.1\) is above learning_rate"):
        TrainConfig(learning_rate=1e-5, min_learning_rate=0.1)


def test_all_senseless_options_come_at_once() -> None:
    with pytest.raises(UserError) as error:
        TrainConfig(batch_size=0, learning_rate=-1.0, beta1=1.0, epochs=0)
    message = str(error.value)
    assert all(name in message for name in ("batch_size", "learning_rate", "beta1", "epochs"))
    with pytest.raises(UserError, match="lr_schedule is 'step'; expected one of cosine, linear"):
        TrainConfig(lr_schedule="step")  # pyright: ignore


def test_steps_of_a_run() -> None:
    assert TrainConfig().total_steps(7) == 70
    assert TrainConfig(epochs=2).total_steps(7) == 14
    assert TrainConfig(max_steps=500).total_steps(7) == 500
    assert TrainConfig(epochs=2, max_steps=5).total_steps(7) == 5
