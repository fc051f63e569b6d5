"""The lecture's six words, and attention as PyTorch's own kernel computes it (chapter 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.model.layers import FeedForward, TransformerBlock

WORDS = ("Your", "journey", "starts", "with", "one", "step")

INPUTS = torch.tensor(
    [
        [0.43, 0.15, 0.89],  # Your
        [0.55, 0.87, 0.66],  # journey
        [0.57, 0.85, 0.64],  # starts
        [0.22, 0.58, 0.33],  # with
        [0.77, 0.25, 0.10],  # one
        [0.05, 0.80, 0.55],  # step
    ]
)
"""Their embeddings ``(6, 3)``, as the lecture made them up."""


class PyTorchMultiHeadAttention(nn.Module):
    """Queries, keys and values by one matrix, and the rest by one call (the course's bonus).

    ``attend`` in ``model/attention.py`` makes that very call, where it is the fastest; the model
    keeps three matrices, whose names are those of its checkpoints.

    Args:
        d_in: width of the input.
        d_out: width of the output, shared by all heads.
        num_heads: number of heads; each gets ``d_out / num_heads`` columns.
        dropout: probability of dropping an attention weight while training.
        qkv_bias: whether the projection has a bias.

    Raises:
        UserError: ``d_out`` is not divisible by ``num_heads``.
    """

    def __init__(
        self, d_in: int, d_out: int, num_heads: int, dropout: float = 0.0, qkv_bias: bool = False
    ) -> None:
        super().__init__()
        if d_out % num_heads:
            raise UserError(f"d_out ({d_out}) must be divisible by num_heads ({num_heads})")
        self.num_heads = num_heads
        self.head_dim = d_out // num_heads
        self.qkv = nn.Linear(d_in, 3 * d_out, bias=qkv_bias)
        self.proj = nn.Linear(d_out, d_out)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, d_in) -> (B, T, d_out)``."""
        B, T, _ = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.num_heads, self.head_dim)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        dropout = self.dropout if self.training else 0.0
        context = F.scaled_dot_product_attention(
            queries, keys, values, dropout_p=dropout, is_causal=True
        )  # (B, H, T, D)
        return self.proj(context.transpose(1, 2).flatten(2))


# The course has a second set of classes that run fast. Here those that one reads do.
FeedForwardFast = FeedForward
TransformerBlockFast = TransformerBlock
GPTModelFast = GPTModel
