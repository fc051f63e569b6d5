"""The optimizer and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from groundup.errors import UserError
from groundup.train.adamw import AdamW
from groundup.train.config import TrainConfig
from groundup.train.muon import Muon


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), by default decaying matrices only, as GPT-3 and nanoGPT.

    Biases and LayerNorm's scales have no overfitting to hold back; the course decays them too
    (``decay="all"``). With ``optimizer="muon"`` the blocks' matrices have :class:`Muon`.

    Raises:
        UserError: Muon is asked for, and no matrix of a block trains.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    decayed = [n for n, p in trained.items() if p.dim() >= 2 or config.decay == "all"]
    muon: list[str] = []
    if config.optimizer == "muon":
        muon = [n for n, p in trained.items() if p.dim() == 2 and n.startswith("trf_blocks.")]
        if not muon:
            raise UserError(
                "--optimizer muon is for the matrices of blocks, and none of them trains here; use "
                "--optimizer adamw"
            )
    groups = [
        {"params": [trained[n] for n in decayed if n not in muon], **_decay(config.weight_decay)},
        {"params": [p for n, p in trained.items() if n not in decayed], **_decay(0.0)},
    ]
    groups = [group for group in groups if group["params"]]
    betas = config.beta1, config.beta2
    if not muon:
        return AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)
    matrices = {"params": [trained[n] for n in muon], **_decay(config.weight_decay)}
    return Muon(matrices, groups, lr=config.learning_rate, betas=betas)


def _decay(weight_decay: float) -> dict[str, Any]:
    return {"weight_decay": weight_decay}


COOLDOWN = 0.4
"""The trapezoid's last part, in which its learning rate falls (Hägele et al. 2024)."""


def build_schedule(config: TrainConfig, total_steps: int, warmup: int) -> Callable[[int], float]:
    """Map a step (0 is the first) to its learning rate: linear warmup, then the schedule's shape.

    Cosine: ``low + (high - low) * (1 + cos(pi * progress)) / 2`` (Loshchilov & Hutter 2017).
    """
    high, low = config.learning_rate, config.min_learning_rate
    shape = SHAPES[config.lr_schedule]

    def schedule(step: int) -> float:
        if step < warmup:
            return high * (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, total_steps - 1 - warmup))
        return low + (high - low) * shape(progress)

    return schedule


SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
    "trapezoid": lambda progress: min(1.0, (1 - progress) / COOLDOWN),
    "constant": lambda progress: 1.0,
}
"""Share of the way from the lowest to the highest rate, by the share of the steps done."""
