"""Scores to probabilities, and probabilities to draws (chapters 3 and 5 of the course)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from groundup.errors import UserError

NEXT_WORDS = ("closer", "every", "effort", "forward", "inches", "moves", "pizza", "toward", "you")
"""The lecture's vocabulary of nine words, in the order of their ids."""

NEXT_WORD_LOGITS = torch.tensor([4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79])
"""The lecture's scores ``(9,)`` of the word after "every effort moves you"."""


def softmax_naive(x: Tensor) -> Tensor:
    """The definition: ``exp(x) / sum(exp(x))`` over the first dimension.

    ``exp`` of a score above 88 is infinite in fp32, and infinity over infinity is no number;
    ``torch.softmax`` first takes the largest score away from all, which changes no quotient.
    """
    return torch.exp(x) / torch.exp(x).sum(dim=0)


def softmax_with_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities ``(V,)`` of scores ``(V,)``: sharper below temperature 1, flatter above.

    Raises:
        UserError: the temperature is not above 0 (greedy decoding is its limit).
    """
    if not temperature > 0:
        raise UserError(f"temperature is {temperature}; expected a number above 0")
    return torch.softmax(logits / temperature, dim=0)


def print_sampled_tokens(
    probas: Tensor, inverse_vocab: Mapping[int, str] | None = None, draws: int = 1000
) -> None:
    """Draw from probabilities ``(V,)`` and print how often each token came; the seed is 123.

    Args:
        probas: the probabilities, all of them at least 0.
        inverse_vocab: what an id stands for; the lecture's nine words unless given.
        draws: how many to draw.
    """
    names = dict(enumerate(NEXT_WORDS)) if inverse_vocab is None else inverse_vocab
    generator = torch.Generator().manual_seed(123)
    # One draw after the other, as the lecture does it: a thousand at once give other numbers.
    drawn = [int(torch.multinomial(probas, 1, generator=generator)) for _ in range(draws)]
    for token, count in enumerate(torch.bincount(torch.tensor(drawn))):
        print(f"{count} x {names[token]}")
