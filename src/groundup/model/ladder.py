"""The attention ladder: from a dot product to multi-head attention, one idea per rung.

For reading. The last rung computes what ``attention.MultiHeadAttention`` computes (a test proves
it to 1e-6); that class is the one that the model uses.

Shapes: ``B`` batch, ``T`` tokens, ``D`` columns. Rungs 1 to 3 take one sequence ``(T, d_in)``;
from rung 4 on there is a batch ``(B, T, d_in)``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.errors import UserError
from groundup.model.attention import drop_stored_mask


def simple_attention(x: Tensor) -> Tensor:
    """Rung 1, no trainable weights: each token becomes a mix of all, weighted by likeness.

    ``(T, D) -> (T, D)``
    """
    scores = x @ x.T  # (T, T): how alike are tokens i and j?
    weights = torch.softmax(scores, dim=-1)  # each row sums to 1
    return weights @ x


class SelfAttention_v1(nn.Module):
    """Rung 2, trainable: three matrices turn a token into what it seeks, offers and tells.

    New: query, key and value; scores divided by ``sqrt(d_out)`` so that softmax does not
    saturate when the vectors are long (Vaswani et al. 2017, section 3.2.1).
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.W_query = nn.Parameter(torch.rand(d_in, d_out))
        self.W_key = nn.Parameter(torch.rand(d_in, d_out))
        self.W_value = nn.Parameter(torch.rand(d_in, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """``(T, d_in) -> (T, d_out)``."""
        queries, keys, values = x @ self.W_query, x @ self.W_key, x @ self.W_value
        scores = queries @ keys.T  # (T, T)
        weights = torch.softmax(scores / keys.shape[-1] ** 0.5, dim=-1)
        return weights @ values


class SelfAttention_v2(nn.Module):
    """Rung 3: the same with ``nn.Linear``, which starts from better random weights."""

    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False) -> None:
        super().__init__()
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(T, d_in) -> (T, d_out)``."""
        queries, keys, values = self.W_query(x), self.W_key(x), self.W_value(x)
        scores = queries @ keys.T  # (T, T)
        weights = torch.softmax(scores / keys.shape[-1] ** 0.5, dim=-1)
        return weights @ values


class CausalAttention(nn.Module):
    """Rung 4: nobody reads ahead.

    New: scores of later tokens become ``-inf``, so that softmax gives them weight 0; dropout on
    the weights; a batch dimension.
    """

    mask: Tensor

    def __init__(
        self, d_in: int, d_out: int, context_length: int, dropout: float, qkv_bias: bool = False
    ) -> None:
        super().__init__()
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.dropout = nn.Dropout(dropout)
        mask = torch.ones(context_length, context_length, dtype=torch.bool).triu(diagonal=1)
        self.register_buffer("mask", mask, persistent=False)  # True above the diagonal: the future
        self.register_load_state_dict_pre_hook(drop_stored_mask)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, d_in) -> (B, T, d_out)``."""
        T = x.shape[1]
        if T > len(self.mask):
            raise UserError(f"{T} tokens, but context_length is {len(self.mask)}; pass fewer")
        queries, keys, values = self.W_query(x), self.W_key(x), self.W_value(x)
        scores = queries @ keys.transpose(1, 2)  # (B, T, T)
        scores = scores.masked_fill(self.mask[:T, :T], -torch.inf)
        weights = torch.softmax(scores / keys.shape[-1] ** 0.5, dim=-1)
        return self.dropout(weights) @ values


class MultiHeadAttentionWrapper(nn.Module):
    """Rung 5: several heads side by side, each looking for something else.

    New: ``num_heads`` causal attentions of width ``d_out``, their results put next to each other,
    so the output is ``num_heads * d_out`` wide.

    What is left to ``MultiHeadAttention``: one big matrix instead of many small ones (split into
    heads by a reshape), an output projection, and a kernel that never writes down the ``(T, T)``
    weights.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            CausalAttention(d_in, d_out, context_length, dropout, qkv_bias)
            for _ in range(num_heads)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, d_in) -> (B, T, num_heads * d_out)``."""
        return torch.cat([head(x) for head in self.heads], dim=-1)
