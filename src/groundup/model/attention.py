"""Causal multi-head attention: the class that the course builds, running on PyTorch's fast kernel.

The steps that lead here, each adding one idea, are in ``ladder.py``; its last rung spells out what
this class computes, and a test proves that the two are equal.

Shapes: ``B`` batch, ``T`` new tokens, ``S`` tokens attended to (cached + new), ``H`` heads,
``K`` heads of keys and values, ``D`` columns per head, ``C`` embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.errors import UserError
from groundup.kernels.tokens import attend as attend_one
from groundup.kernels.tokens import is_laid_out, is_small
from groundup.model.linear import Linear
from groundup.model.rotary import rotate

if TYPE_CHECKING:
    from groundup.model.cache import LayerCache


class MultiHeadAttention(nn.Module):
    """Masked self-attention with several heads in parallel (Vaswani et al. 2017, section 3.2.2).

    What newer models change about it (``ladder_modern.py`` has each as a rung) is given by name:
    fewer heads of keys and values, each shared by a group of queries' heads, make the cache smaller
    (grouped-query attention, Ainslie et al. 2023); an RMSNorm over each head's queries and keys
    keeps the scores small (Dehghani et al. 2023; Qwen3).

    Args:
        d_in: width of the input.
        d_out: width of the output, shared by all heads.
        context_length: most tokens that one call may see.
        dropout: probability of dropping an attention weight while training.
        num_heads: number of heads; each gets ``d_out / num_heads`` columns.
        qkv_bias: whether the query, key and value projections have a bias.
        num_kv_heads: heads of keys and values; ``num_heads`` unless told otherwise.
        head_dim: columns per head, where they are not ``d_out / num_heads``.
        out_bias: whether the output projection has a bias.
        qk_norm: makes the norm of queries and keys; there is none unless told otherwise.

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
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        out_bias: bool = True,
        qk_norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if head_dim is None and d_out % num_heads:
            raise UserError(f"d_out ({d_out}) must be divisible by num_heads ({num_heads})")
        self.d_out = d_out
        self.context_length = context_length
        self.num_heads = num_heads
        self.head_dim = head_dim or d_out // num_heads
        self.num_kv_heads = num_kv_heads or num_heads
        width, kv_width = num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.W_query = Linear(d_in, width, bias=qkv_bias)
        self.W_key = Linear(d_in, kv_width, bias=qkv_bias)
        self.W_value = Linear(d_in, kv_width, bias=qkv_bias)
        self.out_proj = Linear(width, d_out, bias=out_bias)
        self.q_norm = qk_norm(self.head_dim) if qk_norm else None
        self.k_norm = qk_norm(self.head_dim) if qk_norm else None
        self.dropout = nn.Dropout(dropout)
        self.register_load_state_dict_pre_hook(drop_stored_mask)

    def forward(
        self,
        x: Tensor,
        cache: LayerCache | None = None,
        mask: Tensor | None = None,
        turn: Tensor | None = None,
    ) -> Tensor:
        """Mix each token with those before it: ``(B, T, d_in) -> (B, T, d_out)``.

        Args:
            x: the tokens.
            cache: holds what was computed for earlier tokens; then ``x`` is only the new ones, each
                of which attends to all of those up to itself.
            mask: which tokens may attend to which, where that is not just "the earlier ones".
            turn: by how much each token's queries and keys are rotated (``rotary.py``), if they
                are.
        """
        q = self._split_heads(self.W_query(x), self.q_norm)  # (B, H, T, D)
        k = self._split_heads(self.W_key(x), self.k_norm)  # (B, K, T, D)
        v = self._split_heads(self.W_value(x))  # (B, K, T, D)
        if turn is not None:
            q, k = rotate(q, turn), rotate(k, turn)
        check_length(x.shape[1] + (cache.length if cache else 0), self.context_length)
        if cache is not None:
            k, v, mask = cache.extend(k, v)  # (B, K, S, D) twice
        context = attend(q, k, v, mask, self.dropout)  # (B, H, T, D)
        return self.out_proj(context.transpose(1, 2).flatten(2))  # (B, T, C)

    def _split_heads(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        x = x.unflatten(-1, (-1, self.head_dim))  # (B, T, H or K, D)
        return (x if norm is None else norm(x)).transpose(1, 2)


ONE_BY_ONE = 8
"""Up to so many new tokens of a row are left to our own kernel on a CPU, as many as come with
guesses; of more, PyTorch's takes less time."""

SHORT = 256
"""Up to so many tokens, a CPU in bf16 is faster without PyTorch's kernel."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: nn.Dropout) -> Tensor:
    """The values, mixed by how well keys match queries: the one place that chooses a kernel.

    PyTorch's fused kernel never writes down the ``(T, S)`` weights. They are spelled out where

    - somebody looks at them: ``dropout``, through which they go, has a forward hook (``watch``);
    - a CPU computes up to ``SHORT`` tokens in bf16: that kernel is made for long texts, and
      spelling it out takes a third to four fifths of its time (``benchmarks/attention.py``).

    A few tokens are left to our own kernel, one after the other: for one it is sooner called, and
    each gets the bits that it gets alone, whether its row is padded in a batch or comes with
    guesses. (Where activations are rounded to 8 bits, another last bit can make another text.)

    Args:
        q: queries ``(B, H, T, D)``.
        k: keys ``(B, K, S, D)``; each head of them serves ``H / K`` heads of queries.
        v: values ``(B, K, S, D)``.
        mask: true where a query may see a key, broadcast to ``(B, H, T, S)``. ``None`` is causal: a
            query sees the keys up to its own, and a single query all of them.
        dropout: drops weights while training.

    Returns:
        ``(B, H, T, D)``.
    """
    T = q.shape[2]
    if dropout._forward_hooks or dropout._forward_pre_hooks:
        return attend_explicitly(q, k, v, mask, dropout)
    drops = dropout.p if dropout.training else 0.0
    tokens = q.transpose(1, 2)  # (B, T, H, D)
    if T <= ONE_BY_ONE and not drops and is_small(tokens) and is_laid_out(q, k, v, mask):
        return _one_by_one(tokens, k, v, mask).transpose(1, 2)
    short = mask is None and 1 < T <= SHORT and q.dtype == torch.bfloat16
    if short and q.device.type == "cpu":
        return attend_explicitly(q, k, v, mask, dropout)
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        dropout_p=drops,
        # Not the comparisons themselves: to torch.jit.trace, sizes are tensors.
        is_causal=mask is None and bool(T > 1),
        enable_gqa=bool(q.shape[1] != k.shape[1]),
    )


def _one_by_one(tokens: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """:func:`attend`, a token at a time; queries and result are ``(B, T, H, D)``."""
    T = tokens.shape[1]
    if T == 1:
        return attend_one(tokens, k, v, mask)
    each: list[Tensor] = []
    for t in range(T):
        query = tokens[:, t : t + 1].contiguous()
        if mask is None:
            each.append(attend_one(query, k[:, :, : t + 1], v[:, :, : t + 1], None))
        else:
            each.append(attend_one(query, k, v, mask[..., t : t + 1, :]))
    return torch.cat(each, dim=1)


def attend_explicitly(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout: nn.Dropout | None = None,
) -> Tensor:
    """:func:`attend` as on the ladder, weights and all."""
    T, D = q.shape[-2:]
    if mask is None:
        visible = torch.ones(T, k.shape[-2], dtype=torch.bool, device=q.device)
        mask = visible.tril() if T > 1 else visible
    k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], dim=1) for each in (k, v))
    scores = (q * D**-0.5) @ k.transpose(-2, -1)  # (B, H, T, S)
    weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)  # (B, H, T, S)
    weights = weights if dropout is None else dropout(weights)
    return weights.to(v.dtype) @ v


def check_length(tokens: int, context_length: int) -> None:
    """Raise ``UserError`` if there are more tokens than the model can look at."""
    if tokens > context_length:
        raise UserError(
            f"the input has {tokens} tokens, but the model's context_length is {context_length}; "
            "pass at most that many (the last ones, say)"
        )


def drop_stored_mask(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object
) -> None:
    """Ignore the causal mask that checkpoints of the course's own classes carry as a buffer."""
    state_dict.pop(prefix + "mask", None)
