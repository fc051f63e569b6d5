"""The key/value cache: what attention has computed for earlier tokens, so that it need not again.

It is an object that is passed into the same model (``model(idx, cache=cache)``), not a second
model. The memory is allocated once, ``2 * n_layers * B * H * context_length * D`` numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.config import ModelConfig


class LayerCache:
    """The keys and values of one attention layer, in a buffer of fixed size."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys = keys  # (B, H, context_length, D)
        self.values = values
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new ``(B, H, T, D)`` keys and values; return views of all so far, ``(B, H, S, D)``.

        The caller checks that they fit (``MultiHeadAttention`` does).
        """
        end = self.length + k.shape[2]
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """One :class:`LayerCache` per Transformer block."""

    def __init__(
        self,
        cfg: ModelConfig,
        batch_size: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape = (batch_size, cfg.n_heads, cfg.context_length, cfg.head_dim)
        self.layers = [
            LayerCache(
                torch.empty(shape, device=device, dtype=dtype),
                torch.empty(shape, device=device, dtype=dtype),
            )
            for _ in range(cfg.n_layers)
        ]

    @property
    def length(self) -> int:
        """Number of tokens that are cached."""
        return self.layers[0].length

    def truncate(self, length: int) -> None:
        """Forget all but the first ``length`` tokens (0 empties the cache; no memory is freed)."""
        for layer in self.layers:
            layer.length = min(layer.length, length)
