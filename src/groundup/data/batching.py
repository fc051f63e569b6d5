"""Batches: shuffled by a seed, epoch after epoch, resumable; and fixed ones for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from groundup.errors import UserError

Batch = tuple[Tensor, ...]
"""Tensors of one row per example. What they are, only the objective that gets them knows."""

Collate = Callable[[Sequence[int]], Batch]
"""Makes a batch of the examples of these numbers."""


class Batches(Protocol):
    """What the training loop asks of its data."""

    epoch: int  # epochs completed
    batch: int  # batches used of the epoch under way

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def next(self, count: int) -> list[Batch]:
        """The next ``count`` batches; fewer where an epoch ends, which is not crossed."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where it is, to go on from there."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state says."""
        ...


class ShuffledBatches:
    """Every epoch, all examples in an order that the seed and the epoch's number decide.

    A run that was saved in the middle of an epoch goes on with exactly the batches that it had not
    seen.

    With ``lengths``, like lengths come together, so that little is padding: each pool of ``POOL``
    batches is sorted by length, cut into batches, and those are shuffled. Whole epochs sorted by
    length would pad still less, but where the length says something about the label (spam is
    long), every batch would be of one label.

    Args:
        size: number of examples.
        batch_size: examples per batch.
        seed: of the shuffling, together with the epoch's number.
        collate: makes a batch of the examples of these numbers.
        lengths: tokens of each example.
        drop_last: leave an epoch's last batch out if it is a smaller one (unless it is the only
            one).
    """

    POOL = 8

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        collate: Collate,
        *,
        lengths: Sequence[int] | None = None,
        drop_last: bool = False,
    ) -> None:
        self.size, self.batch_size, self.seed, self.collate = size, batch_size, seed, collate
        self.lengths = None if lengths is None else torch.tensor(lengths)
        self.drop_last = drop_last and size >= batch_size
        self.epoch = self.batch = 0
        self._order: tuple[int, Tensor] | None = None  # an epoch's number, its examples' order

    def rows(self, epoch: int) -> list[list[int]]:
        """The examples' numbers in an epoch's batches; a smaller one comes last."""
        batches = list(self._shuffled(epoch).split(self.batch_size))
        return [batch.tolist() for batch in batches[: len(self)]]

    def _shuffled(self, epoch: int) -> Tensor:
        """The examples' numbers, batch after batch, ``(size,)``: 8 bytes each, and no list."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(self.size, generator=generator)
        if self.lengths is None:
            return order
        pools = order.split(self.POOL * self.batch_size)
        by_length = (pool[self.lengths[pool].argsort(stable=True)] for pool in pools)
        batches = [batch for pool in by_length for batch in pool.split(self.batch_size)]
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        mixed = [full[i] for i in torch.randperm(len(full), generator=generator)]
        return torch.cat([*mixed, *rest])

    def next(self, count: int) -> list[Batch]:
        """The next batches; see :class:`Batches`."""
        if self._order is None or self._order[0] != self.epoch:
            self._order = self.epoch, self._shuffled(self.epoch)
        order, end = self._order[1], min(self.batch + count, len(self))
        begins = range(self.batch * self.batch_size, end * self.batch_size, self.batch_size)
        self.batch = end
        if self.batch >= len(self):
            self.epoch, self.batch = self.epoch + 1, 0
        return [self.collate(order[i : i + self.batch_size].tolist()) for i in begins]

    def state_dict(self) -> dict[str, Any]:
        """Epoch, batch, and how many batches an epoch has."""
        return {"epoch": self.epoch, "batch": self.batch, "batches": len(self)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state says.

        Raises:
            UserError: the state is of other batches.
        """
        batches = state.get("batches")  # the first version did not keep it
        if state["batch"] >= len(self) or batches not in (None, len(self)):
            of_all = "" if batches is None else f" of {batches}"
            raise UserError(
                f"there is no batch {state['batch']}{of_all} in an epoch of {len(self)}; "
                "a run can be resumed only on the same batches"
            )
        self.epoch, self.batch = state["epoch"], state["batch"]

    def __len__(self) -> int:
        full, rest = divmod(self.size, self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)


class LoaderBatches:
    """Any loader's batches, epoch after epoch: PyTorch's ``DataLoader``, or a list."""

    def __init__(self, loader: Iterable[Batch]) -> None:
        self.loader = loader
        self.epoch = self.batch = 0
        self._iterator: Iterator[Batch] | None = None

    def next(self, count: int) -> list[Batch]:
        """The next batches; see :class:`Batches`."""
        if self._iterator is None:
            self._iterator = iter(self.loader)
        found = list(islice(self._iterator, count))
        self.batch += len(found)
        if self.batch >= len(self) or not found:
            self.epoch, self.batch, self._iterator = self.epoch + 1, 0, None
        return found

    def state_dict(self) -> dict[str, Any]:
        """Epoch and batch."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Skip what was seen; exact if the loader's order is the same every time."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self._iterator = islice(iter(self.loader), self.batch, None)

    def __len__(self) -> int:
        return len(self.loader)  # pyright: ignore[reportArgumentType]


def evenly_spaced(size: int, count: int | None) -> list[int]:
    """So many of ``size`` numbers, spread over all of them; all, if there are no more."""
    wanted = size if count is None else min(size, count)
    return torch.linspace(0, max(0, size - 1), wanted, dtype=torch.float64).round().long().tolist()


def evaluation_rows(
    size: int,
    batch_size: int,
    max_batches: int | None = None,
    lengths: Sequence[int] | np.ndarray | None = None,
) -> list[list[int]]:
    """Fixed batches, of all examples or of as many, spread over all, as fit; sorted by length."""
    chosen = evenly_spaced(size, None if max_batches is None else max_batches * batch_size)
    if lengths is not None:
        chosen.sort(key=lengths.__getitem__)
    return [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]


def pad_right(rows: Sequence[Sequence[int]], value: int, length: int | None = None) -> Tensor:
    """Rows of ids as one tensor ``(B, T)``, T being the longest row's length unless given."""
    length = length or max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])
