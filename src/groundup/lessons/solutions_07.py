"""Solutions of the exercises of the notebook "instructions and judge" (07)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor, nn


def mask_prompts(
    targets: Tensor, prompt_lengths: Sequence[int], ignore_index: int = -100
) -> Tensor:
    """Exercise 1: learn the responses only.

    Args:
        targets: ids ``(B, T)``, each the token after the input at its place.
        prompt_lengths: tokens of each row's prompt, ``(B,)``.
        ignore_index: what takes a place out of the loss.

    Returns:
        ``(B, T)``. The prompt's last token predicts the response's first, so one place less than
        the prompt has tokens is masked.
    """
    masked = targets.clone()
    for row, length in zip(masked, prompt_lengths, strict=True):
        row[: length - 1] = ignore_index
    return masked


def lora_parameters(model: nn.Module, rank: int) -> int:
    """Exercise 2: how many parameters ``replace_linear_with_lora`` adds, without doing it.

    ``A (in, rank)`` and ``B (rank, out)`` for each linear layer.
    """
    linear = (module for module in model.modules() if isinstance(module, nn.Linear))
    return sum(rank * (layer.in_features + layer.out_features) for layer in linear)


def in_order(reference: str, response: str) -> int:
    """Exercise 3: the longest run of common words in the same order, gaps allowed, in percent.

    It is ROUGE-L (Lin 2004): the longest common subsequence, as a share of both lengths (F1).
    """
    wanted, given = (re.findall(r"\w+", text.lower()) for text in (reference, response))
    if not wanted and not given:
        return 100
    best = [0] * (len(given) + 1)  # of what was read of the reference, and each beginning
    for word in wanted:
        before = 0  # best[j] of the row above
        for j, other in enumerate(given):
            above = best[j + 1]
            best[j + 1] = before + 1 if word == other else max(above, best[j])
            before = above
    return round(200 * best[-1] / (len(wanted) + len(given)))
