"""Which tokens a model holds to be alike: those whose embeddings point the same way."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.model.door import unwrapped


@torch.no_grad()
def nearest_tokens(model: nn.Module, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The tokens nearest to given ones, by the cosine between their embeddings, nearest first.

    Args:
        model: a model with the course's names.
        ids: tokens ``(N,)``.
        count: how many neighbours of each; fewer where the vocabulary has no more.

    Returns:
        Their ids and their cosines, both ``(N, count)``, without the token itself.
    """
    table = unwrapped(model).get_submodule("tok_emb").get_parameter("weight").float()  # (V, C)
    directions = F.normalize(table, dim=-1)
    cosines = directions[ids] @ directions.T  # (N, V)
    cosines[torch.arange(len(ids), device=ids.device), ids] = -torch.inf
    found = cosines.topk(min(count, len(table) - 1), dim=-1)
    return found.indices, found.values
