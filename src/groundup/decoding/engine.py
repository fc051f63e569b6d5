"""The one generation engine: a stream of tokens; whole texts and the course's functions use it.

Shapes: ``B`` batch, ``T`` tokens so far, ``V`` vocabulary size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from groundup.decoding.config import SamplingConfig
from groundup.decoding.sampling import Sampler, greedy, make_sampler
from groundup.errors import UserError
from groundup.model.cache import KVCache
from groundup.model.door import context_length, new_cache, scores
from groundup.model.gpt import GPTModel
from groundup.tokenizers import StreamDecoder, Tokenizer


class NextTokenScores:
    """Score the next token of a growing sequence, computing each token once.

    A model that takes a key/value cache gets one; any other module (a student's own) is called on
    the last ``context_size`` tokens each time, as in the course.

    Args:
        model: maps ids ``(B, T)`` to logits ``(B, T, V)``.
        context_size: most tokens to look at.
        keep: how many of the last tokens stay in view when the context is full. All of them
            (the default) gives the course's results exactly but has to compute the whole window
            anew for every further token, since each token's position changes; half of them costs
            that only once in ``context_size / 2`` tokens.
    """

    def __init__(self, model: nn.Module, context_size: int, keep: int | None = None) -> None:
        self.model = model
        self.context_size = min(context_size, context_length(model) or context_size)
        self.keep = min(keep or self.context_size, self.context_size)
        self.start = 0  # where the window begins in the sequence
        self.cache: KVCache | None = None

    @torch.no_grad()
    def __call__(self, idx: Tensor) -> Tensor:
        """Return the scores ``(B, V)`` of what follows ``idx`` ``(B, T)``, the sequence so far."""
        T = idx.shape[1]
        last = torch.full((len(idx),), -1, device=idx.device)
        if self.cache is None:
            self.cache = new_cache(self.model, len(idx))
            if self.cache is None:  # it takes none: compute the whole window anew
                return scores(self.model, idx[:, -self.context_size :], at=last)
            self.start = max(0, T - self.context_size)
        elif T - self.start > self.context_size:
            self.cache.truncate(0)
            self.start = T - self.keep
        new = idx[:, self.start + self.cache.length :]
        return scores(self.model, new, at=last, cache=self.cache)


def stream_tokens(
    model: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    context_size: int,
    *,
    sampler: Sampler = greedy,
    keep: int | None = None,
    vocab_size: int | None = None,
) -> Iterator[Tensor]:
    """Yield the next token ids ``(B,)``, one step at a time.

    Args:
        model: see :class:`NextTokenScores`, also for ``context_size`` and ``keep``.
        idx: the prompt, ids ``(B, T)`` with ``T >= 1``.
        max_new_tokens: how many steps.
        context_size: most tokens to look at.
        sampler: chooses ids from scores.
        keep: see :class:`NextTokenScores`.
        vocab_size: see :func:`choose`.

    Raises:
        UserError: the prompt is empty, or the model's scores are not numbers.
    """
    if idx.shape[1] == 0:
        raise UserError("the prompt is empty; pass at least one token (end-of-text, say)")
    scores = NextTokenScores(model, context_size, keep)
    for _ in range(max_new_tokens):
        chosen = choose(scores(idx), sampler, vocab_size)
        yield chosen
        idx = torch.cat([idx, chosen[:, None]], dim=1)


def choose(logits: Tensor, sampler: Sampler, vocab_size: int | None = None) -> Tensor:
    """Choose an id for each row: scores ``(B, V)`` to ``(B,)``.

    Args:
        logits: the scores.
        sampler: chooses ids from them.
        vocab_size: the tokenizer's, if it is known; the model's may be padded to a round number
            (50,304 for GPT-2's 50,257), and what no token stands for is never chosen.

    Raises:
        UserError: the scores are not numbers.
    """
    logits = logits[:, :vocab_size]
    if logits.isnan().any():
        raise UserError(
            "the model's scores are not numbers (NaN), so nothing can be chosen from them; "
            "its weights are damaged: load an earlier checkpoint"
        )
    return sampler(logits)


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
    ended = torch.zeros(idx.shape[0], dtype=torch.bool, device=idx.device)

    def until_end(logits: Tensor) -> Tensor:
        chosen = sampler(logits)
        if eos_id is None:
            return chosen
        ended.logical_or_(chosen == eos_id)
        return chosen.masked_fill(ended, eos_id)

    sampler = make_sampler(temperature, top_k, top_p, generator)
    new: list[Tensor] = []
    for chosen in stream_tokens(model, idx, max_new_tokens, context_size, sampler=until_end):
        if ended.all():
            break
        new.append(chosen)
    return torch.cat([idx, torch.stack(new, dim=1)], dim=1) if new else idx


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


def sampler_of(config: SamplingConfig, device: torch.device | str = "cpu") -> Sampler:
    """The sampler that the options describe, with a random generator of its own if seeded."""
    generator = None
    if config.seed is not None:
        generator = torch.Generator(device).manual_seed(config.seed)
    return make_sampler(config.temperature, config.top_k, config.top_p, generator)


FinishReason = Literal["length", "stop", "end_of_text"]
"""Why a text ends: it is as long as it may be, a stop string came, or the end-of-text token."""


class TextWriter:
    """Turn the tokens of one text into pieces of it, one token at a time; never half a character.

    The text ends at the end-of-text token or before the ``stop`` string that is complete first;
    :attr:`finish_reason` says which, and is ``None`` as long as the text goes on.

    Args:
        tokenizer: turns ids into bytes.
        stop: strings that end the text; they are not part of it.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._eot_token = tokenizer.eot_token
        self._decoder = StreamDecoder(tokenizer)
        self._stop = stop
        self._held = ""  # written, but it may be the beginning of a stop string

    def push(self, token_id: int) -> str:
        """Take the next token; return the text that is certain with it, which may be empty."""
        if token_id == self._eot_token:
            return self.finish("end_of_text")
        self.token_ids.append(token_id)
        return self._release(self._decoder.push(token_id))

    def finish(self, reason: FinishReason) -> str:
        """End the text for this reason; return what was held back."""
        self.finish_reason = reason
        piece = self._release(self._decoder.finish())
        piece, self._held = piece + self._held, ""
        return piece

    def _release(self, piece: str) -> str:
        text = self._held + piece
        cut = _find_first(text, self._stop)
        if cut is not None:
            self.finish_reason = "stop"
            self._held = ""
            return text[:cut]
        safe = len(text) - _longest_open_prefix(text, self._stop)
        self._held = text[safe:]
        return text[:safe]


def check_stop(stop: Sequence[str]) -> None:
    """Raise ``UserError`` if one of the strings that should end a text is empty."""
    if any(not s for s in stop):
        raise UserError("a stop string is empty; give the text that should end the answer")


class TextStream:
    """Iterate over the pieces of a text as it is written; never half a character.

    The text ends at the end-of-text token, before the ``stop`` string that is complete first, or
    after ``max_new_tokens``; :attr:`finish_reason` says which.

    Args:
        model: the model; its own context length is the window.
        tokenizer: turns ids into bytes.
        prompt_ids: what to continue; only the last ``context_length`` tokens are seen.
        config: the sampling options.
        stop: strings that end the text; they are not part of it.
        sampler: replaces the one of ``config``, to go on with its random generator.
    """

    def __init__(
        self,
        model: GPTModel,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        config: SamplingConfig,
        *,
        stop: Sequence[str] = (),
        sampler: Sampler | None = None,
    ) -> None:
        check_stop(stop)
        self.device = model.tok_emb.weight.device
        config.check(tokenizer.vocab_size)
        self.model, self.tokenizer, self.config, self.stop = model, tokenizer, config, tuple(stop)
        self.prompt_ids = list(prompt_ids)
        self.sampler = sampler or sampler_of(config, self.device)
        self.finish_reason: FinishReason | None = None  # until the text has ended
        self.token_ids: list[int] = []

    def __iter__(self) -> Iterator[str]:
        writer = TextWriter(self.tokenizer, self.stop)
        self.token_ids = writer.token_ids
        for token in self._tokens():
            piece = writer.push(token)
            if writer.finish_reason:
                break
            if piece:
                yield piece
        else:
            piece = writer.finish("length")
        self.finish_reason = writer.finish_reason
        if piece:
            yield piece

    def _tokens(self) -> Iterator[int]:
        context = self.model.cfg.context_length
        idx = torch.tensor([self.prompt_ids], device=self.device)
        steps = stream_tokens(
            self.model,
            idx,
            self.config.max_new_tokens,
            context,
            sampler=self.sampler,
            keep=max(1, context // 2),
            vocab_size=self.tokenizer.vocab_size,
        )
        for chosen in steps:
            yield int(chosen)


def _find_first(text: str, needles: Sequence[str]) -> int | None:
    """Where the needle begins that is complete first (of those, the longest)."""
    found = [(at + len(n), at) for n in needles if (at := text.find(n)) >= 0]
    return min(found)[1] if found else None


def _longest_open_prefix(text: str, needles: Sequence[str]) -> int:
    """Length of the longest end of ``text`` that begins one of ``needles``."""
    longest = max((len(needle) for needle in needles), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(needle.startswith(text[-size:]) for needle in needles):
            return size
    return 0
