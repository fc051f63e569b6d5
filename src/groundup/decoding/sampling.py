"""From scores to a choice: greedy, temperature, top-k, … as small functions that compose.

Shapes: ``B`` batch, ``V`` vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from groundup.decoding.config import SamplingConfig
from groundup.errors import UserError

Sampler = Callable[[Tensor], Tensor]
"""Scores ``(B, V)`` to chosen ids ``(B,)``."""


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token: ``(B, V) -> (B,)``."""
    return logits.argmax(dim=-1)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Set all but the ``k`` highest scores of each row to ``-inf`` (Fan et al. 2018)."""
    if not 1 <= k <= logits.shape[-1]:
        raise UserError(f"top_k is {k}; expected 1 to {logits.shape[-1]}, the vocabulary's size")
    kth = torch.topk(logits, k).values[:, -1:]  # (B, 1)
    return logits.masked_fill(logits < kth, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest tokens whose probabilities reach ``p`` together (Holtzman et al. 2020)."""
    if not 0.0 < p <= 1.0:
        raise UserError(f"top_p is {p}; expected 0 < top_p <= 1")
    if p == 1.0:
        return logits
    ordered, order = logits.sort(descending=True)
    probs = torch.softmax(ordered, dim=-1)
    before = probs.cumsum(dim=-1) - probs  # probability of everything likelier; 0 for the first
    out = (before >= p) & (before > 0)  # in fp32 a small p may be 0: the first stays all the same
    ordered = ordered.masked_fill(out, -torch.inf)
    return torch.empty_like(logits).scatter_(-1, order, ordered)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens at least ``p`` times as likely as the likeliest (Nguyen et al. 2024)."""
    if not 0.0 <= p <= 1.0:
        raise UserError(f"min_p is {p}; expected 0 to 1")
    probs = torch.softmax(logits, dim=-1)
    return logits.masked_fill(probs < p * probs.amax(dim=-1, keepdim=True), -torch.inf)


def penalise_repetition(logits: Tensor, ids: Sequence[int], penalty: float) -> Tensor:
    """Make what is in the text less likely: scores ``(V,)`` above 0 are divided, others multiplied.

    So does Keskar et al. 2019 (section 4.1). ``ids`` are the whole text, the prompt too.
    """
    there = torch.tensor(ids, device=logits.device).unique()
    scores = logits[there]
    return logits.index_copy(0, there, torch.where(scores < 0, scores * penalty, scores / penalty))


def penalise_frequency(
    logits: Tensor, written: Sequence[int], penalty: float, presence: float = 0.0
) -> Tensor:
    """Take ``penalty`` off a token's score ``(V,)`` for each time it was written (OpenAI's).

    ``presence`` is taken off once, however often it was.
    """
    times = torch.zeros_like(logits)
    ids = torch.tensor(written, dtype=torch.long, device=logits.device)
    times = times.index_add(0, ids, times.new_ones(len(written)))
    return logits - penalty * times - presence * (times > 0)


def add_bias(logits: Tensor, bias: Mapping[str, float]) -> Tensor:
    """Add amounts to the scores ``(V,)`` of tokens, by id."""
    ids = torch.tensor([int(token) for token in bias], device=logits.device)
    return logits.index_add(0, ids, logits.new_tensor(list(bias.values())))


def probabilities(
    logits: Tensor,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Top-k, then temperature, then top-p, then min-p: scores ``(B, V)`` to what is drawn by."""
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    logits = logits / max(temperature, 1e-6)  # below that, fp32 overflows
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    if min_p is not None:
        logits = keep_min_p(logits, min_p)
    return torch.softmax(logits, dim=-1)


def draw(probs: Tensor, u: Tensor) -> Tensor:
    """An id for each row of probabilities: ``(B, V) -> (B,)``.

    The probabilities laid end to end are a line; a random point of it lies in one of them. That
    takes one random number per row. (``torch.multinomial`` takes one per token of the vocabulary,
    a millisecond for GPT-2's.)

    Args:
        probs: ``(B, V)``.
        u: a random number of each row in fp64, from 0 to below 1, ``(B, 1)``.

    Raises:
        UserError: the probabilities are not numbers.
    """
    kind = torch.float32 if probs.device.type == "mps" else torch.float64  # which that lacks
    ends = probs.cumsum(dim=-1, dtype=kind)  # (B, V)
    if not ends[:, -1].isfinite().all():
        raise UserError("the scores are not numbers (NaN or inf), so nothing can be drawn by them")
    # From above 0 to the end of the line: what has no probability ends where it begins.
    points = (1 - u).to(kind).to(probs.device) * ends[:, -1:]
    return torch.searchsorted(ends, points).squeeze(-1)


def make_sampler(
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    min_p: float | None = None,
) -> Sampler:
    """Compose a sampler of :func:`probabilities` and a draw.

    A temperature of 0 is greedy whatever the rest says. Without a ``generator`` the draw is
    ``torch.multinomial`` with PyTorch's global one, so ``torch.manual_seed`` repeats the course's
    numbers; with one it is :func:`draw`.
    """
    if not temperature >= 0.0:
        raise UserError(f"temperature is {temperature}; expected 0 (greedy) or more")
    if temperature == 0.0:
        return greedy

    def sample(logits: Tensor) -> Tensor:
        probs = probabilities(logits, temperature, top_k, top_p, min_p)
        if generator is None:
            return torch.multinomial(probs, num_samples=1).squeeze(-1)
        return draw(probs, _random(len(probs), generator))

    return sample


class TextSampler:
    """The sampler of one text: nothing but its own generator decides what it draws.

    Attributes:
        options: of :func:`probabilities`, which are computed at once for texts that share them.
    """

    def __init__(self, config: SamplingConfig, seed: int) -> None:
        self.options = config.temperature, config.top_k, config.top_p, config.min_p
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor) -> Tensor:
        """Scores ``(B, V)`` to ids ``(B,)``, each with a number of its own."""
        return draw(probabilities(logits, *self.options), _random(len(logits), self.generator))


def draw_each(samplers: Sequence[TextSampler], logits: Tensor) -> Tensor:
    """Scores ``(B, V)`` to ids ``(B,)``, by samplers of the same options, one for each row."""
    u = torch.cat([_random(1, sampler.generator) for sampler in samplers])
    return draw(probabilities(logits, *samplers[0].options), u)


def choose(samplers: Sequence[Sampler], logits: Tensor) -> list[int]:
    """An id for each row of scores ``(B, V)``, by its sampler; at once for those that are alike."""
    alike: dict[object, list[int]] = {}
    for row, sampler in enumerate(samplers):
        key = sampler.options if isinstance(sampler, TextSampler) else sampler
        alike.setdefault(key, []).append(row)
    chosen = [0] * len(samplers)
    for rows in alike.values():
        scores = logits if len(alike) == 1 else logits[rows]
        own = [one for row in rows if isinstance(one := samplers[row], TextSampler)]
        drawn = draw_each(own, scores) if own else samplers[rows[0]](scores)
        for row, token in zip(rows, drawn.tolist(), strict=True):
            chosen[row] = token
    return chosen


def _random(rows: int, generator: torch.Generator) -> Tensor:
    device = generator.device
    if device.type == "mps":
        return torch.rand(rows, 1, generator=generator, device=device).cpu().double()
    return torch.rand(rows, 1, generator=generator, device=device, dtype=torch.float64)


def sampler_of(config: SamplingConfig, index: int = 0) -> Sampler:
    """The sampler that the options describe, with a random generator of its own.

    Several that are drawn from one seed have an ``index`` each, which no other's draws depend on.
    Without a seed PyTorch's global generator gives one. Whatever the model computes on, the random
    numbers are a CPU's.
    """
    if config.temperature == 0.0:
        return greedy
    seed = int(torch.randint(2**63 - 1, ())) if config.seed is None else config.seed
    return TextSampler(config, (seed + index * 0x9E3779B97F4A7C15) % 2**63)  # far from each other
