"""Whole texts: one that is shown as it is written, and many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from groundup.decoding.config import SamplingConfig
from groundup.decoding.constraint import Constraint
from groundup.decoding.engine import Engine
from groundup.decoding.sampling import Sampler
from groundup.decoding.sequence import OnFull
from groundup.decoding.sequence import Sequence as Text
from groundup.decoding.text import FinishReason, check_stop
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.tokenizers import Tokenizer


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
        engine: writes it, instead of one of its own.
        on_full: what happens when the context is full; half of it stays in view, if it slides.
        constraint: what form the text has; it ends when it is whole.
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
        engine: Engine | None = None,
        on_full: OnFull = "slide",
        constraint: Constraint | None = None,
    ) -> None:
        # Not "engine or …": an engine that writes nothing just now is empty.
        self.engine = Engine(model, tokenizer, max_batch=1) if engine is None else engine
        self.sequence = Text(
            prompt_ids,
            config,
            tokenizer=tokenizer,
            stop=stop,
            sampler=sampler,
            on_full=on_full,
            keep=max(1, model.cfg.context_length // 2),
            constraint=constraint,
        )

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the text has ended; None until then."""
        return self.sequence.finish_reason

    @property
    def token_ids(self) -> list[int]:
        """What was written."""
        return self.sequence.token_ids

    def __iter__(self) -> Iterator[str]:
        self.engine.add(self.sequence)
        try:
            while self.sequence.finish_reason is None:
                for written in self.engine.step():
                    if written.sequence is self.sequence and written.text:
                        yield written.text
            if self.sequence.error is not None:
                raise self.sequence.error
        finally:
            self.engine.abort(self.sequence)


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
    indices: Sequence[int] | None = None,
) -> Iterator[Completion]:
    """Continue many prompts, several at a time; yield each text as soon as it has ended.

    Every prompt gets the text that it would get alone; with a seed, also if it is drawn. The
    longest prompts come first, so that prompts of similar lengths are computed together; the place
    of a text that has ended goes to the next prompt. Unlike :class:`TextStream`, which moves its
    window on, a text ends ("length") when the model's context is full.

    Args:
        model: the model.
        tokenizer: turns ids into bytes.
        prompts: ids of what to continue; of each, only the last ``context_length`` are seen.
        config: the sampling options; every prompt gets one text.
        stop: strings that end a text; they are not part of it.
        batch_size: most texts at a time; the key/value cache grows with it.
        indices: the prompts' numbers, where they are some of a longer list; each draws what it
            would as a part of that.

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
    context = model.cfg.context_length
    texts = [
        Text(prompt[-context:], config, tokenizer=tokenizer, stop=stop, index=index)
        for index, prompt in zip(indices or range(len(prompts)), prompts, strict=True)
    ]
    return _complete(Engine(model, tokenizer, max_batch=batch_size), texts)


def _complete(engine: Engine, texts: list[Text]) -> Iterator[Completion]:
    places = {id(text): place for place, text in enumerate(texts)}
    pieces: list[list[str]] = [[] for _ in texts]
    for text in sorted(texts, key=lambda text: -text.prompt_length):
        engine.add(text)
    for text, _, piece in engine.run():
        place = places[id(text)]
        pieces[place].append(piece)
        if text.error is not None:
            raise text.error
        if text.finish_reason is not None:
            yield Completion(place, "".join(pieces[place]), text.token_ids, text.finish_reason)
