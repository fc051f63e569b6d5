"""Which parts of a model its answer depends on: each gives nothing for once.

The copies of a text in a batch differ in what is taken out, so that one call tries several parts.

Shapes: ``B`` parts tried at once, ``T`` tokens, ``V`` vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.model.door import scores
from groundup.model.gpt import GPTModel
from groundup.model.watch import watch
from groundup.xray.data import Change, Guess

TOKENS_AT_ONCE = 512
"""How many tokens the copies of a text may have together; ``watch`` keeps all that they become."""

NAMES = {"head": "att.context", "attention": "att", "feed_forward": "ff"}
"""Where in a layer each part gives its result."""


@dataclass(frozen=True)
class Part:
    """A part of a layer that can be taken out."""

    layer: int
    kind: str
    head: int | None = None

    @property
    def name(self) -> str:
        """Its name for ``watch``."""
        return f"trf_blocks.{self.layer}.{NAMES[self.kind]}"


def parts_of(layers: int, heads: int) -> list[Part]:
    """All parts: each layer's heads, all of them together, its feed-forward network."""
    return [
        part
        for layer in range(layers)
        for part in (
            *(Part(layer, "head", head) for head in range(heads)),
            Part(layer, "attention"),
            Part(layer, "feed_forward"),
        )
    ]


def batched(parts: Sequence[Part], tokens: int, most: int | None = None) -> list[Sequence[Part]]:
    """Parts in batches of which each has at most so many tokens, in as many copies of the text."""
    at_once = max(1, (most or TOKENS_AT_ONCE) // tokens)
    return [parts[i : i + at_once] for i in range(0, len(parts), at_once)]


def changes_without(
    model: GPTModel, idx: Tensor, parts: Sequence[Part], base: Tensor, few: int
) -> list[Change]:
    """Take out each of the parts, one at a time, and see what becomes of the model's answers.

    Args:
        model: in eval mode.
        idx: the text ``(1, T)``.
        parts: what to take out: one of the batches of :func:`batched`.
        base: log-probabilities ``(T, V)`` with nothing taken out.
        few: how many guesses to keep of each position.
    """
    answers = base.argmax(dim=-1)  # (T,)
    positions = torch.arange(len(answers), device=answers.device)
    changes: list[Change] = []
    with watch(model, edit=edits((part, row) for row, part in enumerate(parts))):
        logits = scores(model, idx.expand(len(parts), -1))  # (B, T, V)
    for part, row in zip(parts, logits.float().log_softmax(dim=-1), strict=True):
        effect = (row - base)[positions, answers]
        top = guesses(row, few)
        changes.append(Change(part.layer, part.kind, part.head, rounded(effect), top))
    return changes


def edits(missing: Iterable[tuple[Part, int | slice]]) -> dict[str, Callable[[Tensor], None]]:
    """What ``watch(model, edit=…)`` takes to let parts give nothing in certain rows of a batch."""
    places: dict[str, list[tuple[int | slice, ...]]] = {}
    for part, row in missing:
        place = (row,) if part.head is None else (row, part.head)
        places.setdefault(part.name, []).append(place)

    def emptying(places: list[tuple[int | slice, ...]]) -> Callable[[Tensor], None]:
        def empty(x: Tensor) -> None:
            for place in places:
                x[place] = 0

        return empty

    return {name: emptying(found) for name, found in places.items()}


def guesses(log_probabilities: Tensor, few: int) -> list[list[Guess]]:
    """The likeliest tokens of each row ``(T, V)``, and how likely they are."""
    found = log_probabilities.topk(min(few, log_probabilities.shape[-1]), dim=-1)
    rows = zip(found.indices.tolist(), found.values.exp().tolist(), strict=True)
    return [list(zip(ids, map(short, values), strict=True)) for ids, values in rows]


def rounded(values: Tensor | Iterable[float]) -> list[float]:
    """Numbers as a page needs them."""
    return [short(x) for x in (values.tolist() if isinstance(values, Tensor) else values)]


def short(value: float) -> float:
    """Five digits of a number."""
    return float(f"{value:.5g}")
