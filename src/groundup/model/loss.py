"""Output layer and cross-entropy in one, a piece at a time, with little memory.

The plain way keeps the logits of a whole batch, their softmax and the gradient of both:
for GPT-2's vocabulary and 1,024 tokens that is four tensors of 206 MB, and walking through them
takes a quarter of a training step on a CPU. Here the logits exist for a piece of the tokens only.

A sum's gradient is known in closed form, ``softmax(logits) - one_hot(target)``, before the backward
pass begins. So it is computed right away, piece by piece, and only the two results are kept: the
gradient of the features and that of the weight. Where the caller weighs each token's loss itself,
the weights come only in the backward pass, which therefore computes each piece's logits once more.

The products' sides decide how fast they are, and GPT-2's 50,257 tokens are an odd number. On a CPU
it is enough in fp32 that each row of logits begins a multiple of 64 numbers behind the one before:
that takes the first product of 1,024 tokens from 0.81 to 0.53 s (AVX2). In bf16, where the matrix
is copied anyway, and on a GPU, the copy gets rows of zeros up to such a multiple. Nobody else sees
them: logits beyond the vocabulary are minus infinity, so they are in no softmax, no gradient and no
file.

A CPU walks through the logits in parts that stay in its cache. A GPU does so by whole pieces, and
where the model is compiled, by code that the compiler makes of it.

(PyTorch 2.13's own ``linear_cross_entropy`` with chunking has the same idea; in our measurements on
a CPU it took 3 to 7 times as long as the plain way. See ``benchmarks/loss.py``.)

Shapes: ``N`` tokens, ``C`` embedding width, ``V`` vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from groundup.config import IGNORE_INDEX
from groundup.model.linear import Linear

Reduction = Literal["sum", "none"]

CHUNK_LOGITS = 2**26
"""Logits in memory at once: 128 MB of bf16. Half as many take a twentieth more time."""

ON_GPU, COMPILED = 2, 8
"""So many times more on a GPU, where adding up the pieces' results costs more than memory. As
written, the logits' logarithms are in it beside them; compiled, they never are."""

CACHED_LOGITS = 2**20
"""Logits that a CPU turns into their gradient at once, so that they stay in its cache."""

MULTIPLE = 64
"""Sides of products are such a multiple, or begin so far apart; on a CPU not those of a small
vocabulary (characters), since what is between them is computed with for nothing."""


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
            x, w = features.to(dtype), _padded(weight, dtype)  # (N, C), (V + some, C)
            if void is not None:  # so that they add nothing to the weight's gradient
                x = x.masked_fill(void, 0.0)
            for piece in pieces(len(x), len(w), features.device.type, compiled):
                logits = _logits(x[piece], w, len(weight))  # (rows, V + some)
                turn = _loss_and_gradient_of(logits, compiled)
                loss += turn(logits, targets[piece], wants_features or wants_weight)
                if grad_features is not None:
                    grad_features[piece] = logits[:, : len(w)] @ w
                if grad_weight is not None:
                    _add_product_(grad_weight, logits[:, : len(w)].T, x[piece])
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
            x, w = features.to(ctx.dtype), _padded(weight, ctx.dtype)
            for piece in pieces(len(x), len(w), features.device.type):
                logits = _logits(x[piece], w, len(weight))  # (rows, V + some)
                normalizers[piece] = torch.cat(
                    [part.float().logsumexp(dim=-1) for part in _cached(logits)]
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
            x, w = features.to(ctx.dtype), _padded(weight, ctx.dtype)
            for piece in pieces(len(x), len(w), features.device.type):
                logits = _logits(x[piece], w, len(weight))  # (rows, V + some)
                _gradient_(logits, targets[piece], normalizers[piece], factors[piece])
                if grad_features is not None:
                    grad_features[piece] = logits[:, : len(w)] @ w
                if grad_weight is not None:
                    _add_product_(grad_weight, logits[:, : len(w)].T, x[piece])
                del logits
        return grad_features, grad_weight, None


def _compute_dtype(weight: Tensor) -> torch.dtype:
    """What the products are computed in: autocast's dtype where that is on."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def _padded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix ``(V, C)`` as the products take it: ``(V + some, C)``, where that is faster."""
    rows = _rows(len(weight), weight.device.type, dtype)
    if rows == len(weight):
        return weight.to(dtype)
    padded = weight.new_zeros(rows, weight.shape[1], dtype=dtype)
    padded[: len(weight)] = weight
    return padded


def _rows(vocab_size: int, kind: str, dtype: torch.dtype) -> int:
    """How many rows the matrix has in products on this kind of device."""
    if kind == "cuda":
        return vocab_size + -vocab_size % MULTIPLE
    return spaced(vocab_size) if kind == "cpu" and dtype == torch.bfloat16 else vocab_size


def spaced(vocab_size: int) -> int:
    """How far apart a CPU's rows of logits begin."""
    return vocab_size + (-vocab_size % MULTIPLE if vocab_size > 16 * MULTIPLE else 0)


def _logits(x: Tensor, w: Tensor, vocab_size: int) -> Tensor:
    """``x @ w.T``, laid out so that products with it are fast: ``(rows, V + some)``."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        logits = x.new_empty(len(x), spaced(len(w)))
        torch.mm(x, w.T, out=logits[:, : len(w)])
    else:
        logits = x @ w.T
    logits[:, vocab_size:] = -torch.inf
    return logits


def _add_product_(total: Tensor, a: Tensor, b: Tensor) -> None:
    """``total += a @ b``, of as many rows as there are; in place where precisions agree."""
    if total.dtype == a.dtype:
        total.addmm_(a[: len(total)], b)
    elif total.is_cuda:  # which adds up in fp32 anyway
        torch.addmm(total, a[: len(total)], b, total.dtype, out=total)
    else:
        total += (a @ b)[: len(total)]


def pieces(
    tokens: int, vocab_size: int, kind: str = "cpu", compiled: bool = False
) -> Iterator[slice]:
    """Tokens whose logits exist together: few pieces (``CHUNK_LOGITS``), of like length."""
    most = CHUNK_LOGITS * (1 if kind == "cpu" else COMPILED if compiled else ON_GPU)
    count = -(-tokens * vocab_size // most)
    rows = -(-tokens // max(1, count))
    if kind != "cpu":
        rows += -rows % MULTIPLE
    return (slice(start, start + rows) for start in range(0, tokens, max(1, rows)))


def _cached(logits: Tensor) -> tuple[Tensor, ...]:
    """Logits ``(rows, V)`` in views of as many rows as stay in a CPU's cache."""
    return _cached_like(logits, logits)


def _cached_like(rows: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
    on_cpu = logits.device.type == "cpu"
    return rows.split(max(1, CACHED_LOGITS // logits.shape[1]) if on_cpu else max(1, len(logits)))


def _loss_and_gradient_of(logits: Tensor, compiled: bool) -> Callable[..., Tensor]:
    """How to get the summed loss of logits ``(n, V)`` and turn them into its gradient in place."""
    if logits.device.type == "cpu":
        return _loss_and_gradient_
    return _made_by_the_compiler() if compiled else _loss_and_gradient_at_once_


def _loss_and_gradient_(logits: Tensor, targets: Tensor, with_grad: bool) -> Tensor:
    """On a CPU, which computes an exponential more slowly than it reads its cache."""
    loss = torch.zeros((), device=logits.device)
    for part, goal in zip(_cached(logits), _cached_like(targets, logits), strict=True):
        valid = goal != IGNORE_INDEX
        index = goal.clamp(min=0)[:, None]
        gradient = part.softmax(dim=-1, dtype=torch.float32)
        # The likeliest token's probability is 1 / sum(exp(logits - largest)).
        behind = part.amax(dim=-1).float() - part.gather(1, index)[:, 0].float()
        loss += ((behind - gradient.amax(dim=-1).log()) * valid).sum()
        if with_grad:
            gradient.scatter_add_(1, index, torch.full_like(index, -1, dtype=gradient.dtype))
            part.copy_(gradient)
    return loss


def _loss_and_gradient_at_once_(logits: Tensor, targets: Tensor, with_grad: bool) -> Tensor:
    """On a GPU, which waits for its memory: with as few ways through the logits as there can be."""
    valid = targets != IGNORE_INDEX
    index = targets.clamp(min=0)[:, None]
    logprobs = logits.log_softmax(dim=-1, dtype=torch.float32)
    of_targets = logprobs.gather(1, index)
    if with_grad:
        torch.exp(logprobs, out=logits)
        logits.scatter_(1, index, of_targets.expm1().to(logits.dtype))  # probability - 1
    return -(of_targets[:, 0] * valid).sum()


def _to_be_compiled_(logits: Tensor, targets: Tensor, with_grad: bool) -> Tensor:
    """The same as one expression, of which a compiler makes a single way to write the gradient."""
    valid = targets != IGNORE_INDEX
    index = targets.clamp(min=0)[:, None]
    logprobs = logits.log_softmax(dim=-1, dtype=torch.float32)
    loss = -(logprobs.gather(1, index)[:, 0] * valid).sum()
    if with_grad:
        here = torch.arange(logits.shape[1], device=logits.device) == index
        logits.copy_(logprobs.exp() - here.float())
    return loss


@cache
def _made_by_the_compiler() -> Callable[..., Tensor]:
    return torch.compile(_to_be_compiled_)


def _gradient_(logits: Tensor, targets: Tensor, normalizers: Tensor, factors: Tensor) -> None:
    """Turn logits ``(n, V)`` in place into the gradient of each one's loss times its factor."""
    columns = (targets.clamp(min=0), normalizers, factors)  # (n,) each
    of_parts = (_cached_like(column[:, None], logits) for column in columns)
    for part, goal, normalizer, factor in zip(_cached(logits), *of_parts, strict=True):
        gradient = (part.float() - normalizer).exp_()
        gradient.scatter_add_(1, goal, torch.full_like(normalizer, -1.0))
        part.copy_(gradient.mul_(factor))


def _void(targets: Tensor) -> Tensor | None:
    """Which targets don't count, ``(N, 1)``; None if all do.

    A GPU is not asked, since the host would wait for its answer.
    """
    void = (targets == IGNORE_INDEX)[:, None]
    return void if targets.device.type != "cpu" or bool(void.any()) else None
