"""The key/value cache: what attention has computed for earlier tokens, so that it need not again.

It is an object that is passed into the same model (``model(idx, cache=cache)``), not a second
model. The memory is allocated once, ``2 * n_layers * B * K * capacity * D`` numbers.

Shapes: ``B`` rows (sequences), ``T`` new tokens, ``S`` tokens attended to (cached + new), ``K``
heads of keys and values, ``D`` columns per head.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from groundup.config import ModelConfig
from groundup.errors import UserError


class LayerCache:
    """The keys and values of one attention layer, in a buffer of fixed size."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys = keys  # (B, K, capacity, D)
        self.values = values
        self.length = 0

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Take in new tokens' keys and values: all so far, and which each new token attends to.

        ``(B, K, T, D)`` twice to ``(B, K, S, D)`` twice and :meth:`mask`.
        """
        mask = self.mask(k.shape[2])
        return *self.append(k, v), mask

    def positions(self, T: int) -> Tensor:
        """Where ``T`` new tokens stand in their sequence: ``(T,)``."""
        return torch.arange(self.length, self.length + T, device=self.keys.device)

    def mask(self, T: int) -> Tensor | None:
        """Which tokens each of ``T`` new ones attends to: ``(T, S)``, true where it does.

        ``None`` where the kernel needs no telling: for a single token, which attends to all, and
        for the first ones, since the kernel aligns its own causal mask to the top left.
        """
        if self.length == 0 or T == 1:
            return None
        ones = torch.ones(T, self.length + T, dtype=torch.bool, device=self.keys.device)
        return ones.tril(diagonal=self.length)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new ``(B, K, T, D)`` keys and values; return views of all so far, ``(B, K, S, D)``.

        Raises:
            UserError: they do not fit.
        """
        end, capacity = self.length + k.shape[2], self.keys.shape[2]
        if end > capacity:
            raise UserError(f"the cache holds {capacity} tokens, but got {end}; make a larger one")
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
        capacity: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape = (batch_size, cfg.kv_heads, capacity or cfg.context_length, cfg.head_size)
        # Not torch.empty: rows of different lengths leave gaps that are masked, which takes a
        # number to 0 but not the NaN that unused memory may hold.
        self.layers = [
            LayerCache(
                torch.zeros(shape, device=device, dtype=dtype),
                torch.zeros(shape, device=device, dtype=dtype),
            )
            for _ in range(cfg.n_layers)
        ]

    @property
    def length(self) -> int:
        """Number of tokens that are cached."""
        return self.layers[0].length

    def positions(self, T: int) -> Tensor:
        """Where ``T`` new tokens stand: ``(T,)``, or ``(B, T)`` where rows differ in length."""
        return self.layers[0].positions(T)

    def truncate(self, length: int) -> None:
        """Forget all but the first ``length`` tokens (0 empties the cache; no memory is freed)."""
        for layer in self.layers:
            layer.length = min(layer.length, length)


class RaggedCache:
    """The cache of rows of different lengths, which come and go while the others are written.

    Each row fills its own part of the memory from the left. The model does not meet this class
    but gets views of the memory: :meth:`add` gives one for the prompts of new rows, :meth:`step`
    one for a further token of every row.

    Args:
        memory: an empty cache; its batch size is the most rows at a time.
    """

    def __init__(self, memory: KVCache) -> None:
        self.memory = memory
        self.lengths: list[int] = []  # tokens per row; the rows in use are the first of the memory

    def add(self, lengths: Sequence[int]) -> KVCache:
        """Take rows for prompts of these lengths; return the cache to compute them with.

        The prompts are padded on the right. A causal model's prompts never see that padding, and
        what the cache holds for it is out of sight and overwritten as the rows grow.
        """
        first = len(self.lengths)
        self.lengths += lengths
        rows = slice(first, len(self.lengths))
        return self._view([LayerCache(m.keys[rows], m.values[rows]) for m in self.memory.layers])

    def step(self) -> KVCache:
        """Lengthen every row by one token; return the cache to compute these tokens with."""
        rows, longest = len(self.lengths), max(self.lengths)
        device = self.memory.layers[0].keys.device
        lengths = torch.tensor(self.lengths, device=device)  # (B,)
        visible = torch.arange(longest + 1, device=device) <= lengths[:, None]  # (B, S)
        self.lengths = [length + 1 for length in self.lengths]
        return self._view(
            [
                _OneMore(m.keys[:rows], m.values[:rows], longest, lengths, visible)
                for m in self.memory.layers
            ]
        )

    def remove(self, row: int) -> None:
        """Give up a row; the last row moves into its place."""
        length = self.lengths.pop()
        last = len(self.lengths)
        if row == last:
            return
        self.lengths[row] = length
        for layer in self.memory.layers:
            layer.keys[row, :, :length] = layer.keys[last, :, :length]
            layer.values[row, :, :length] = layer.values[last, :, :length]

    def _view(self, layers: list[LayerCache]) -> KVCache:
        view = copy.copy(self.memory)
        view.layers = layers
        return view


class _OneMore(LayerCache):
    """One attention layer's view of a :class:`RaggedCache` for one new token of every row."""

    def __init__(
        self, keys: Tensor, values: Tensor, longest: int, lengths: Tensor, visible: Tensor
    ) -> None:
        super().__init__(keys, values)
        self.length = longest
        self.lengths = lengths  # (B,)
        self.visible = visible  # (B, S)

    def positions(self, T: int) -> Tensor:
        return self.lengths[:, None]  # (B, 1)

    def mask(self, T: int) -> Tensor | None:
        return self.visible[:, None, None]  # (B, 1, 1, S)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(self.lengths), device=k.device)
        self.keys[rows, :, self.lengths] = k[:, :, 0]
        self.values[rows, :, self.lengths] = v[:, :, 0]
        self.length += 1
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]
