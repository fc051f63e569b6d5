"""Output layer and cross-entropy in one, a piece at a time, with little memory.

The plain way keeps the logits of a whole batch, their softmax and the gradient of both:
for GPT-2's vocabulary and 1,024 tokens that is four tensors of 206 MB, and walking through them
takes a quarter of a training step on a CPU. But the gradient of cross-entropy is known in closed
form, ``softmax(logits) - one_hot(target)``, so the backward pass can be done right away, piece by
piece, and only the two results are kept: the gradient of the features and that of the weight.

(PyTorch 2.13's own ``linear_cross_entropy`` with chunking has the same idea; in our measurements on
a CPU it took 3 to 7 times as long as the plain way. See ``benchmarks/loss.py``.)

Shapes: ``N`` tokens, ``C`` embedding width, ``V`` vocabulary size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from groundup.data.batching import IGNORE_INDEX

CHUNK_LOGITS = 2**26
"""Logits in memory at once: 128 MB of bf16."""

CACHED_LOGITS = 2**20
"""Logits that a CPU turns into their gradient at once, so that they stay in its cache."""


def linear_cross_entropy(features: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """``F.cross_entropy(features @ weight.T, targets, reduction="sum")``, in pieces.

    Args:
        features: ``(N, C)``.
        weight: the output layer's matrix, ``(V, C)``.
        targets: ids ``(N,)``; those of ``IGNORE_INDEX`` do not count.

    Returns:
        The loss summed over the valid targets, a scalar in fp32. ``backward()`` works once: the
        gradients are kept in one copy only, and a second call raises PyTorch's error about it.
    """
    return _LinearCrossEntropy.apply(features, weight, targets, torch.is_grad_enabled())


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, targets: Tensor, with_grad: bool
    ) -> Tensor:
        kind = features.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        wants_features, wants_weight = (with_grad and g for g in ctx.needs_input_grad[:2])
        grad_features = torch.empty_like(features) if wants_features else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        loss = torch.zeros((), device=features.device)
        rows = max(1, CHUNK_LOGITS // weight.shape[0])
        with torch.autocast(kind, enabled=False):
            x, w = features.to(dtype), weight.to(dtype)
            for start in range(0, len(x), rows):
                piece = slice(start, start + rows)
                logits = x[piece] @ w.T  # (rows, V)
                loss += _loss_and_gradient_(logits, targets[piece], wants_features or wants_weight)
                if grad_features is not None:
                    grad_features[piece] = logits @ w
                if grad_weight is not None:
                    grad_weight += logits.T @ x[piece]
        ctx.save_for_backward(grad_features, grad_weight)
        return loss

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator is untyped)
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        scaled = [None if saved is None else saved.mul_(scale) for saved in ctx.saved_tensors]
        return *scaled, None, None


def _loss_and_gradient_(logits: Tensor, targets: Tensor, with_grad: bool) -> Tensor:
    """Return the summed loss of logits ``(n, V)``; turn them into their gradient in place."""
    loss = torch.zeros((), device=logits.device)
    on_cpu = logits.device.type == "cpu"
    size = max(1, CACHED_LOGITS // logits.shape[1] if on_cpu else len(logits))
    for part, goal in zip(logits.split(size), targets.split(size), strict=True):
        valid = goal != IGNORE_INDEX
        index = goal.clamp(min=0)[:, None]
        log_probs = torch.log_softmax(part.float(), dim=-1)
        loss -= (log_probs.gather(1, index)[:, 0] * valid).sum()
        if with_grad:
            gradient = log_probs.exp_()
            gradient.scatter_add_(1, index, torch.full_like(index, -1, dtype=gradient.dtype))
            part.copy_(gradient.mul_(valid[:, None]) if not valid.all() else gradient)
    return loss
