"""The small parts of a Transformer block: norms, activations, feed-forward networks, the block.

Shapes: ``B`` batch, ``T`` tokens, ``C`` embedding width (``emb_dim``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.config import FeedForwardKind, ModelConfig, NormKind
from groundup.kernels.tokens import is_plain, is_small, rms_norm
from groundup.model.attention import MultiHeadAttention
from groundup.model.linear import Linear

if TYPE_CHECKING:
    from groundup.model.cache import LayerCache


class LayerNorm(nn.Module):
    """Bring each token's vector to mean 0 and variance 1, then rescale (Ba et al. 2016)."""

    def __init__(self, emb_dim: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension: ``(B, T, C) -> (B, T, C)``; :meth:`formula`, fused."""
        return F.layer_norm(x, self.scale.shape, self.scale, self.shift, self.eps)

    def formula(self, x: Tensor) -> Tensor:
        """The same, step by step as in the course (a test holds the two equal)."""
        mean = x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)  # divided by C, not C - 1, as in GPT-2
        norm_x = (x - mean) / torch.sqrt(var + self.eps)  # eps: no division by zero
        return self.scale * norm_x + self.shift


class RMSNorm(nn.Module):
    """Bring each token's vector to a root mean square of 1, then rescale (Zhang & Sennrich 2019).

    What newer models use instead of LayerNorm: the mean stays where it is, and nothing is shifted,
    which costs less and learns as well.
    """

    def __init__(self, emb_dim: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension: ``(..., C) -> (..., C)``; ``ladder_modern.py``, fused."""
        if is_small(x) and is_plain(self.scale, x.dtype):
            return rms_norm(x, self.scale, self.eps)
        y = F.rms_norm(x.to(self.scale.dtype), self.scale.shape, self.scale, self.eps)
        return y.to(x.dtype)  # in bf16, squares are added up in fp32, as everybody does


NORMS: dict[NormKind, type[LayerNorm] | type[RMSNorm]] = {"layer": LayerNorm, "rms": RMSNorm}


class GELU(nn.Module):
    """The activation of GPT-2: ``x * Phi(x)``, in its tanh form (Hendrycks & Gimpel 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to every number of ``x``; :meth:`formula`, fused."""
        return F.gelu(x, approximate="tanh")

    def formula(self, x: Tensor) -> Tensor:
        """The same, step by step as in the course (a test holds the two equal)."""
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + torch.tanh(inner))


ACTIVATIONS: dict[FeedForwardKind, type[nn.Module]] = {
    "gelu": GELU,
    "gelu_exact": nn.GELU,  # x * Phi(x) itself, through the error function
}


class FeedForward(nn.Module):
    """Each token on its own: widen (four times, unless told otherwise), GELU, narrow back."""

    def __init__(self, cfg: ModelConfig | Mapping[str, Any]) -> None:
        super().__init__()
        cfg = ModelConfig.of(cfg)
        self.layers = nn.Sequential(
            Linear(cfg.emb_dim, cfg.feed_forward_dim, bias=cfg.mlp_bias),
            ACTIVATIONS[cfg.feed_forward](),
            Linear(cfg.feed_forward_dim, cfg.emb_dim, bias=cfg.mlp_bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, C) -> (B, T, C)``."""
        return self.layers(x)


class SwiGLU(nn.Module):
    """Llama's feed-forward network: what is widened passes a gate, ``SiLU(gate) * up`` (Shazeer
    2020), with the names of Hugging Face's.

    The gate is one more matrix, so ``hidden_dim`` is two thirds of GPT-2's for as many parameters.
    """

    def __init__(self, cfg: ModelConfig | Mapping[str, Any]) -> None:
        super().__init__()
        cfg = ModelConfig.of(cfg)
        self.gate_proj = Linear(cfg.emb_dim, cfg.feed_forward_dim, bias=cfg.mlp_bias)
        self.up_proj = Linear(cfg.emb_dim, cfg.feed_forward_dim, bias=cfg.mlp_bias)
        self.down_proj = Linear(cfg.feed_forward_dim, cfg.emb_dim, bias=cfg.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, C) -> (B, T, C)``."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


FEED_FORWARDS: dict[FeedForwardKind, type[FeedForward] | type[SwiGLU]] = {
    **dict.fromkeys(ACTIVATIONS, FeedForward),
    "swiglu": SwiGLU,
}


class TransformerBlock(nn.Module):
    """Attention lets tokens talk, the feed-forward network lets each think; both add to ``x``.

    A norm comes before each of the two ("pre-LN", GPT-2), and the shortcut around them keeps
    the gradient alive through many blocks.
    """

    def __init__(self, cfg: ModelConfig | Mapping[str, Any]) -> None:
        super().__init__()
        cfg = ModelConfig.of(cfg)
        self.att = MultiHeadAttention(
            d_in=cfg.emb_dim,
            d_out=cfg.emb_dim,
            context_length=cfg.context_length,
            dropout=cfg.drop_rate,
            num_heads=cfg.n_heads,
            qkv_bias=cfg.qkv_bias,
            num_kv_heads=cfg.n_kv_heads,
            head_dim=cfg.head_dim,
            out_bias=cfg.attn_bias,
            qk_norm=partial(RMSNorm, eps=cfg.norm_eps) if cfg.qk_norm else None,
        )
        self.ff = FEED_FORWARDS[cfg.feed_forward](cfg)
        self.norm1 = NORMS[cfg.norm](cfg.emb_dim, eps=cfg.norm_eps)
        self.norm2 = NORMS[cfg.norm](cfg.emb_dim, eps=cfg.norm_eps)
        self.drop_shortcut = nn.Dropout(cfg.drop_rate)

    def forward(
        self,
        x: Tensor,
        cache: LayerCache | None = None,
        mask: Tensor | None = None,
        turn: Tensor | None = None,
    ) -> Tensor:
        """``(B, T, C) -> (B, T, C)``; ``cache``, ``mask`` and ``turn`` are attention's."""
        x = x + self.drop_shortcut(self.att(self.norm1(x), cache, mask, turn))
        x = x + self.drop_shortcut(self.ff(self.norm2(x)))
        return x
