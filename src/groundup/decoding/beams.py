"""Beam search: the likeliest text as a whole, not token by token.

Several texts are written side by side. Each step looks at every next token of all of them and goes
on with the best sums of log-probabilities (Graves 2012; the rules for ending are transformers').

Shapes: ``N`` beams, ``V`` vocabulary size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from groundup.errors import UserError
from groundup.model.door import device_of, known_context_length, new_cache, scores


class Beam(NamedTuple):
    """A text that was found."""

    score: float
    """The sum of its tokens' log-probabilities, over its length to the power of the penalty."""
    token_ids: list[int]
    """What was written, with ``eos_id`` if it ended by that."""


@torch.no_grad()
def beam_search(
    model: nn.Module,
    prompt_ids: Sequence[int],
    num_beams: int,
    max_new_tokens: int,
    *,
    eos_id: int | None = None,
    length_penalty: float = 1.0,
    vocab_size: int | None = None,
) -> list[Beam]:
    """Find the likeliest texts after a prompt, the best first.

    It ends when no text that is being written can become better than the ``num_beams`` that have
    ended, or where the context is full.

    Args:
        model: maps ids ``(B, T)`` to logits ``(B, T, V)``.
        prompt_ids: what to continue.
        num_beams: texts side by side; 1 is greedy.
        max_new_tokens: most tokens of a text.
        eos_id: ends a text.
        length_penalty: above 0, longer texts are better; 0 counts the sum alone.
        vocab_size: the tokenizer's, if the model's is padded.

    Raises:
        UserError: there is no prompt or no room after it, or an option makes no sense.
    """
    if num_beams < 1 or max_new_tokens < 1:
        raise UserError(f"beams are {num_beams}, new tokens {max_new_tokens}; expected at least 1")
    steps = min(max_new_tokens, _room(model, prompt_ids))
    device = device_of(model)
    cache = new_cache(model)
    texts: list[list[int]] = [[]]
    sums = torch.zeros(1, device=device)
    found: list[Beam] = []
    idx = torch.tensor([list(prompt_ids)], device=device)
    for length in range(1, steps + 1):
        last = torch.full((len(texts),), -1, device=device)
        new = idx if cache is None else idx[:, cache.length :]
        logits = scores(model, new, at=last, cache=cache)[:, :vocab_size]
        logprobs = sums[:, None] + logits.float().log_softmax(dim=-1)  # (N, V)
        if logprobs.isnan().any():
            raise UserError("the model's scores are not numbers (NaN); its weights are damaged")
        # Twice as many as beams: if half of them end, as many still go on.
        best = logprobs.flatten().topk(min(2 * num_beams, logprobs.numel()))
        parents = (best.indices // logits.shape[1]).tolist()
        tokens = (best.indices % logits.shape[1]).tolist()
        going: list[int] = []
        for rank, total in enumerate(best.values.tolist()):
            ends = tokens[rank] == eos_id or length == steps
            if ends and rank < num_beams:
                ids = [*texts[parents[rank]], tokens[rank]]
                found.append(Beam(total / length**length_penalty, ids))
            elif not ends and len(going) < num_beams:
                going.append(rank)
        found = sorted(found, key=lambda beam: -beam.score)[:num_beams]
        if not going:
            break
        sums = best.values[going]
        attainable = float(sums[0]) / length**length_penalty
        if len(found) == num_beams and attainable <= found[-1].score:
            break
        texts = [[*texts[parents[rank]], tokens[rank]] for rank in going]
        kept = torch.tensor([parents[rank] for rank in going], device=device)
        chosen = torch.tensor([tokens[rank] for rank in going], device=device)
        idx = torch.cat([idx[kept], chosen[:, None]], dim=1)
        if cache is not None:
            cache.choose_rows(kept)
    return found


def _room(model: nn.Module, prompt_ids: Sequence[int]) -> int:
    """How many tokens may be written after a prompt."""
    context = known_context_length(model)
    if not 1 <= len(prompt_ids) <= context:
        raise UserError(
            f"the prompt has {len(prompt_ids)} tokens; expected 1 to {context}, the model's context"
        )
    return context - len(prompt_ids) + 1  # the last token is never read
