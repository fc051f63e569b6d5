"""Logits, a piece at a time: their product, and what turns them into the loss and its gradient.

The products' sides decide how fast they are, and GPT-2's 50,257 tokens are an odd number. On a CPU
it is enough in fp32 that each row of logits begins a multiple of 64 numbers behind the one before:
that takes the first product of 1,024 tokens from 0.81 to 0.53 s (AVX2). In bf16, where the matrix
is copied anyway, and on a GPU, the copy gets rows of zeros up to such a multiple. Nobody else sees
them: logits beyond the vocabulary are minus infinity, so they are in no softmax, no gradient and no
file.

A CPU walks through the logits in parts that stay in its cache. A GPU does so by whole pieces, and
where the model is compiled, by code that the compiler makes of it.

Shapes: ``n`` tokens of a piece, ``C`` embedding width, ``V`` vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor

from groundup.config import IGNORE_INDEX

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


def padded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix ``(V, C)`` as the products take it: ``(V + some, C)``, where that is faster."""
    rows = _rows(len(weight), weight.device.type, dtype)
    if rows == len(weight):
        return weight.to(dtype)
    copy = weight.new_zeros(rows, weight.shape[1], dtype=dtype)
    copy[: len(weight)] = weight
    return copy


def _rows(vocab_size: int, kind: str, dtype: torch.dtype) -> int:
    """How many rows the matrix has in products on this kind of device."""
    if kind == "cuda":
        return vocab_size + -vocab_size % MULTIPLE
    return spaced(vocab_size) if kind == "cpu" and dtype == torch.bfloat16 else vocab_size


def spaced(vocab_size: int) -> int:
    """How far apart a CPU's rows of logits begin."""
    return vocab_size + (-vocab_size % MULTIPLE if vocab_size > 16 * MULTIPLE else 0)


def logits_of(x: Tensor, w: Tensor, vocab_size: int) -> Tensor:
    """``x @ w.T``, laid out so that products with it are fast: ``(rows, V + some)``."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        logits = x.new_empty(len(x), spaced(len(w)))
        torch.mm(x, w.T, out=logits[:, : len(w)])
    else:
        logits = x @ w.T
    logits[:, vocab_size:] = -torch.inf
    return logits


def add_product_(total: Tensor, a: Tensor, b: Tensor) -> None:
    """``total += a @ b``, of as many rows as there are; in place where precisions agree."""
    if total.dtype == a.dtype:
        total.addmm_(a[: len(total)], b)
    elif total.is_cuda and torch.version.hip is None:  # NVIDIA's add up in fp32 anyway
        torch.addmm(total, a[: len(total)], b, total.dtype, out=total)
    else:
        total += (a @ b)[: len(total)]


def pieces(
    tokens: int, vocab_size: int, kind: str = "cpu", compiled: bool = False
) -> Iterator[slice]:
    """Tokens whose logits exist together: few pieces (``CHUNK_LOGITS``), of like length."""
    on_gpu = kind in ("cuda", "gpu")
    most = CHUNK_LOGITS * (1 if not on_gpu else COMPILED if compiled else ON_GPU)
    count = -(-tokens * vocab_size // most)
    rows = -(-tokens // max(1, count))
    if on_gpu:
        rows += -rows % MULTIPLE
    return (slice(start, start + rows) for start in range(0, tokens, max(1, rows)))


def cached(logits: Tensor) -> tuple[Tensor, ...]:
    """Logits ``(rows, V)`` in views of as many rows as stay in a CPU's cache."""
    return cached_like(logits, logits)


def cached_like(rows: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
    """What belongs to each row of logits, in the same parts."""
    on_cpu = logits.device.type == "cpu"
    return rows.split(max(1, CACHED_LOGITS // logits.shape[1]) if on_cpu else max(1, len(logits)))


def loss_and_gradient_of(logits: Tensor, compiled: bool) -> Callable[..., Tensor]:
    """How to get the summed loss of logits ``(n, V)`` and turn them into its gradient in place."""
    if not logits.is_cuda:
        return _loss_and_gradient_
    return _made_by_the_compiler() if compiled else _loss_and_gradient_at_once_


def _loss_and_gradient_(logits: Tensor, targets: Tensor, with_grad: bool) -> Tensor:
    """On a CPU, which computes an exponential more slowly than it reads its cache."""
    loss = torch.zeros((), device=logits.device)
    for part, goal in zip(cached(logits), cached_like(targets, logits), strict=True):
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


def turn_into_gradient_(
    logits: Tensor, targets: Tensor, normalizers: Tensor, factors: Tensor
) -> None:
    """Turn logits ``(n, V)`` in place into the gradient of each one's loss times its factor."""
    columns = (targets.clamp(min=0), normalizers, factors)  # (n,) each
    of_parts = (cached_like(column[:, None], logits) for column in columns)
    for part, goal, normalizer, factor in zip(cached(logits), *of_parts, strict=True):
        gradient = (part.float() - normalizer).exp_()
        gradient.scatter_add_(1, goal, torch.full_like(normalizer, -1.0))
        part.copy_(gradient.mul_(factor))
