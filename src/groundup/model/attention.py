"""Causal multi-head attention: the class that the course builds, running on PyTorch's fast kernel.

The steps that lead here, each adding one idea, are in ``ladder.py``; a test proves that its last
rung computes the same numbers as this class.

Shapes: ``B`` batch, ``T`` new tokens, ``S`` tokens attended to (cached + new), ``H`` heads,
``D`` columns per head, ``C = H * D`` embedding width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.errors import UserError

if TYPE_CHECKING:
    from groundup.model.cache import LayerCache


SHORT = 256
"""Up to so many tokens, a CPU in bf16 is faster without PyTorch's kernel."""


class MultiHeadAttention(nn.Module):
    """Masked self-attention with several heads in parallel (Vaswani et al. 2017, section 3.2.2).

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
        self.d_out = d_out
        self.context_length = context_length
        self.num_heads = num_heads
        self.head_dim = d_out // num_heads
        self.dropout = dropout
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out)
        self.register_load_state_dict_pre_hook(drop_stored_mask)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Mix each token with those before it: ``(B, T, d_in) -> (B, T, d_out)``.

        With a ``cache``, ``x`` holds only the new tokens: their keys and values are appended to
        the cached ones, and every new token attends to all of those up to itself.
        """
        B, T, _ = x.shape
        past = cache.length if cache is not None else 0
        if past + T > self.context_length:
            raise UserError(
                f"attention over {past + T} tokens, but context_length is {self.context_length}; "
                "pass fewer tokens or build the model with a longer context_length"
            )
        q = self._split_heads(self.W_query(x))  # (B, H, T, D)
        k = self._split_heads(self.W_key(x))  # (B, H, T, D)
        v = self._split_heads(self.W_value(x))  # (B, H, T, D)
        mask = None  # the causal mask is never stored: the kernel knows it ...
        if cache is not None:
            mask = cache.mask(T)  # ... but not that cached tokens come before the new ones
            k, v = cache.append(k, v)  # (B, H, S, D)
        dropout = self.dropout if self.training else 0.0
        if mask is None and 1 < T <= SHORT and x.device.type == "cpu" and q.dtype == torch.bfloat16:
            context = short_attention(q, k, v, dropout)  # (B, H, T, D)
        else:
            context = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None and T > 1
            )  # (B, H, T, D)
        context = context.transpose(1, 2).reshape(B, T, self.d_out)  # (B, T, C)
        return self.out_proj(context)

    def _split_heads(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        return x.view(B, T, self.num_heads, self.head_dim).transpose(1, 2)  # (B, H, T, D)


def short_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Causal attention spelled out, as on the ladder: ``(B, H, T, D)`` thrice to ``(B, H, T, D)``.

    On a CPU in bf16, PyTorch's kernel is made for long texts: for up to ``SHORT`` tokens this takes
    a third to four fifths of its time (``benchmarks/attention.py``).
    """
    T, D = q.shape[-2:]
    scores = (q * D**-0.5) @ k.transpose(-2, -1)  # (B, H, T, T)
    future = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)  # (T, T)
    weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1)  # (B, H, T, T)
    return F.dropout(weights, dropout).to(v.dtype) @ v


def drop_stored_mask(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object
) -> None:
    """Ignore the causal mask that checkpoints of the course's own classes carry as a buffer."""
    state_dict.pop(prefix + "mask", None)
