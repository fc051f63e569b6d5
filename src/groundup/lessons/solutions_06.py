"""Solutions of the exercises of the notebook "classification" (06)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from groundup.errors import UserError


def last_real_tokens(inputs: Tensor, pad_token_id: int) -> Tensor:
    """Exercise 1: where each text ends, so that no padding is read.

    Args:
        inputs: ids ``(B, T)``, padded at their ends.
        pad_token_id: what they are padded with.

    Returns:
        The last position that is no padding, ``(B,)``: what ``model(inputs, at=…)`` wants.
    """
    positions = torch.arange(inputs.shape[1], device=inputs.device)  # (T,)
    return (positions * (inputs != pad_token_id)).argmax(dim=1)


def threshold_for(spam_probas: Tensor, labels: Tensor, false_alarms: float) -> float:
    """Exercise 2: the probability from which on a message is called spam.

    It is the lowest one with which at most a share ``false_alarms`` of the ham is lost.

    Args:
        spam_probas: how likely each message is spam, ``(N,)``.
        labels: 1 for spam, 0 for ham, ``(N,)``.
        false_alarms: from 0 to less than 1.

    Raises:
        UserError: there is no ham, or the share is out of its range.
    """
    ham = spam_probas[labels == 0].sort(descending=True).values
    if not len(ham) or not 0 <= false_alarms < 1:
        raise UserError(
            f"there are {len(ham)} messages that are ham, and false_alarms is {false_alarms}; "
            "expected at least one message, and a share from 0 to less than 1"
        )
    # The first one that must get through decides; whatever is above it may be spam.
    return torch.nextafter(ham[int(false_alarms * len(ham))], torch.tensor(2.0)).item()


def influences(text: str, spam_proba: Callable[[str], float]) -> list[tuple[str, float]]:
    """Exercise 3: how much less likely spam is without each word, the strongest first.

    Args:
        text: at least two words.
        spam_proba: how likely a text is spam.
    """
    words, whole = text.split(), spam_proba(text)
    without = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
    found = [(word, whole - spam_proba(rest)) for word, rest in zip(words, without, strict=True)]
    return sorted(found, key=lambda pair: -pair[1])
