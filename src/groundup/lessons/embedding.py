"""An embedding is a matrix product that skips its zeros (chapter 2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def embedding_as_product(ids: Tensor, weight: Tensor) -> Tensor:
    """What ``nn.Embedding`` looks up, computed: one-hot rows times the matrix.

    ``ids (…)`` and ``weight (V, C)`` give ``(…, C)``. A row of the product has V terms, of which
    all but one are zero; looking the one up costs a V-th of that.
    """
    one_hot = F.one_hot(ids, num_classes=len(weight))  # (…, V)
    return one_hot.to(weight.dtype) @ weight


def linear_as_embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """The same again by ``nn.Linear``'s arithmetic, whose matrix lies the other way round."""
    return F.linear(F.one_hot(ids, num_classes=len(weight)).to(weight.dtype), weight.T)
