"""Solutions of the exercises of the notebook "the model" (03)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.config import ModelConfig
from groundup.model.gpt import GPTModel


def count_by_hand(cfg: ModelConfig) -> int:
    """Exercise 1: how many parameters a GPT of this shape has, by arithmetic alone."""
    C, V, T = cfg.emb_dim, cfg.vocab_size, cfg.context_length
    norm = 2 * C  # scale and shift
    attention = 4 * C * C + C + (3 * C if cfg.qkv_bias else 0)  # q, k, v and the projection
    feed_forward = (C * 4 * C + 4 * C) + (4 * C * C + C)  # widen, narrow back
    block = attention + feed_forward + 2 * norm
    head = 0 if cfg.tie_weights else V * C
    return V * C + T * C + cfg.n_layers * block + norm + head


def set_dropout(model: GPTModel, embedding: float, attention: float, shortcut: float) -> None:
    """Exercise 2: three dropout rates instead of one, set in place."""
    model.drop_emb.p = embedding
    for name, module in model.trf_blocks.named_modules():
        if isinstance(module, nn.Dropout):
            module.p = shortcut if name.endswith("drop_shortcut") else attention


class RMSNorm(nn.Module):
    """Exercise 3: bring each vector to length ``sqrt(C)``; nothing is subtracted (Llama's norm).

    Zhang & Sennrich 2019: half of what LayerNorm does, and models train as well with it.
    """

    def __init__(self, emb_dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        """``(…, C) -> (…, C)``."""
        mean_square = x.pow(2).mean(dim=-1, keepdim=True)
        return self.scale * x * torch.rsqrt(mean_square + self.eps)
