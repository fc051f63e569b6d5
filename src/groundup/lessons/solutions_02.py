"""Solutions of the exercises of the notebook "attention" (02)."""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.model.attention import MultiHeadAttention
from groundup.model.ladder import SelfAttention_v1, SelfAttention_v2
from groundup.model.watch import watch


def v1_from_v2(v2: SelfAttention_v2) -> SelfAttention_v1:
    """Exercise 1: a ``SelfAttention_v1`` that computes what ``v2`` (without a bias) computes.

    ``nn.Linear`` keeps its matrix the other way round, ``(d_out, d_in)``.
    """
    d_out, d_in = v2.W_query.weight.shape
    v1 = SelfAttention_v1(d_in, d_out)
    with torch.no_grad():
        v1.W_query.copy_(v2.W_query.weight.T)
        v1.W_key.copy_(v2.W_key.weight.T)
        v1.W_value.copy_(v2.W_value.weight.T)
    return v1


def local_mask(tokens: int, window: int) -> Tensor:
    """Exercise 2: a token sees itself and the ``window - 1`` before it; true where it may look.

    ``(T, T)``. What it misses reaches it through the layers: after ``n`` of them it has news from
    ``n * (window - 1)`` tokens back.
    """
    distance = torch.arange(tokens)[:, None] - torch.arange(tokens)  # (T, T): how far back
    return (distance >= 0) & (distance < window)


def without_head(attention: MultiHeadAttention, x: Tensor, head: int) -> Tensor:
    """Exercise 3: what an attention gives for ``x`` when one of its heads says nothing.

    ``(B, T, d_in) -> (B, T, d_out)``
    """

    def silence(context: Tensor) -> None:  # (B, H, T, D)
        context[:, head] = 0

    with watch(attention, edit={"context": silence}):
        return attention(x)
