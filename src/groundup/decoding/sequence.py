"""One text that is being written: its tokens, how they are chosen, and when it ends.

Everything that decides on a text belongs to it alone, its random generator too; so it is the same
text whoever shares the batch.
"""

from __future__ import annotations

import collections.abc
from typing import TYPE_CHECKING, Literal, NamedTuple

from groundup.decoding.config import SamplingConfig
from groundup.decoding.guessing import Guesser
from groundup.decoding.text import FinishReason, TextWriter, check_stop
from groundup.errors import UserError
from groundup.tokenizers import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from groundup.decoding.constraint import Constraint
    from groundup.decoding.rows import Slot
    from groundup.decoding.sampling import Sampler

OnFull = Literal["slide", "end"]
"""What happens when the context is full: the beginning goes out of sight, or the text ends."""


class Logprob(NamedTuple):
    """How likely the model thought a token, before anything but its scores was looked at."""

    token_id: int
    logprob: float
    top: list[tuple[int, float]]
    """The likeliest tokens and theirs, the likeliest first."""


class Sequence:
    """A prompt and what is written after it.

    Args:
        prompt_ids: what to continue.
        config: the sampling options.
        tokenizer: turns ids into text; without one, nothing but ``max_new_tokens`` ends it.
        stop: strings that end the text; they are not part of it.
        index: which of several that are drawn from one seed; each draws other numbers.
        on_full: see :data:`OnFull`. A prompt longer than the context keeps its end in sight, or
            is refused.
        keep: how many of the last tokens stay in view when the window slides. All of them (the
            default) gives the course's results exactly, but computes the whole window anew for
            every further token, since each token's position changes; half of them costs that only
            once in ``context_length / 2`` tokens.
        sampler: replaces the one of ``config``. Those that share one are drawn together.
        adapter: the name of the LoRA adapter that it is written with.
        logprobs: keep the log-probability of each token, and those of so many of the likeliest.
        constraint: what form the text has; it ends when it is whole.

    Attributes:
        ids: the prompt and what was written.
        finish_reason: why it has ended; None as long as it goes on.
        error: what ended it, if that is its own mistake.
        logprobs: of each token written, if asked for.
        slot: where its keys and values are; the scheduler's.
        start: where the window begins in ``ids``; the scheduler's.
        guessed: so many tokens were guessed, and which of them are right isn't known yet.
        ahead: the scores ``(V,)`` after each of them; the engine's.

    Raises:
        UserError: the prompt or a stop string is empty, or an option makes no sense.
    """

    def __init__(
        self,
        prompt_ids: collections.abc.Sequence[int],
        config: SamplingConfig,
        *,
        tokenizer: Tokenizer | None = None,
        stop: collections.abc.Sequence[str] = (),
        index: int = 0,
        on_full: OnFull = "end",
        keep: int | None = None,
        sampler: Sampler | None = None,
        adapter: str | None = None,
        logprobs: int | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        if not prompt_ids:
            raise UserError("the prompt is empty; pass at least one token (end-of-text, say)")
        check_stop(stop)
        if tokenizer is not None:
            config.check(tokenizer.vocab_size)
        self.ids = list(prompt_ids)
        self.prompt_length = len(self.ids)
        self.config, self.index, self.sampler, self.adapter = config, index, sampler, adapter
        self.on_full, self.keep = on_full, keep
        self.most = config.max_new_tokens
        self.finish_reason: FinishReason | None = None
        self.error: UserError | None = None
        self.constraint = constraint
        self.top_logprobs, self.logprobs = logprobs, list[Logprob]()
        penalties = config.frequency_penalty, config.presence_penalty, config.repetition_penalty - 1
        self.adjusts = any(penalties) or bool(config.logit_bias) or constraint is not None
        self._writer = TextWriter(tokenizer, stop) if tokenizer else None
        self._guesser = Guesser() if config.guess else None
        self.slot: Slot | None = None
        self.start = 0
        self.guessed = 0
        self.ahead: list[Tensor] = []
        self.fresh = True  # nothing of it was computed yet
        self.served = 0  # the scheduler's turn that computed of it last

    @property
    def token_ids(self) -> list[int]:
        """What was written: without the end-of-text token, but with those of a stop string."""
        return self._writer.token_ids if self._writer else self.ids[self.prompt_length :]

    def guess(self, most: int) -> list[int]:
        """What may be written next: at most so many tokens; see ``guessing.py``."""
        most = min(most, self.most - (len(self.ids) - self.prompt_length) - 1)
        return self._guesser.guess(self.ids, most) if self._guesser and most > 0 else []

    def learn(self, right: int) -> None:
        """Let go of what was guessed, now that one knows how much of it was right."""
        if self._guesser is not None:
            self._guesser.learn(right, self.guessed)
        self.guessed = 0
        self.ahead.clear()

    def adjust(self, logits: Tensor) -> Tensor:
        """Scores ``(V,)`` as penalties, biases and the constraint make them."""
        from groundup.decoding.sampling import add_bias, penalise_frequency, penalise_repetition

        config = self.config
        if config.repetition_penalty != 1.0:
            logits = penalise_repetition(logits, self.ids, config.repetition_penalty)
        if config.frequency_penalty or config.presence_penalty:
            written, often = self.ids[self.prompt_length :], config.frequency_penalty
            logits = penalise_frequency(logits, written, often, config.presence_penalty)
        if config.logit_bias:
            logits = add_bias(logits, config.logit_bias)
        if self.constraint is not None:
            try:
                logits = self.constraint.mask(logits)
            except UserError as error:  # the others of the batch go on
                self.error = error
        return logits

    def push(self, token_id: int) -> str:
        """Take the next token; return the text that is certain with it, which may be empty."""
        self.ids.append(token_id)
        piece = ""
        if self.constraint is not None:
            try:
                self.constraint.take(token_id)
            except UserError as error:
                self.error = error
        if self.error is not None:
            return self.finish("error")
        if self._writer is not None:
            piece = self._writer.push(token_id)
            self.finish_reason = self._writer.finish_reason
        if self.finish_reason is None and self.constraint is not None and self.constraint.ended:
            piece += self.finish("stop")
        if self.finish_reason is None and len(self.ids) - self.prompt_length >= self.most:
            piece += self.finish("length")
        return piece

    def finish(self, reason: FinishReason) -> str:
        """End the text; return what was held back."""
        self.finish_reason = reason
        return "" if self._writer is None else self._writer.finish(reason)
