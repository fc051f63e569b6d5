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

    def deal(self, rank: int, size: int) -> None:
        """Let each of ``size`` processes have its part of every batch; this is number ``rank``."""
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

    Several processes have one order: it is cut into batches of ``batch_size`` times their number,
    and of each of these every process takes its part. A part may be of no example, ``B = 0``,
    where an epoch's last batch has fewer examples than there are processes.

    With ``lengths``, like lengths come together, so that little is padding: each pool of ``POOL``
    batches is sorted by length, cut into batches, and those are shuffled. Whole epochs sorted by
    length would pad still less, but where the length says something about the label (spam is
    long), every batch would be of one label.

    Args:
        size: number of examples.
        batch_size: examples per batch, of each process.
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
        self._drops = drop_last
        self.epoch = self.batch = self._offset = 0  # examples before the epoch's first batch
        self.deal(0, 1)
        self._order: tuple[int, Tensor] | None = None  # an epoch's number, its examples' order

    def deal(self, rank: int, size: int) -> None:
        """Let each of ``size`` processes have its part of every batch; this is number ``rank``.

        Raises:
            UserError: there are more processes than examples.
        """
        if size > max(1, self.size):
            raise UserError(
                f"{size} processes cannot share {self.size:,} training examples: start as many "
                "processes as there are at most, or train on more"
            )
        self.part = slice(rank, None, size)  # of examples sorted by length, an even share
        self.global_batch = size * self.batch_size
        self.drop_last = self._drops and self.size >= self.global_batch

    def rows(self, epoch: int) -> list[list[int]]:
        """The examples' numbers in an epoch's batches of all processes; a smaller one is last."""
        batches = list(self._shuffled(epoch).split(self.global_batch))
        return [batch.tolist() for batch in batches[: len(self)]]

    def _shuffled(self, epoch: int) -> Tensor:
        """The examples' numbers, batch after batch, ``(size,)``."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        order = shuffled(self.size, generator)
        if self.lengths is None:
            return order
        pools = order.split(self.POOL * self.global_batch)
        by_length = (pool[self.lengths[pool].argsort(stable=True)] for pool in pools)
        batches = [batch for pool in by_length for batch in pool.split(self.global_batch)]
        full = [batch for batch in batches if len(batch) == self.global_batch]
        rest = [batch for batch in batches if len(batch) < self.global_batch]
        mixed = [full[i] for i in torch.randperm(len(full), generator=generator)]
        return torch.cat([*mixed, *rest])

    def next(self, count: int) -> list[Batch]:
        """The next batches; see :class:`Batches`."""
        if self._order is None or self._order[0] != self.epoch:
            self._order = self.epoch, self._shuffled(self.epoch)
        order, step = self._order[1], self.global_batch
        end = min(self.batch + count, self._count(self._offset))
        begins = range(self._offset + self.batch * step, self._offset + end * step, step)
        self._go_to(self.epoch, end * step + self._offset)
        return [self._mine(order[i : i + step].tolist()) for i in begins]

    def _mine(self, rows: list[int]) -> Batch:
        """This process's part of a batch."""
        if mine := rows[self.part]:
            return self.collate(mine)
        return nothing_of(self.collate(rows[:1]))

    def state_dict(self) -> dict[str, Any]:
        """Epoch, batch, how many batches an epoch has; and the place in examples."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "batches": len(self),
            "size": self.size,
            "global_batch": self.global_batch,
            "examples": self._offset + self.batch * self.global_batch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state says, which may be of larger or smaller batches.

        Raises:
            UserError: the state is of other examples, or of another order.
        """
        batches = state.get("batches")  # the first version did not keep it
        fits = state["batch"] < len(self) and batches in (None, len(self))
        if state["size"] != self.size if "size" in state else not fits:
            of_all = "" if batches is None else f" of {batches}"
            raise UserError(
                f"there is no batch {state['batch']}{of_all} in an epoch of {len(self)}; "
                "a run can be resumed only on the same batches"
            )
        before = state.get("global_batch", self.global_batch)
        examples = state.get("examples", state["batch"] * before)
        if self.lengths is not None and before != self.global_batch and examples:
            raise UserError(
                "the run was saved within an epoch whose examples are sorted by length in groups "
                f"that depend on batch size times processes, which was {before} and now is "
                f"{self.global_batch}; go on with as many processes as before, or with a "
                f"--batch-size that makes {before}"
            )
        self._go_to(state["epoch"], examples)

    def _go_to(self, epoch: int, examples: int) -> None:
        """Stand behind so many examples of an epoch, at the next one's beginning if it is over."""
        self.epoch, (self.batch, self._offset) = epoch, divmod(examples, self.global_batch)
        if self.batch >= self._count(self._offset):
            self.epoch, self.batch, self._offset = epoch + 1, 0, 0

    def _count(self, offset: int = 0) -> int:
        """Batches of an epoch whose first one begins behind so many examples."""
        full, rest = divmod(self.size - offset, self.global_batch)
        return full + (1 if rest and not self.drop_last else 0)

    def __len__(self) -> int:
        return self._count()


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

    def deal(self, rank: int, size: int) -> None:
        """One process has them all.

        Raises:
            UserError: there are several.
        """
        if size > 1:
            raise UserError(
                "a loader's batches are its own, and cannot be dealt to several processes; use "
                "ShuffledBatches, or start one process"
            )

    def state_dict(self) -> dict[str, Any]:
        """Epoch and batch."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Skip what was seen; exact if the loader's order is the same every time."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self._iterator = islice(iter(self.loader), self.batch, None)

    def __len__(self) -> int:
        return len(self.loader)  # pyright: ignore[reportArgumentType]


def shuffled(count: int, generator: torch.Generator) -> Tensor:
    """The numbers below ``count``, mixed, in 4 bytes each where that is enough.

    Which order it is does not depend on that.
    """
    dtype = torch.int32 if count <= 1 << 31 else torch.int64
    return torch.randperm(count, generator=generator, dtype=dtype)


def nothing_of(batch: Batch) -> Batch:
    """A batch of no example, ``B = 0``: its loss is 0, and so is its gradient."""
    return tuple(tensor[:0] for tensor in batch)


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
