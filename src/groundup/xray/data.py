"""What an X-ray holds: plain data that becomes JSON, for a page and for a server alike.

Shapes: ``T`` tokens of the text, ``L`` layers, ``H`` heads. Tokens of the vocabulary are told by
their ids; ``words`` has the text of every id that occurs. Texts are safe to show: what would steer
a terminal or the direction of writing, and bytes that are no character, stand there by their codes.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from groundup.pages import embedded

Guess = tuple[int, float]
"""A token's id and how likely it is (of neighbours: how alike)."""

WIDE = 4_000_000
"""Up to so many attention weights take two bytes each; beyond, one."""


@dataclass(frozen=True)
class ReadToken:
    """A token of the text.

    Attributes:
        id: its id.
        surprise: ``-log p`` that it came after those before it, in nats; None of the first one.
        rank: how many tokens were at least as likely there, itself among them; None of the first.
    """

    id: int
    surprise: float | None
    rank: int | None


@dataclass(frozen=True)
class Next:
    """What comes after a token: enough of the distribution to sample from it in a browser.

    Attributes:
        ids: the likeliest tokens, the likeliest first.
        logits: their scores, less the highest one: the first is 0.
        tails: ``logsumexp`` of all other tokens' ``logit / temperature``, at each of the X-ray's
            ``temperatures``; empty if there are no others.
    """

    ids: list[int]
    logits: list[float]
    tails: list[float]


@dataclass(frozen=True)
class Lens:
    """What the model would have said after one layer (the logit lens), for each token.

    Attributes:
        guesses: the likeliest next tokens, ``T`` times a few.
        rank: at which rank the model's own answer, that of the last layer, stands there, ``(T,)``.
    """

    guesses: list[list[Guess]]
    rank: list[int]


@dataclass(frozen=True)
class Norms:
    """Lengths of vectors: of the residual stream, and of what each layer's parts add to it.

    Attributes:
        stream: before the first layer and after each one, ``(L + 1, T)``.
        attention: what attention adds, ``(L, T)``.
        feed_forward: what the feed-forward network adds, ``(L, T)``.
    """

    stream: list[list[float]]
    attention: list[list[float]]
    feed_forward: list[list[float]]


@dataclass(frozen=True)
class Change:
    """What becomes of the answer if a part of the model gives nothing (zeros).

    Attributes:
        layer: of which layer, counted from 0.
        part: ``head``, ``attention`` (all of its heads and its bias) or ``feed_forward``.
        head: which one, counted from 0; None if it is no head.
        effect: by how much the log-probability of the model's own answer changes, ``(T,)``;
            negative where the part speaks for the answer.
        guesses: the likeliest next tokens then, ``T`` times a few.
    """

    layer: int
    part: str
    head: int | None
    effect: list[float]
    guesses: list[list[Guess]]


@dataclass(frozen=True)
class Packed:
    """Attention weights as bytes: they fill most of an X-ray.

    Layer by layer, head by head, row by row, and of each row (where token ``t`` looks) only the
    ``t + 1`` weights that the causal mask lets be: unsigned numbers of ``bits`` bits, little end
    first, of which the largest means 1. In base64.
    """

    bits: int
    data: str

    @classmethod
    def of(cls, weights: np.ndarray) -> Packed:
        """Pack weights ``(L, H, T, T)`` between 0 and 1."""
        rows, columns = np.tril_indices(weights.shape[-1])
        seen = weights[..., rows, columns]
        bits = 16 if seen.size <= WIDE else 8
        numbers = np.rint(seen * (2**bits - 1)).astype(f"<u{bits // 8}")
        return cls(bits, base64.b64encode(numbers.tobytes()).decode("ascii"))

    def unpacked(self, layers: int, heads: int, tokens: int) -> np.ndarray:
        """The weights ``(L, H, T, T)`` again, rounded."""
        numbers = np.frombuffer(base64.b64decode(self.data), f"<u{self.bits // 8}")
        weights = np.zeros((layers, heads, tokens, tokens))
        rows, columns = np.tril_indices(tokens)
        weights[..., rows, columns] = numbers.reshape(layers, heads, -1) / (2**self.bits - 1)
        return weights


@dataclass(frozen=True)
class XRay:
    """An X-ray of a model that reads a text.

    Attributes:
        model: its name.
        architecture: what it is built like, in words.
        parameters: how many it has.
        vocab_size: how many tokens it knows.
        context_length: the most tokens that it can read.
        n_layers: L.
        n_heads: H.
        words: the text of each id that occurs.
        tokens: the text, ``(T,)``.
        temperatures: at which ``next`` has its tails.
        next: what comes after each token, ``(T,)``.
        lens: what each layer would have said, ``(L,)``.
        attention: who looks at whom.
        norms: how long vectors are.
        changes: what becomes of the answers without each part.
        neighbours: tokens alike, of each id of the text.
    """

    model: str
    architecture: str
    parameters: int
    vocab_size: int
    context_length: int
    n_layers: int
    n_heads: int
    words: dict[int, str]
    tokens: list[ReadToken]
    temperatures: list[float]
    next: list[Next]
    lens: list[Lens]
    attention: Packed
    norms: Norms
    changes: list[Change]
    neighbours: dict[int, list[Guess]]

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)

    def json(self) -> str:
        """The same as JSON in ASCII, in which nothing is HTML either."""
        return embedded(self.as_dict())

    def probability(self, position: int) -> float | None:
        """How likely a token of the text was; None of the first one."""
        surprise = self.tokens[position].surprise
        return None if surprise is None else float(np.exp(-surprise))
