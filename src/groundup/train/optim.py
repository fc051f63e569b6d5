"""The optimizer and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from groundup.train.config import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019), by default decaying matrices only, as GPT-3 and nanoGPT.

    Biases and LayerNorm's scales have no overfitting to hold back; the course decays them too
    (``decay="all"``).
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.dim() >= 2 or config.decay == "all"]
    others = [p for p in parameters if not (p.dim() >= 2 or config.decay == "all")]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


def build_schedule(config: TrainConfig, total_steps: int, warmup: int) -> Callable[[int], float]:
    """Map a step (0 is the first) to its learning rate: linear warmup, then cosine or constant.

    Cosine: ``low + (high - low) * (1 + cos(pi * progress)) / 2`` (Loshchilov & Hutter 2017).
    """
    high, low = config.learning_rate, config.min_learning_rate

    def schedule(step: int) -> float:
        if step < warmup:
            return high * (step + 1) / warmup
        if config.lr_schedule == "constant":
            return high
        progress = min(1.0, (step - warmup) / max(1, total_steps - 1 - warmup))
        return low + (high - low) * (1 + math.cos(math.pi * progress)) / 2

    return schedule
