"""Labelled texts as token ids, and how a batch of them is padded and read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from groundup.data.batching import evenly_spaced, pad_right
from groundup.errors import UserError
from groundup.tokenizers import Tokenizer


@dataclass(frozen=True)
class LabelledTokens:
    """Texts as ids, each with its class.

    Attributes:
        ids: the tokens of each text.
        classes: the number of each text's class.
        pad_token: fills the shorter rows of a batch, on the right.
        length: if given, every batch is padded to it and read at its last position, as in the
            course; else a batch is as long as its longest text, and each is read at its own last
            token. Attention is causal, so padding then changes nothing.
        truncated: number of texts that were longer than the model takes.
        token_dropout: probability that a token is left out of a batch (word dropout, Iyyer et al.
            2015): a classifier that never sees the same text twice learns less of it by heart.
    """

    ids: list[list[int]]
    classes: list[int]
    pad_token: int
    length: int | None = None
    truncated: int = 0
    token_dropout: float = 0.0

    @classmethod
    def encode(
        cls,
        texts: Iterable[str],
        classes: Sequence[int],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        read_padded: bool = False,
    ) -> LabelledTokens:
        """Tokenize texts; of a text of more than ``max_length`` tokens, the first ones count.

        Raises:
            UserError: a text is empty; all such are named by their place.
        """
        whole = [tokenizer.encode_alone(text) for text in texts]
        nothing = tokenizer.encode_alone("")
        empty = [str(number) for number, ids in enumerate(whole, 1) if ids == nothing]
        if empty:
            raise UserError(f"there is nothing to classify in an empty text ({', '.join(empty)})")
        return cls(
            [ids[:max_length] for ids in whole],
            list(classes),
            padding_token(tokenizer),
            max_length if read_padded else None,
            sum(len(ids) > max_length for ids in whole),
        )

    @property
    def confused(self) -> int:
        """How many texts are, as far as they are read, the same as one of another class."""
        classes: dict[tuple[int, ...], set[int]] = {}
        for ids, label in zip(self.ids, self.classes, strict=True):
            classes.setdefault(tuple(ids), set()).add(label)
        return sum(len(classes[tuple(ids)]) > 1 for ids in self.ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(ids) for ids in self.ids]

    def collate(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """A batch: ids ``(B, T)``, where each row is read ``(B,)``, and its class ``(B,)``."""
        texts = [self._thinned(self.ids[row]) for row in rows]
        ends = [self.length or len(text) for text in texts]
        return (
            pad_right(texts, self.pad_token, self.length),
            torch.tensor(ends) - 1,
            torch.tensor([self.classes[row] for row in rows]),
        )

    def sample(self, count: int | None) -> LabelledTokens:
        """So many of the texts, spread over all of them."""
        chosen = evenly_spaced(len(self.ids), count)
        ids, classes = ([column[row] for row in chosen] for column in (self.ids, self.classes))
        return replace(self, ids=ids, classes=classes)

    def _thinned(self, ids: list[int]) -> list[int]:
        """The ids without those that dropout takes, but never none."""
        if not self.token_dropout:
            return ids
        kept = torch.rand(len(ids)) >= self.token_dropout
        return [i for i, keep in zip(ids, kept.tolist(), strict=True) if keep] or ids


def padding_token(tokenizer: Tokenizer) -> int:
    """The token that pads: end-of-text, as in the course, or the first one if there is none."""
    return tokenizer.eot_token if tokenizer.eot_token is not None else 0
