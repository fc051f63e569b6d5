"""Batches of several sources, mixed by shares: which example comes when is decided by the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup.data.batching import Batch, Collate, shuffled
from groundup.errors import UserError

TOLERANCE = 1e-6
"""So far from 1 may shares add up to."""


_BLOCK = 1024
"""Examples whose sources are drawn at once."""


@dataclass(frozen=True)
class Share:
    """A source's part in a mixture.

    Attributes:
        name: the source's.
        weight: which share of all examples is from it.
        size: how many examples it has.
        collate: makes a batch of the examples of these numbers.
    """

    name: str
    weight: float
    size: int
    collate: Collate


class MixedBatches:
    """Batches in which each example is drawn from a source by its share.

    Every source goes through its own examples in an order that the seed and its own epoch decide:
    none comes again before all have come. An epoch of the mixture has as many examples as all
    sources together; meanwhile a small source with a large share goes through several of its own.

    Args:
        shares: the sources, whose weights add up to 1.
        batch_size: examples per batch, of each process.
        seed: of the mixture and of the orders.
    """

    def __init__(self, shares: Sequence[Share], batch_size: int, seed: int) -> None:
        self.shares, self.batch_size, self.seed = list(shares), batch_size, seed
        self.weights = np.array([share.weight for share in shares])
        self.weights /= self.weights.sum()  # to the last bit
        self.epoch = self.batch = 0
        self.taken = [0] * len(self.shares)  # examples of each source so far
        self._orders: dict[int, tuple[int, Tensor]] = {}  # source -> its epoch, the order then
        self._drawn: tuple[int, np.ndarray] | None = None  # a block's number, its sources
        self.deal(0, 1)

    def deal(self, rank: int, size: int) -> None:
        """Let each of ``size`` processes have its part of every batch; this is number ``rank``."""
        self.part, self.global_batch = slice(rank, None, size), size * self.batch_size

    @property
    def size(self) -> int:
        """Examples per epoch: as many as all sources have."""
        return sum(share.size for share in self.shares)

    def __len__(self) -> int:
        return max(1, self.size // self.global_batch)

    def rows(self) -> list[tuple[int, int]]:
        """The next batch of all processes: sources and numbers of examples, which are taken so."""
        begin = sum(self.taken)
        sources = [self._source(begin + number) for number in range(self.global_batch)]
        self.batch += 1
        if self.batch >= len(self):
            self.epoch, self.batch = self.epoch + 1, 0
        return [(source, self._take(source)) for source in sources]

    def next(self, count: int) -> list[Batch]:
        """The next batches; see :class:`~groundup.data.batching.Batches`."""
        return [
            self._collate(self.rows()[self.part]) for _ in range(min(count, len(self) - self.batch))
        ]

    def progress(self) -> dict[str, float]:
        """How often each source was gone through."""
        pairs = zip(self.shares, self.taken, strict=True)
        return {f"epochs.{share.name}": round(taken / share.size, 6) for share, taken in pairs}

    def state_dict(self) -> dict[str, Any]:
        """Where it is, in each of the sources as well."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "examples": self.batch * self.global_batch,
            "taken": list(self.taken),
            "sizes": [share.size for share in self.shares],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state says, which may be of larger or smaller batches.

        Raises:
            UserError: the state is of other sources.
        """
        if state.get("sizes") != [share.size for share in self.shares]:
            raise UserError(
                "the run was saved with other sources; it can be resumed only on the same mixture"
            )
        self.epoch, self.batch = state["epoch"], state["examples"] // self.global_batch
        if self.batch >= len(self):
            self.epoch, self.batch = self.epoch + 1, 0
        self.taken = list(state["taken"])

    def _source(self, number: int) -> int:
        """Which source the nth example of the run is from, whatever batches it is cut into."""
        block, place = divmod(number, _BLOCK)
        if self._drawn is None or self._drawn[0] != block:
            generator = np.random.Generator(np.random.PCG64([self.seed, block]))
            drawn = generator.choice(len(self.shares), size=_BLOCK, p=self.weights)
            self._drawn = block, drawn
        return int(self._drawn[1][place])

    def _take(self, source: int) -> int:
        epoch, place = divmod(self.taken[source], self.shares[source].size)
        self.taken[source] += 1
        return int(self._order(source, epoch)[place])

    def _order(self, source: int, epoch: int) -> Tensor:
        """A source's examples in the order of one of its epochs."""
        known = self._orders.get(source)
        if known is None or known[0] != epoch:
            seeds = np.random.SeedSequence([self.seed, source, epoch])
            generator = torch.Generator().manual_seed(
                int(seeds.generate_state(1, np.uint64)[0] >> 1)
            )
            known = epoch, shuffled(self.shares[source].size, generator)
            self._orders[source] = known
        return known[1]

    def _collate(self, rows: list[tuple[int, int]]) -> Batch:
        chosen = [[row for of, row in rows if of == source] for source in range(len(self.shares))]
        pairs = zip(self.shares, chosen, strict=True)
        batches = [share.collate(own) for share, own in pairs if own]
        return tuple(torch.cat(tensors) for tensors in zip(*batches, strict=True))


def parse_shares(given: Sequence[str]) -> dict[str, float]:
    """Sources and their shares, given as ``books=0.7``.

    Raises:
        UserError: one is no such text, a source is there twice, or they do not add up to 1.
    """
    shares: dict[str, float] = {}
    for text in given:
        name, sign, weight = text.rpartition("=")
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if not sign or not name or not 0 < value <= 1:
            raise UserError(
                f"--mix is {text!r}; expected a prepared corpus and its share, more than 0 and at "
                "most 1, as in books=0.7"
            )
        if name in shares:
            raise UserError(f"--mix names {name} twice; give each corpus once")
        shares[name] = value
    total = sum(shares.values())
    if abs(total - 1) > TOLERANCE:
        raise UserError(
            f"the shares of --mix add up to {total:g}; expected 1: "
            f"{', '.join(f'{name}={value:g}' for name, value in shares.items())}"
        )
    return shares


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of paths, where these tell them apart; else all of them."""
    names = [path.rstrip("/").rsplit("/", 1)[-1] for path in paths]
    return names if len(set(names)) == len(names) else list(paths)
