"""How everybody else calls a model: one that is ours, a student's own, one that is wrapped.

A ``GPTModel`` answers exactly what it is asked (see its ``forward``). A module that takes only ids
gives plain logits, and what was asked is made of them; so is a subclass whose ``forward`` takes
only ids: it is trained on, and generates, what *it* computes.

Shapes: ``B`` batch, ``T`` tokens, ``K`` chosen positions, ``V`` vocabulary size.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.config import IGNORE_INDEX
from groundup.errors import UserError
from groundup.model.cache import KVCache
from groundup.model.gpt import GPTModel
from groundup.model.loss import Reduction


def token_loss(
    model: nn.Module,
    in_idx: Tensor,
    targets: Tensor,
    *,
    at: Tensor | None = None,
    reduction: Reduction = "sum",
    documents: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of targets: ``model(in_idx, at=at, targets=targets, …)``.

    Args:
        model: any module that maps ids ``(B, T)`` to logits ``(B, T, V)``.
        in_idx: ids ``(B, T)``.
        targets: ids ``(B, T)``, or of ``at``'s shape; ``IGNORE_INDEX`` counts 0.
        at: positions ``(B,)`` or ``(B, K)``, if not all.
        reduction: ``sum`` for a scalar, ``none`` for each target's.
        documents: numbers ``(B, T)`` of documents that must not see each other, if that is asked.

    Raises:
        UserError: the model cannot keep documents apart.
    """
    apart = {} if documents is None else {"documents": documents}
    if accepts(model, "targets"):
        return model(in_idx, at=at, targets=targets, reduction=reduction, **apart)
    logits = scores(model, in_idx, at=at, documents=documents).float()
    loss = F.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORE_INDEX, reduction=reduction
    )
    return loss if reduction == "sum" else loss.view(targets.shape)


def scores(
    model: nn.Module,
    in_idx: Tensor,
    *,
    at: Tensor | None = None,
    cache: KVCache | None = None,
    documents: Tensor | None = None,
) -> Tensor:
    """Logits ``(B, T, V)``, or at chosen positions ``(B, V)`` or ``(B, K, V)``.

    A ``cache`` (of :func:`new_cache`) is for models that take one.

    Raises:
        UserError: ``documents`` are to be kept apart by a model that cannot do it.
    """
    apart = {} if documents is None else {"documents": documents}
    if apart and not accepts(model, "documents"):
        raise UserError(
            f"the forward of {type(unwrapped(model)).__name__} takes no documents=, so it cannot "
            "keep documents apart; leave out --pack documents"
        )
    if accepts(model, "at"):
        return model(in_idx, at=at, **apart, **({} if cache is None else {"cache": cache}))
    logits = model(in_idx, **apart)
    if at is None:
        return logits
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows if at.dim() == 1 else rows[:, None], at]


def new_cache(model: nn.Module, batch_size: int = 1, capacity: int | None = None) -> KVCache | None:
    """An empty key/value cache for a model that takes one; None for any other."""
    inner = unwrapped(model)
    if isinstance(inner, GPTModel) and accepts(model, "cache") and accepts(model, "at"):
        return inner.new_cache(batch_size, capacity)
    return None


def context_length(model: nn.Module) -> int | None:
    """The most tokens a model can look at, if it says so (the course's by its positions)."""
    inner = unwrapped(model)
    if isinstance(inner, GPTModel):
        return inner.cfg.context_length
    positions = getattr(inner, "pos_emb", None)
    return positions.num_embeddings if isinstance(positions, nn.Embedding) else None


def known_context_length(model: nn.Module) -> int:
    """The same, where it must be known.

    Raises:
        UserError: the model does not say it.
    """
    found = context_length(model)
    if found is None:
        raise UserError("the model has no pos_emb, which says how many tokens it can look at")
    return found


def computes_rows_alike(model: nn.Module) -> bool:
    """Whether a token's scores don't depend on how many are computed with it, but for rounding.

    So it is where ``GPTModel`` itself computes in fp32 on a CPU. Other precisions have other
    kernels for other numbers of rows, and a subclass with a ``forward`` of its own may do anything.
    """
    inner = unwrapped(model)
    if not _is_gpt_model_itself(inner):
        return False
    weight = inner.tok_emb.weight
    on_cpu = weight.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return on_cpu and weight.dtype == torch.float32


def runs_as_written(model: nn.Module) -> bool:
    """Whether a call computes what ``GPTModel`` itself does: nobody wraps it or looks on."""
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return _is_gpt_model_itself(model) and not model.training and not hooked


def _is_gpt_model_itself(model: nn.Module) -> TypeGuard[GPTModel]:
    return isinstance(model, GPTModel) and type(model).forward is GPTModel.forward


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are."""
    return next(model.parameters()).device


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself, inside what ``torch.compile`` or DDP has put around it."""
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    inner: object = model
    while isinstance(inner, nn.Module):
        model = inner
        inner = model.module if isinstance(model, wrappers) else getattr(model, "_orig_mod", None)
    return model


def accepts(model: nn.Module, keyword: str) -> bool:
    """Whether a model's ``forward`` takes this argument of ``GPTModel``'s.

    A subclass that passes on any argument (``**kwargs``) takes those that give scores. A loss it
    is not asked for: what it does with the scores, it may not do with a loss (``-scores``).
    """
    inner = unwrapped(model)
    parameters = inspect.signature(inner.forward).parameters
    passes_all_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    gives_scores = keyword in ("cache", "at", "documents")
    return keyword in parameters or (passes_all_on and gives_scores and isinstance(inner, GPTModel))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the model is in eval mode and no gradient is kept; afterwards as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
