"""Activation checkpointing: a block keeps its input only; its gradient computes it once more.

What a block computes on the way is most of what a training step keeps in memory (Chen et al. 2016).
The second computation draws the same random numbers, so a step gives the same bits as without it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from groundup.model.gpt import GPTModel


def recompute_blocks(model: GPTModel) -> None:
    """Let each block of a model forget in training what it can compute once more.

    Names, weights and hooks stay. Without gradients, and in a block that somebody looks into (see
    ``watch``), nothing is computed twice.
    """
    for block in model.trf_blocks:
        if "forward" not in vars(block):
            block.forward = partial(_twice, block, block.forward)


def keep_activations(model: GPTModel) -> None:
    """Undo :func:`recompute_blocks`."""
    for block in model.trf_blocks:
        vars(block).pop("forward", None)


def _twice(block: nn.Module, forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """Call a block's forward pass, now and again in the backward pass."""
    inside = (m for m in block.modules() if m is not block)
    # Hooks may be gone by then, and with them what they changed (attention spelled out).
    if not torch.is_grad_enabled() or any(m._forward_hooks or m._forward_pre_hooks for m in inside):
        return forward(*args, **named)
    return checkpoint(forward, *args, use_reentrant=False, **named)
