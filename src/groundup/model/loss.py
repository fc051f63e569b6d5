"""Output layer and cross-entropy in one, a piece at a time, with little memory.

The plain way keeps the logits of a whole batch, their softmax and the gradient of both:
for GPT-2's vocabulary and 1,024 tokens that is four tensors of 206 MB, and walking through them
takes a quarter of a training step on a CPU. Here the logits exist for a piece of the tokens only.

A sum's gradient is known in closed form, ``softmax(logits) - one_hot(target)``, before the backward
pass begins. So it is computed right away, piece by piece, and only the two results are kept: the
gradient of the features and that of the weight. Where the caller weighs each token's loss itself,
the weights come only in the backward pass, which therefore computes each piece's logits once more.

(PyTorch 2.13's own ``linear_cross_entropy`` with chunking has the same idea; in our measurements on
a CPU it took 3 to 7 times as long as the plain way. See ``benchmarks/loss.py``.)

Shapes: ``N`` tokens, ``C`` embedding width, ``V`` vocabulary size.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from groundup.config import IGNORE_INDEX
from groundup.model.linear import Linear
from groundup.model.logits import (
    add_product_,
    cached,
    logits_of,
    loss_and_gradient_of,
    padded,
    pieces,
    turn_into_gradient_,
)

Reduction = Literal["sum", "none"]


def head_loss(
    head: nn.Module, features: Tensor, targets: Tensor, reduction: Reduction = "sum"
) -> Tensor:
    """Negative log-likelihood of targets under an output layer; 0 where they are ``IGNORE_INDEX``.

    An output layer that is more than its matrix (it has a bias, LoRA has wrapped it, somebody has
    hooked it) is called like any module, so its logits exist for a while.

    Args:
        head: maps features to scores, ``(…, C) -> (…, V)``.
        features: ``(…, C)``.
        targets: ids ``(…)``.
        reduction: ``sum`` for a scalar, ``none`` for the loss of each target ``(…)``.
    """
    compute = _beside_compiled if torch.compiler.is_compiling() else _head_loss
    return compute(head, features, targets, reduction)


def _head_loss(
    head: nn.Module,
    features: Tensor,
    targets: Tensor,
    reduction: Reduction,
    compiled: bool = False,
) -> Tensor:
    x, goals = features.flatten(0, -2), targets.flatten()  # (N, C), (N,)
    valid = None
    # Padding and masked prompts need no scores. On a GPU the question would cost more than it
    # saves: the host would have to wait for the answer.
    if x.device.type == "cpu" and not (kept := goals != IGNORE_INDEX).all():
        valid = kept.nonzero()[:, 0]
        x, goals = x[valid], goals[valid]
    is_a_matrix = type(head) in (nn.Linear, Linear) and head.bias is None
    if is_a_matrix and not (head._forward_hooks or head._forward_pre_hooks):
        loss = linear_cross_entropy(x, head.weight, goals, reduction, compiled)  # pyright: ignore[reportArgumentType]
    else:
        scores = head(x).float()  # (N, V)
        loss = F.cross_entropy(scores, goals, ignore_index=IGNORE_INDEX, reduction=reduction)
    if reduction == "sum":
        return loss
    if valid is not None:
        loss = loss.new_zeros(targets.numel()).index_put((valid,), loss)
    return loss.view(targets.shape)


# Left alone by torch.compile, whose kernels would hold all logits again; what happens to a piece of
# them is compiled on its own. Unlike torch.compiler.disable, this does not import the compiler.
_beside_compiled = _disable_dynamo(partial(_head_loss, compiled=True))


def linear_cross_entropy(
    features: Tensor,
    weight: Tensor,
    targets: Tensor,
    reduction: Reduction = "sum",
    compiled: bool = False,
) -> Tensor:
    """``F.cross_entropy(features @ weight.T, targets, reduction=reduction)``, in pieces.

    Args:
        features: ``(N, C)``.
        weight: the output layer's matrix, ``(V, C)``.
        targets: ids ``(N,)``; those of ``IGNORE_INDEX`` do not count.
        reduction: ``sum`` or ``none``.
        compiled: whether a GPU may walk through the logits with code that ``torch.compile`` makes.

    Returns:
        The loss in fp32: summed over the valid targets, a scalar, or of each target, ``(N,)``.
        ``backward()`` of the sum works once: the gradients are kept in one copy only, and a second
        call raises PyTorch's error about it.
    """
    if reduction == "none":
        return _PerToken.apply(features, weight, targets)
    return _Summed.apply(features, weight, targets, torch.is_grad_enabled(), compiled)


class _Summed(torch.autograd.Function):
    """The sum, whose gradients are computed along with it."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        targets: Tensor,
        with_grad: bool,
        compiled: bool,
    ) -> Tensor:
        wants_features, wants_weight = (with_grad and g for g in ctx.needs_input_grad[:2])
        grad_features = torch.empty_like(features) if wants_features else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        loss = torch.zeros((), device=features.device)
        dtype, void = _compute_dtype(weight), _void(targets)
        with torch.autocast(features.device.type, enabled=False):
            x, w = features.to(dtype), padded(weight, dtype)  # (N, C), (V + some, C)
            if void is not None:  # so that they add nothing to the weight's gradient
                x = x.masked_fill(void, 0.0)
            for piece in pieces(len(x), len(w), features.device.type, compiled):
                logits = logits_of(x[piece], w, len(weight))  # (rows, V + some)
                turn = loss_and_gradient_of(logits, compiled)
                loss += turn(logits, targets[piece], wants_features or wants_weight)
                if grad_features is not None:
                    grad_features[piece] = logits[:, : len(w)] @ w
                if grad_weight is not None:
                    add_product_(grad_weight, logits[:, : len(w)].T, x[piece])
                del logits  # the next piece takes its place
        if grad_features is not None and void is not None:
            grad_features.masked_fill_(void, 0.0)
        ctx.save_for_backward(grad_features, grad_weight)
        return loss

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator is untyped)
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        scaled = [None if saved is None else saved.mul_(scale) for saved in ctx.saved_tensors]
        return *scaled, None, None, None


class _PerToken(torch.autograd.Function):
    """Each token's loss; the backward pass computes the logits once more, piece by piece."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        ctx.dtype = _compute_dtype(weight)
        normalizers = torch.empty(len(features), device=features.device)  # log sum exp of logits
        loss = torch.empty_like(normalizers)
        with torch.autocast(features.device.type, enabled=False):
            x, w = features.to(ctx.dtype), padded(weight, ctx.dtype)
            for piece in pieces(len(x), len(w), features.device.type):
                logits = logits_of(x[piece], w, len(weight))  # (rows, V + some)
                normalizers[piece] = torch.cat(
                    [part.float().logsumexp(dim=-1) for part in cached(logits)]
                )
                index = targets[piece].clamp(min=0)[:, None]
                loss[piece] = normalizers[piece] - logits.gather(1, index)[:, 0].float()
                del logits
        ctx.save_for_backward(features, weight, targets, normalizers)
        return loss.mul_(targets != IGNORE_INDEX)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator is untyped)
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        features, weight, targets, normalizers = ctx.saved_tensors
        factors = grad_outputs[0] * (targets != IGNORE_INDEX)
        grad_features = torch.empty_like(features) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        with torch.autocast(features.device.type, enabled=False):
            x, w = features.to(ctx.dtype), padded(weight, ctx.dtype)
            for piece in pieces(len(x), len(w), features.device.type):
                logits = logits_of(x[piece], w, len(weight))  # (rows, V + some)
                turn_into_gradient_(logits, targets[piece], normalizers[piece], factors[piece])
                if grad_features is not None:
                    grad_features[piece] = logits[:, : len(w)] @ w
                if grad_weight is not None:
                    add_product_(grad_weight, logits[:, : len(w)].T, x[piece])
                del logits
        return grad_features, grad_weight, None


def _compute_dtype(weight: Tensor) -> torch.dtype:
    """What the products are computed in: autocast's dtype where that is on."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def _void(targets: Tensor) -> Tensor | None:
    """Which targets don't count, ``(N, 1)``; None if all do.

    A GPU is not asked, since the host would wait for its answer.
    """
    void = (targets == IGNORE_INDEX)[:, None]
    return void if targets.device.type != "cpu" or bool(void.any()) else None
