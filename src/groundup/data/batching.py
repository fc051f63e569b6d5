"""Batches of sequences of different lengths: like lengths together, so that little is padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Collate = Callable[[Sequence[int]], tuple[Tensor, Tensor]]
"""Makes a padded batch ``(inputs, targets)`` of the examples of these numbers."""


class BucketLoader:
    """Shuffled batches of examples of like length, of which any epoch can begin at any batch.

    Every epoch shuffles all examples, sorts each pool of ``POOL`` batches by length, cuts it into
    batches and shuffles those. Whole epochs sorted by length would pad still less, but where the
    length says something about the label (spam is long), every batch would be of one label.

    Args:
        lengths: tokens of each example.
        batch_size: examples per batch; an epoch's last one may be smaller.
        seed: of the shuffling, together with the epoch's number.
        collate: makes a batch of the examples of these numbers.
    """

    POOL = 8

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, collate: Collate
    ) -> None:
        self.lengths = torch.tensor(lengths)
        self.batch_size, self.seed, self.collate = batch_size, seed, collate
        self.epoch, self.skip = 0, 0

    def start(self, epoch: int, batch: int) -> None:
        """Let the next iteration be the given epoch from the given batch on."""
        self.epoch, self.skip = epoch, batch

    def batches(self) -> list[list[int]]:
        """The examples' numbers in the epoch's batches; the smaller one, if any, comes last."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        order = torch.randperm(len(self.lengths), generator=generator)
        batches: list[Tensor] = []
        for pool in order.split(self.POOL * self.batch_size):
            pool = pool[self.lengths[pool].argsort(stable=True)]
            batches += pool.split(self.batch_size)
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        shuffled = torch.randperm(len(full), generator=generator)
        return [full[i].tolist() for i in shuffled] + [batch.tolist() for batch in rest]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in self.batches()[self.skip :]:
            yield self.collate(rows)

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)


def evaluation_batches(
    lengths: Sequence[int], batch_size: int, max_batches: int | None = None
) -> list[list[int]]:
    """Fixed batches sorted by length: of all examples, or of as many, spread over all, as fit."""
    wanted = len(lengths) if max_batches is None else min(len(lengths), max_batches * batch_size)
    chosen = torch.linspace(0, max(0, len(lengths) - 1), wanted).round().long().tolist()
    chosen.sort(key=lambda row: lengths[row])
    return [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]


def pad_right(rows: Sequence[Sequence[int]], value: int, length: int | None = None) -> Tensor:
    """Rows of ids as one tensor ``(B, T)``, T being the longest row's length unless given."""
    length = length or max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])
