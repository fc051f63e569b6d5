"""What the tests of the training loop share: a small run of it, and who remembers what it did."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import nn

from groundup.data.batching import ShuffledBatches
from groundup.data.windows import TokenWindows
from groundup.runtime import Runtime
from groundup.train.config import TrainConfig
from groundup.train.optim import build_optimizer
from groundup.train.trainer import Listener, Plan, Record, Trainer

CPU = Runtime(torch.device("cpu"), "fp32", "a test")
PLAN = {field.name for field in fields(Plan)}


def loader(batch_size: int, seed: int = 1, windows: int = 12) -> ShuffledBatches:
    ids = torch.randint(0, 300, (windows * 16 + 1,), generator=torch.Generator().manual_seed(9))
    data = TokenWindows(ids, 16, 16)
    return ShuffledBatches(len(data), batch_size, seed, data.collate, drop_last=True)


def build(model: nn.Module, batch_size: int = 4, **more: Any) -> Trainer:
    """A trainer for three steps; the options are those of the plan and of the trainer."""
    optimizer = build_optimizer(model, TrainConfig(learning_rate=1e-2, weight_decay=0.0))
    plan: dict[str, Any] = {"steps": 3}
    plan |= {name: value for name, value in more.items() if name in PLAN}
    settings: dict[str, Any] = {"data": loader(batch_size), "optimizer": optimizer, "runtime": CPU}
    settings |= {name: value for name, value in more.items() if name not in PLAN}
    return Trainer(model=model, plan=Plan(**plan), **settings)


class Log(Listener):
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.steps: list[Record] = []
        self.evaluations: list[Record] = []
        self.epochs: list[int] = []

    def on_step(self, record: Record) -> None:
        self.steps.append(record)

    def on_evaluate(self, record: Record) -> None:
        self.evaluations.append(record)

    def on_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


class Saved:
    """Remembers what would have been saved."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.best: list[int] = []
        self.states: list[dict[str, Any]] = []
        self.records: list[Record] = []

    def save(self, state: dict[str, Any], record: Record, *, best: bool, due: bool) -> None:
        assert best or due
        if due:
            self.steps.append(state["progress"]["step"])
            self.states.append(state)
            self.records.append(record)
        if best:
            self.best.append(state["progress"]["step"])


def evaluations(*losses: float) -> dict[str, Any]:
    """An evaluation after each step, which gives these losses."""
    left = iter(losses)
    return {"evaluate": lambda: {"val_loss": next(left)}, "eval_due": lambda step: True}
