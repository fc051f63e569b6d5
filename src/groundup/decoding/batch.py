"""Many prompts at once: rows of different lengths share each call of the model.

Shapes: ``B`` rows, ``T`` tokens, ``V`` vocabulary size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.decoding.config import SamplingConfig
from groundup.decoding.engine import FinishReason, TextWriter, check_stop, choose, sampler_of
from groundup.errors import UserError
from groundup.model.cache import RaggedCache
from groundup.model.gpt import GPTModel
from groundup.tokenizers import Tokenizer


@dataclass(frozen=True)
class Completion:
    """What was written after one of the prompts."""

    index: int
    """Which of the prompts."""
    text: str
    """The text, without the stop string."""
    token_ids: list[int]
    """The tokens, without the end-of-text token but with those of a stop string."""
    finish_reason: FinishReason


def generate_batch(
    model: GPTModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    *,
    stop: Sequence[str] = (),
    batch_size: int = 16,
) -> Iterator[Completion]:
    """Continue many prompts, several at a time; yield each text as soon as it has ended.

    Greedily, every prompt gets the tokens that it would get alone. The longest prompts come first,
    so that prompts of similar lengths are computed together; the place of a text that has ended
    goes to the next prompt. Unlike :class:`~groundup.decoding.engine.TextStream`, which moves its
    window on, a text ends ("length") when the model's context is full.

    Args:
        model: the model.
        tokenizer: turns ids into bytes.
        prompts: ids of what to continue; of each, only the last ``context_length`` are seen.
        config: the sampling options; every prompt gets one text.
        stop: strings that end a text; they are not part of it.
        batch_size: most texts at a time; the key/value cache grows with it.

    Raises:
        UserError: a prompt or a stop string is empty, an option makes no sense, or the model's
            scores are not numbers.
    """
    config.check(tokenizer.vocab_size)
    check_stop(stop)
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    empty = [str(index) for index, prompt in enumerate(prompts) if not prompt]
    if empty:
        raise UserError(
            f"prompts without a token: {', '.join(empty)} (counted from 0); pass at least one "
            "token each (end-of-text, say)"
        )
    return _complete(model, tokenizer, prompts, config, stop, batch_size)


class _Row:
    """A text that is being written."""

    def __init__(
        self, index: int, prompt: Sequence[int], writer: TextWriter, most: int, context: int
    ) -> None:
        self.index = index
        self.prompt = list(prompt[-context:])
        self.writer = writer
        self.most = min(most, context - len(self.prompt) + 1)  # the last one is never read
        self.latest = 0
        self.pieces: list[str] = []

    def push(self, token_id: int) -> None:
        self.latest = token_id
        self.pieces.append(self.writer.push(token_id))
        if self.writer.finish_reason is None and len(self.writer.token_ids) == self.most:
            self.pieces.append(self.writer.finish("length"))


def _complete(
    model: GPTModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    stop: Sequence[str],
    batch_size: int,
) -> Iterator[Completion]:
    context = model.cfg.context_length
    waiting = [
        _Row(index, prompt, TextWriter(tokenizer, stop), config.max_new_tokens, context)
        for index, prompt in enumerate(prompts)
    ]
    if not waiting:
        return
    waiting.sort(key=lambda row: len(row.prompt))  # taken from the end
    capacity = max(len(row.prompt) + row.most - 1 for row in waiting)
    cache = RaggedCache(model.new_cache(min(batch_size, len(waiting)), capacity))
    sampler = sampler_of(config, model.tok_emb.weight.device)
    rows: list[_Row] = []  # in the order of the cache
    while rows or waiting:
        free = min(batch_size - len(rows), len(waiting))
        if free:
            written = [waiting.pop() for _ in range(free)]
            rows += written
            logits = _score_prompts(model, [row.prompt for row in written], cache)
        else:
            written = rows
            logits = _score_latest(model, [row.latest for row in written], cache)
        chosen = choose(logits, sampler, tokenizer.vocab_size)
        for row, token in zip(written, chosen.tolist(), strict=True):
            row.push(token)
        for place in reversed(range(len(rows))):  # the last row takes the place of an ended one
            row = rows[place]
            if (reason := row.writer.finish_reason) is not None:
                cache.remove(place)
                rows[place] = rows[-1]
                rows.pop()
                yield Completion(row.index, "".join(row.pieces), row.writer.token_ids, reason)


@torch.no_grad()
def _score_prompts(model: GPTModel, prompts: Sequence[list[int]], cache: RaggedCache) -> Tensor:
    """Begin new rows with these prompts; return the scores ``(B, V)`` of what follows each."""
    device = model.tok_emb.weight.device
    lengths = [len(prompt) for prompt in prompts]
    T = max(lengths)
    idx = torch.tensor([prompt + [0] * (T - len(prompt)) for prompt in prompts], device=device)
    last = torch.tensor(lengths, device=device) - 1
    return model(idx, cache.add(lengths), at=last)


@torch.no_grad()
def _score_latest(model: GPTModel, latest: Sequence[int], cache: RaggedCache) -> Tensor:
    """Read each row's latest token; return the scores ``(B, V)`` of what follows it."""
    idx = torch.tensor(latest, device=model.tok_emb.weight.device)[:, None]  # (B, 1)
    return model(idx, cache.step())[:, -1]
