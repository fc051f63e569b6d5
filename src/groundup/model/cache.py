"""The key/value cache: what attention has computed for earlier tokens, so that it need not again.

It is an object that is passed into the same model (``model(idx, cache=cache)``), not a second
model. A row's keys and values take ``2 * n_layers * K * D`` numbers per token; the memory grows
with what is put in.

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

STEP = 64
"""The memory grows by a multiple of so many tokens."""


class LayerCache:
    """The keys and values of one attention layer.

    Attributes:
        keys: ``(B, K, capacity, D)``, each row filled from the left.
        values: the same of values.
        length: tokens that are in; of the fullest row, where rows differ.
        places: where each new one goes ``(B, T)``, where rows differ.
        visible: which tokens each new one attends to, ``(B, 1, T, S)``, where rows differ.
    """

    def __init__(self, keys: Tensor, values: Tensor, limit: int) -> None:
        self.keys, self.values = keys, values
        self.limit = limit  # most tokens of a row
        self.length = 0
        self.places: Tensor | None = None
        self.visible: Tensor | None = None

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Take in new tokens' keys and values: all so far, and which each new token attends to.

        ``(B, K, T, D)`` twice to ``(B, K, S, D)`` twice and :meth:`mask`.
        """
        mask = self.mask(k.shape[2])
        return *self.append(k, v), mask

    def positions(self, T: int) -> Tensor:
        """Where ``T`` new tokens stand: ``(T,)``, or ``(B, T)`` where rows differ in length."""
        if self.places is not None:
            return self.places
        return torch.arange(self.length, self.length + T, device=self.keys.device)

    def mask(self, T: int) -> Tensor | None:
        """Which tokens each of ``T`` new ones attends to, true where it does: all up to itself.

        ``(T, S)``, or ``(B, 1, T, S)`` where rows differ. ``None`` where the kernel needs no
        telling: for a single token, which attends to all, and for the first ones, since the kernel
        aligns its own causal mask to the top left.
        """
        if self.visible is not None:
            return self.visible
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
        if end > self.limit:
            raise UserError(
                f"the cache holds {self.limit} tokens, but got {end}; make a larger one"
            )
        if end > capacity:
            self.resize(len(k), grown(end, capacity, self.limit))
        if self.places is None:
            self.keys.narrow(2, self.length, k.shape[2]).copy_(k)
            self.values.narrow(2, self.length, k.shape[2]).copy_(v)
        else:
            rows = torch.arange(len(k), device=k.device)[:, None]  # (B, 1)
            self.keys[rows, :, self.places] = k.transpose(1, 2)
            self.values[rows, :, self.places] = v.transpose(1, 2)
        self.length = end
        return self.keys.narrow(2, 0, end), self.values.narrow(2, 0, end)

    def resize(self, rows: int, capacity: int) -> None:
        """Take memory for so many rows and tokens; what is in stays, as far as it fits."""
        # Not torch.empty: rows of different lengths leave gaps that are masked, which takes a
        # number to 0 but not the NaN that unused memory may hold.
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            B, K, S, D = old.shape
            new = old.new_zeros(rows, K, capacity, D)
            kept = slice(min(B, rows)), slice(None), slice(min(S, capacity))
            new[kept] = old[kept]
            setattr(self, name, new)


def grown(tokens: int, capacity: int, limit: int) -> int:
    """A capacity for at least so many tokens: twice what there was, so that growing is seldom."""
    return min(limit, max(-(-tokens // STEP) * STEP, 2 * capacity))


class KVCache:
    """One :class:`LayerCache` per Transformer block.

    Args:
        cfg: the model's shape.
        batch_size: rows.
        capacity: most tokens of a row, whose memory is taken at once; without it, the memory grows
            up to the model's context.
        device: where it is.
        dtype: what it holds.
    """

    def __init__(
        self,
        cfg: ModelConfig,
        batch_size: int = 1,
        *,
        capacity: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape = (batch_size, cfg.kv_heads, capacity or 0, cfg.head_size)
        self.layers = [
            LayerCache(
                torch.zeros(shape, device=device, dtype=dtype),
                torch.zeros(shape, device=device, dtype=dtype),
                capacity or cfg.context_length,
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

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.layers[0].keys.device

    # Rows that come and go, for the engine

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows there is memory for, and how many tokens of each."""
        B, _, capacity, _ = self.layers[0].keys.shape
        return B, capacity

    def resize(self, rows: int, capacity: int) -> None:
        """Take memory for so many rows and tokens of each; what is in stays, as far as it fits."""
        if (rows, capacity) != self.shape:
            for layer in self.layers:
                layer.resize(rows, capacity)

    def rows(self, first: int, lengths: Sequence[int], T: int) -> KVCache:
        """The cache of a few rows for one call of the model, which adds up to ``T`` tokens to each.

        Rows that get fewer are padded on the right. A causal model's tokens never see that
        padding, and what the cache holds for it is out of sight and overwritten as the rows grow.

        Args:
            first: the first of the rows, which stand together.
            lengths: how many tokens of each are in.
            T: new tokens.
        """
        longest, places = max(lengths), None
        if min(lengths) < longest:
            places = torch.tensor([range(n, n + T) for n in lengths], device=self.device)  # (B, T)
        return self.view(slice(first, first + len(lengths)), longest, places)

    def view(self, rows: slice, length: int, places: Tensor | None) -> KVCache:
        """The cache of a few rows, whose memory it shares.

        Args:
            rows: which.
            length: how many tokens are in, of the fullest at most.
            places: where each new token goes ``(B, T)``, where rows differ; it sees what is up to
                there.
        """
        visible = None
        if places is not None:
            seen = torch.arange(length + places.shape[1], device=places.device)  # (S,)
            visible = seen <= places[:, None, :, None]  # (B, 1, T, S)
        view = copy.copy(self)
        view.layers = []
        for memory in self.layers:
            layer = LayerCache(memory.keys[rows], memory.values[rows], memory.limit)
            layer.length, layer.places, layer.visible = length, places, visible
            view.layers.append(layer)
        return view

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Put the first ``length`` tokens of a row into another one."""
        for layer in self.layers:
            for memory in (layer.keys, layer.values):
                memory[target, :, :length] = memory[source, :, :length]

    def swap_rows(self, one: int, other: int, length: int) -> None:
        """Exchange two rows, of which no more than ``length`` tokens are in."""
        for layer in self.layers:
            for memory in (layer.keys, layer.values):
                kept = memory[one, :, :length].clone()
                memory[one, :, :length] = memory[other, :, :length]
                memory[other, :, :length] = kept

    def choose_rows(self, rows: Tensor) -> None:
        """Go on with these rows ``(B,)``, in their order; one may be there several times."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
