"""The attention ladder: from a dot product to multi-head attention, one idea per rung.

For reading. The last rung is the course's ``MultiHeadAttention`` in full, and computes what
``attention.MultiHeadAttention`` computes, from the same weights (a test proves it to 1e-6); that
class is the one that the model uses.

Shapes: ``B`` batch, ``T`` tokens, ``H`` heads, ``D`` columns (of a head). Rungs 1 to 3 take one
sequence ``(T, d_in)``; from rung 4 on there is a batch ``(B, T, d_in)``.
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

    What is left to rung 6: one big matrix instead of many small ones, and an output projection.
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


class MultiHeadAttentionSpelledOut(nn.Module):
    """Rung 6: all heads at once, out of one big matrix each for queries, keys and values.

    New: a head is ``head_dim`` columns of the big matrix, so splitting is a reshape; the heads
    are one more dimension of the same products; an output projection lets their results mix.

    What is left to ``attention.MultiHeadAttention``: a key/value cache, and a kernel that never
    writes down the ``(T, T)`` weights. Either class loads the other's state dict.

    Args:
        d_in: width of the input.
        d_out: width of the output, shared by all heads.
        context_length: most tokens that one call may see.
        dropout: probability of dropping an attention weight while training.
        num_heads: number of heads; each gets ``d_out / num_heads`` columns.
        qkv_bias: whether the query, key and value projections have a bias.

    Raises:
        UserError: ``d_out`` is not divisible by ``num_heads``.
    """

    mask: Tensor

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
        if d_out % num_heads:
            raise UserError(f"d_out ({d_out}) must be divisible by num_heads ({num_heads})")
        self.num_heads = num_heads
        self.head_dim = d_out // num_heads
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out)
        self.dropout = nn.Dropout(dropout)
        mask = torch.ones(context_length, context_length, dtype=torch.bool).triu(diagonal=1)
        self.register_buffer("mask", mask, persistent=False)  # True above the diagonal: the future
        self.register_load_state_dict_pre_hook(drop_stored_mask)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, d_in) -> (B, T, d_out)``."""
        B, T, _ = x.shape
        if T > len(self.mask):
            raise UserError(f"{T} tokens, but context_length is {len(self.mask)}; pass fewer")
        queries = self.W_query(x)  # (B, T, d_out), and d_out = H * D
        keys = self.W_key(x)  # (B, T, d_out)
        values = self.W_value(x)  # (B, T, d_out)

        queries = queries.view(B, T, self.num_heads, self.head_dim)  # (B, T, H, D)
        keys = keys.view(B, T, self.num_heads, self.head_dim)  # (B, T, H, D)
        values = values.view(B, T, self.num_heads, self.head_dim)  # (B, T, H, D)

        queries = queries.transpose(1, 2)  # (B, H, T, D)
        keys = keys.transpose(1, 2)  # (B, H, T, D)
        values = values.transpose(1, 2)  # (B, H, T, D)

        scores = queries @ keys.transpose(2, 3)  # (B, H, T, T)
        scores = scores / self.head_dim**0.5  # (B, H, T, T)
        scores = scores.masked_fill(self.mask[:T, :T], -torch.inf)  # (B, H, T, T)
        weights = torch.softmax(scores, dim=-1)  # (B, H, T, T), each row sums to 1
        weights = self.dropout(weights)  # (B, H, T, T)

        context = weights @ values  # (B, H, T, D)
        context = context.transpose(1, 2)  # (B, T, H, D)
        context = context.flatten(2)  # (B, T, d_out), the heads next to each other
        return self.out_proj(context)  # (B, T, d_out)
