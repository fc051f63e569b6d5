"""Solutions of the exercises of the notebook "decoding and pretrained weights" (05)."""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.errors import UserError
from groundup.lessons.softmax import NEXT_WORD_LOGITS, NEXT_WORDS, softmax_with_temperature


def share_of(word: str, temperature: float) -> float:
    """Exercise 1: how likely one of the lecture's nine words is, exactly: no drawing needed.

    Raises:
        UserError: it is none of the nine.
    """
    if word not in NEXT_WORDS:
        raise UserError(f"{word!r} is none of the words; there are: {', '.join(NEXT_WORDS)}")
    probas = softmax_with_temperature(NEXT_WORD_LOGITS, temperature)
    return probas[NEXT_WORDS.index(word)].item()


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Exercise 2: keep what is at least ``p`` times as likely as the likeliest token.

    ``(B, V) -> (B, V)``, the rest ``-inf`` (Nguyen et al. 2024). Where the model is sure, little is
    left; where it is not, much: like top-p, but one comparison does it.
    """
    probas = torch.softmax(logits, dim=-1)
    highest = probas.max(dim=-1, keepdim=True).values  # (B, 1)
    return logits.masked_fill(probas < p * highest, -torch.inf)


def discourage(logits: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Exercise 3: lower the scores of tokens that the text has already (Keskar et al. 2019).

    Args:
        logits: scores ``(B, V)``.
        ids: the text so far, ``(B, T)``.
        penalty: 1 changes nothing, 1.2 is usual.

    Returns:
        ``(B, V)``: scores above 0 divided by the penalty, those below multiplied.
    """
    given = logits.gather(1, ids)  # (B, T)
    lowered = torch.where(given > 0, given / penalty, given * penalty)
    return logits.scatter(1, ids, lowered)
