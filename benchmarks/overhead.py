"""What a training step costs besides data, forward, backward, clipping and optimizer.

    python benchmarks/overhead.py --rounds 5

The loop with everything that a run has (records, `metrics.jsonl`, the bar, checks, data), and bare
PyTorch on one batch, both with a model so small that the difference can be seen; and what a step of
a model of a million parameters takes, with 768 tokens as in nanoGPT's recipe for a CPU. Prints CPU
seconds per step on one thread, medians of interleaved rounds, so that other programs' load hardly
counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn

from common import report
from groundup.config import ModelConfig
from groundup.data.batching import ShuffledBatches
from groundup.data.windows import TokenWindows
from groundup.model.door import token_loss
from groundup.model.gpt import GPTModel
from groundup.runtime import Runtime
from groundup.train.config import TrainConfig
from groundup.train.optim import build_optimizer
from groundup.train.tracking import Latest, MetricsFile, ProgressBar, RunningLoss
from groundup.train.trainer import Plan, Trainer

MILLION = ModelConfig(257, 64, 128, 4, 5, drop_rate=0.0, tie_weights=True)
SMALL = MILLION.replace(emb_dim=4, n_heads=1, n_layers=1)
BATCH, CONTEXT = 12, 64
CONFIG = TrainConfig()


def bare(shape: ModelConfig, count: int) -> Callable[[], object]:
    """So many steps in bare PyTorch."""
    trained = GPTModel(shape).init_gpt2()
    optimizer = build_optimizer(trained, CONFIG)
    x, y = torch.randint(0, 257, (2, BATCH, CONTEXT))

    def steps() -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            (token_loss(trained, x, y) / y.numel()).backward()
            nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()

    return steps


def looped(shape: ModelConfig, count: int, folder: Path) -> Callable[[], object]:
    """So many steps of the training loop, with what a run has."""
    trained = GPTModel(shape).init_gpt2()
    optimizer = build_optimizer(trained, CONFIG)
    windows = TokenWindows(torch.randint(0, 257, (1_000_000,)), CONTEXT, CONTEXT)
    data = ShuffledBatches(len(windows), BATCH, 1, windows.collate, drop_last=True)
    runtime = Runtime(torch.device("cpu"), "fp32", "measured")

    def steps() -> None:
        listeners = [MetricsFile(folder), RunningLoss(), Latest(), ProgressBar(count)]
        plan = Plan(count, lambda step: 1e-3, grad_clip=1.0)
        Trainer(trained, optimizer, data, runtime, plan, listeners=listeners).fit()

    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description="what a step costs besides learning")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    many, few = 400, 20
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            "loop, small model": (many, looped(SMALL, many, Path(folder))),
            "bare, small model": (many, bare(SMALL, many)),
            "bare, a million parameters": (few, bare(MILLION, few)),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):  # the first warms up
            for name, (count, way) in ways.items():
                begun = time.process_time()
                way()
                if number:
                    times[name].append((time.process_time() - begun) / count)
    found = {name: round(median(each), 6) for name, each in times.items()}
    loop, alone, step = found.values()
    report(
        "overhead",
        {
            "parameters": GPTModel(MILLION).num_parameters(),
            "cpu_seconds_per_step": found,
            "besides_learning": round((loop - alone) / step, 4),
            "rounds": rounds,
        },
    )


if __name__ == "__main__":
    main()
