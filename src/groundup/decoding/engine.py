"""The one generation engine: sequences come, are written together, and leave.

Everything that writes is a few lines around it: the course's functions here, text streams and
batches in ``texts.py``, chats, samples during training, a server.

Shapes: ``B`` batch, ``T`` tokens, ``V`` vocabulary size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from groundup.decoding.config import SamplingConfig
from groundup.decoding.guessing import WITH_GUESSES
from groundup.decoding.replay import Replays, spanned
from groundup.decoding.rows import Batch
from groundup.decoding.sampling import choose, make_sampler, sampler_of
from groundup.decoding.scheduler import Scheduler
from groundup.decoding.sequence import Logprob, Sequence
from groundup.errors import UserError
from groundup.model.cache import grown
from groundup.model.door import (
    computes_rows_alike,
    context_length,
    device_of,
    known_context_length,
    new_cache,
    scores,
)
from groundup.tokenizers import Tokenizer


class Written(NamedTuple):
    """What a step has written of one sequence; it has ended if it has a ``finish_reason``."""

    sequence: Sequence
    token_id: int
    text: str
    """What is certain with this token, which may be nothing."""


class Engine:
    """Writes sequences, several at a time; what it writes of one does not depend on the others.

    Args:
        model: maps ids ``(B, T)`` to logits ``(B, T, V)``. A model that takes a key/value cache
            gets one; any other (a student's own) computes the whole window for every token.
        tokenizer: the model's vocabulary may be padded to a round number (50,304 for GPT-2's
            50,257), and what no token of the tokenizer stands for is never chosen.
        max_batch: most sequences at a time.
        context: most tokens to look at, if not as many as the model can.
        max_tokens: see :class:`~groundup.decoding.scheduler.Scheduler`, which ``limits`` go to.
        use_adapter: called with the name of the LoRA adapter that the next call needs, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer | None = None,
        *,
        max_batch: int = 16,
        context: int | None = None,
        use_adapter: Callable[[str | None], None] | None = None,
        **limits: Any,
    ) -> None:
        if max_batch < 1:
            raise UserError(f"the batch size is {max_batch}; expected at least 1")
        most = context_length(model) or context or known_context_length(model)
        context = most if context is None else min(context, most)
        if context < 1:
            raise UserError(f"the context is {context} tokens; expected at least 1")
        self.model, self.device = model, device_of(model)
        self.vocab_size = tokenizer.vocab_size if tokenizer else None
        self.use_adapter, self._adapter = use_adapter, None
        self.cache = new_cache(model, 0)
        cached = self.cache is not None
        self.replays: Replays | None = None
        if self.cache is not None and self.device.type == "cuda":
            self.replays = Replays(model, self.cache)
        limits.setdefault("rows", WITH_GUESSES if computes_rows_alike(model) else 1)
        self.scheduler = Scheduler(max_batch, context, cached=cached, **limits)

    def __len__(self) -> int:
        """How many sequences have not ended."""
        return len(self.scheduler)

    def add(self, sequence: Sequence) -> Sequence:
        """Begin a sequence, at the next step that has room for it.

        Raises:
            UserError: there can never be room for it, or nobody knows its adapter.
        """
        if sequence.adapter is not None and self.use_adapter is None:
            raise UserError(f"there is no adapter {sequence.adapter!r}; this model has none")
        self.scheduler.add(sequence)
        if sequence.sampler is None:
            sequence.sampler = sampler_of(sequence.config, sequence.index)
        return sequence

    def abort(self, sequence: Sequence) -> None:
        """Write no more of a sequence. What is computed of it stays until its place is needed."""
        self.scheduler.remove(sequence)

    def forget(self) -> None:
        """Compute everything anew that is in the cache: the model's weights are others now."""
        self.scheduler.forget()
        if self.replays is not None:
            self.replays.forget()

    def run(self) -> Iterator[Written]:
        """Write until all sequences have ended."""
        while len(self):
            yield from self.step()

    def step(self) -> list[Written]:
        """Call the model once; return what was written (nothing, if it read part of a prompt).

        Raises:
            UserError: the model's scores are not numbers.
        """
        rows = [row for row in self.scheduler.running if row.ahead]
        if rows:  # a guess was right, so what follows it is known
            chosen = self._choose(rows, torch.stack([row.ahead[0] for row in rows]))
            for row in rows:
                row.ahead.pop(0)
            return self._write(rows, chosen)
        batch = self.scheduler.next()
        if batch is None:
            return []
        logits, complete = self._score(batch), batch.complete
        rows = [batch.rows[i] for i in complete]
        logits = logits if len(rows) == len(logits) else logits[complete]
        chosen = self._choose(rows, logits[:, 0]) if rows else []
        self.scheduler.done(batch)
        for i, row in enumerate(rows):
            row.ahead = list(logits[i, 1 : 1 + row.guessed]) if row.guessed else []
        return self._write(rows, chosen)

    def _write(self, rows: list[Sequence], chosen: list[int]) -> list[Written]:
        """Give each row its next token."""
        written = []
        for row, token in zip(rows, chosen, strict=True):
            written.append(Written(row, token, row.push(token)))
            if row.finish_reason is None:
                self.scheduler.written(row)
            else:
                self.scheduler.remove(row)
        return written

    @torch.no_grad()
    def _score(self, batch: Batch) -> Tensor:
        """The scores ``(B, K, V)`` of what follows each row's new tokens, and each guess."""
        if batch.adapter != self._adapter and self.use_adapter is not None:
            self.use_adapter(batch.adapter)
            self._adapter = batch.adapter
        T, K = max(map(len, batch.ids)), 1 + max(map(len, batch.guesses))
        if self.cache is not None:
            try:
                self._prepare(batch, max(batch.lengths) + T)
            except BaseException:
                self.forget()  # rows that were to be moved may be anywhere
                raise
            if self.replays is not None and T == 1:
                replayed = self.replays.scores(batch)
                if replayed is not None:
                    return replayed[:, None]
        padded = [ids + [0] * (T - len(ids)) for ids in batch.ids]
        idx = torch.tensor(padded, device=self.device)
        at = torch.tensor(batch.counts, device=self.device) - 1  # (B,)
        if K > 1:
            at = (at[:, None] + torch.arange(K, device=self.device)).clamp_max(T - 1)  # (B, K)
        if self.cache is None:
            return scores(self.model, idx, at=at)[:, None]
        cache = self.cache.rows(batch.first, batch.lengths, T)
        logits = scores(self.model, idx, at=at, cache=cache)
        return logits if K > 1 else logits[:, None]

    def _prepare(self, batch: Batch, tokens: int) -> None:
        """Make the cache as large as it needs to be, and bring its rows where they belong."""
        assert self.cache is not None
        plan, (rows, capacity) = self.scheduler, self.cache.shape
        if tokens > capacity:
            most = max(tokens, plan.need, plan.longest)
            capacity = grown(tokens, capacity, most)
            if self.replays is not None:  # other memory would mean to record anew
                room = min(plan.context, plan.max_tokens // max(rows, len(plan.slots), 1))
                capacity = max(most, min(room, spanned(most)))
        moved = [place + 1 for move in batch.moves for place in (move.source, move.target)]
        rows = max(rows, len(plan.slots), *moved)  # a slot may have come and gone since
        if rows * capacity > plan.max_tokens and not batch.moves:
            rows, capacity = len(plan.slots), max(tokens, plan.longest)
        self.cache.resize(rows, capacity)
        for move in batch.moves:
            if move.swap:
                self.cache.swap_rows(move.source, move.target, move.length)
            else:
                self.cache.copy_row(move.source, move.target, move.length)

    def _choose(self, rows: list[Sequence], logits: Tensor) -> list[int]:
        """An id for each row, by scores ``(B, V)``.

        Raises:
            UserError: the scores are not numbers.
        """
        logits = logits[:, : self.vocab_size].float()
        if logits.amax().isnan():  # of numbers that are not all numbers it is NaN, too
            raise UserError(
                "the model's scores are not numbers (NaN), so nothing can be chosen from them; "
                "its weights are damaged: load an earlier checkpoint"
            )
        adjusted = logits
        if any(row.adjusts for row in rows):
            pairs = zip(rows, logits, strict=True)
            adjusted = torch.stack([row.adjust(x) if row.adjusts else x for row, x in pairs])
        chosen = choose([row.sampler for row in rows if row.sampler], adjusted)
        for i, row in enumerate(rows):
            if row.top_logprobs is not None:
                row.logprobs.append(_logprob(logits[i], chosen[i], row.top_logprobs))
        return chosen


def _logprob(scores: Tensor, token_id: int, count: int) -> Logprob:
    logprobs = scores.float().log_softmax(dim=-1)
    values, ids = logprobs.topk(min(count, len(logprobs)))
    top = list(zip(ids.tolist(), values.tolist(), strict=True))
    return Logprob(token_id, float(logprobs[token_id]), top)


def generate(
    model: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    context_size: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    eos_id: int | None = None,
    *,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue ``idx``: ids ``(B, T)`` to ``(B, T + new)``, as in the course.

    It ends before the first ``eos_id``, which is not appended. In a batch, rows that have ended
    are filled with ``eos_id`` until all have.
    """
    if max_new_tokens < 1 or not len(idx):
        return idx
    sampler = make_sampler(temperature, top_k, top_p, generator)  # one: rows are drawn together
    config = SamplingConfig(max_new_tokens=max_new_tokens, guess=False)
    together: dict[str, Any] = {"chunk": sys.maxsize, "prompt_tokens": sys.maxsize, "share": False}
    engine = Engine(model, max_batch=len(idx), context=context_size, **together)
    rows = [
        engine.add(Sequence(prompt, config, index=index, on_full="slide", sampler=sampler))
        for index, prompt in enumerate(idx.tolist())
    ]
    ended: set[int] = set()
    while len(engine) and len(ended) < len(rows):
        for row, token, _ in engine.step():
            if eos_id is not None and (token == eos_id or row.index in ended):
                ended.add(row.index)
                row.ids[-1] = eos_id
    written = [row.ids[idx.shape[1] :] for row in rows]
    if len(ended) == len(rows):
        written = [ids[:-1] for ids in written]
    new = torch.tensor(written, dtype=torch.long, device=idx.device)
    return torch.cat([idx, new], dim=1)


def generate_text_simple(
    model: nn.Module, idx: Tensor, max_new_tokens: int, context_size: int
) -> Tensor:
    """Continue ``idx`` greedily: ids ``(B, T)`` to ``(B, T + max_new_tokens)``."""
    return generate(model, idx, max_new_tokens, context_size)


def text_to_token_ids(text: str, tokenizer: Tokenizer) -> Tensor:
    """Encode a text as a batch of one: ids ``(1, T)``; ``<|endoftext|>`` counts as that token.

    Where the tokenizer begins a text with a token (Llama 3's BOS), it does.
    """
    known = getattr(tokenizer, "special_tokens", {"<|endoftext|>"})  # tiktoken's own has it
    ids = tokenizer.encode(text, allowed_special={"<|endoftext|>"}.intersection(known))
    ids = [*getattr(tokenizer, "begin", ()), *ids]
    return torch.tensor(ids, dtype=torch.long).unsqueeze(0)


def token_ids_to_text(token_ids: Tensor, tokenizer: Tokenizer) -> str:
    """Decode a batch of one, ids ``(1, T)`` (or ``(T,)``), to text."""
    return tokenizer.decode(token_ids.reshape(-1).tolist())
