"""From GPT-2 to Llama and Qwen3, one part after the other, each written out to be read.

The ladder (``ladder.py``) ends at GPT-2's attention. Four parts of it have been replaced since.
Each rung spells one of them out; the model's own parts compute the same faster, and a test proves
it. What stays is the block: norm, attention, add; norm, feed-forward network, add.

Shapes: ``B`` batch, ``T`` tokens, ``C`` embedding width, ``H`` heads of queries, ``K`` of keys
and values, ``D`` columns per head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNormSpelledOut(nn.Module):
    """Rung 7: LayerNorm without the mean and without the shift (Zhang & Sennrich 2019).

    New: a vector is only divided by its root mean square. That training stays stable is the work
    of the division; taking the mean off costs time and does not help.
    """

    def __init__(self, emb_dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, C) -> (B, T, C)``."""
        mean_square = x.pow(2).mean(dim=-1, keepdim=True)  # (B, T, 1)
        return self.scale * x / torch.sqrt(mean_square + self.eps)


def rotary_embedding(x: Tensor, theta: float = 10000.0) -> Tensor:
    """Rung 8: positions as rotations of queries and keys (RoPE; Su et al. 2021).

    GPT-2 learns a vector for each position and adds it to the token's: what it knows of position 5
    says nothing of position 6, and there is none after the last. Here columns ``i`` and
    ``i + D / 2`` of a head are the two coordinates of a point, and the token at position ``t``
    turns it by ``t`` times the pair's own angle. A rotated query times a rotated key depends on
    the *difference* of their positions alone.

    Args:
        x: queries or keys ``(B, H, T, D)``, of positions 0 to ``T - 1``.
        theta: the last pair turns ``theta`` times slower than the first, nearly.

    Returns:
        ``(B, H, T, D)``, as long as before: a rotation changes no length.
    """
    T, D = x.shape[-2:]
    rotated = torch.empty_like(x)
    for i in range(D // 2):
        speed = theta ** (-2 * i / D)  # radians per token
        angle = speed * torch.arange(T, dtype=torch.float32)  # (T,)
        a, b = x[..., i], x[..., i + D // 2]  # (B, H, T) each: the point (a, b)
        rotated[..., i] = a * torch.cos(angle) - b * torch.sin(angle)
        rotated[..., i + D // 2] = a * torch.sin(angle) + b * torch.cos(angle)
    return rotated


def rotary_embedding_of_neighbours(x: Tensor, theta: float = 10000.0) -> Tensor:
    """Rung 8, as Meta's Llama and llama.cpp have it: columns ``2 i`` and ``2 i + 1`` are a point.

    As complex numbers it is one product: ``(a + bi) * e^(i angle)``. With the columns in another
    order it is :func:`rotary_embedding`, so files of either kind hold the same model once their
    rows are put in order.
    """
    T, D = x.shape[-2:]
    speeds = theta ** (-torch.arange(0, D, 2) / D)  # (D/2,)
    angles = torch.outer(torch.arange(T), speeds)  # (T, D/2)
    points = torch.view_as_complex(x.unflatten(-1, (D // 2, 2)).contiguous())  # (B, H, T, D/2)
    turned = points * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2)  # (B, H, T, D)


class GroupedQueryAttention(nn.Module):
    """Rung 9: fewer heads of keys and values than of queries (Ainslie et al. 2023).

    New: while a text is generated, the keys and values of all earlier tokens are read for every
    new one, and that cache is what limits long texts. If ``H / K`` heads of queries share one head
    of keys and values, the cache is that many times smaller, and hardly anything is lost.

    With ``qk_norm``, each head's queries and keys are normalised before they are compared
    (Qwen3), so that no score can run away while training.

    Args:
        d_in: width of the input and of the output.
        num_heads: heads of queries, ``H``.
        num_kv_heads: heads of keys and values, ``K``; divides ``H``.
        head_dim: columns per head, ``D``; ``H * D`` need not be ``d_in``.
        qk_norm: whether queries and keys are normalised.
    """

    def __init__(
        self, d_in: int, num_heads: int, num_kv_heads: int, head_dim: int, *, qk_norm: bool = False
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.W_query = nn.Linear(d_in, num_heads * head_dim, bias=False)
        self.W_key = nn.Linear(d_in, num_kv_heads * head_dim, bias=False)
        self.W_value = nn.Linear(d_in, num_kv_heads * head_dim, bias=False)
        self.out_proj = nn.Linear(num_heads * head_dim, d_in, bias=False)
        self.q_norm = RMSNormSpelledOut(head_dim) if qk_norm else nn.Identity()
        self.k_norm = RMSNormSpelledOut(head_dim) if qk_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, d_in) -> (B, T, d_in)``."""
        B, T, _ = x.shape
        queries = self.W_query(x).view(B, T, self.num_heads, self.head_dim)
        keys = self.W_key(x).view(B, T, self.num_kv_heads, self.head_dim)
        values = self.W_value(x).view(B, T, self.num_kv_heads, self.head_dim)

        queries = rotary_embedding(self.q_norm(queries).transpose(1, 2))  # (B, H, T, D)
        keys = rotary_embedding(self.k_norm(keys).transpose(1, 2))  # (B, K, T, D)
        values = values.transpose(1, 2)  # (B, K, T, D)

        shared_by = self.num_heads // self.num_kv_heads
        keys = keys.repeat_interleave(shared_by, dim=1)  # (B, H, T, D): 1, 1, 1, 2, 2, 2, …
        values = values.repeat_interleave(shared_by, dim=1)  # (B, H, T, D)

        scores = queries @ keys.transpose(2, 3) / self.head_dim**0.5  # (B, H, T, T)
        future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
        weights = torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)
        context = (weights @ values).transpose(1, 2).flatten(2)  # (B, T, H * D)
        return self.out_proj(context)  # (B, T, d_in)


class SwiGLUSpelledOut(nn.Module):
    """Rung 10: a feed-forward network with a gate (Shazeer 2020).

    New: GPT-2 widens a vector and lets GELU decide, number by number, what passes. Here a second
    matrix computes what passes: ``up`` proposes, ``SiLU(gate)``, which is ``gate`` times its own
    sigmoid, scales each proposal, and ``down`` narrows back. "We offer no explanation as to why
    these architectures seem to work; we attribute their success, as all else, to divine
    benevolence", writes Shazeer.
    """

    def __init__(self, emb_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(emb_dim, hidden_dim, bias=False)
        self.up_proj = nn.Linear(emb_dim, hidden_dim, bias=False)
        self.down_proj = nn.Linear(hidden_dim, emb_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, C) -> (B, T, C)``."""
        gate = self.gate_proj(x)  # (B, T, hidden_dim)
        gate = gate * torch.sigmoid(gate)  # SiLU
        proposals = self.up_proj(x)  # (B, T, hidden_dim)
        return self.down_proj(gate * proposals)
