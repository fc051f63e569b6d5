"""What both APIs do: from a request's words to a prompt's ids, and to texts that are written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from groundup.data.instructions import encode_prompt
from groundup.decoding.config import SamplingConfig
from groundup.decoding.constraint import Constraint
from groundup.decoding.sequence import Sequence as Text
from groundup.errors import UserError
from groundup.prompts import Message
from groundup.serve.asking import BadRequest
from groundup.serve.models import Models, Served
from groundup.serve.writing import Writing


def language_model(models: Models, name: str) -> Served:
    """The model of this name, if it writes texts.

    Raises:
        NotServed: there is none.
        BadRequest: it is a classifier.
    """
    served = models.get(name)
    if served.is_classifier:
        raise BadRequest(
            f"{served.name} is a classifier ({', '.join(served.facts.labels)}): it sorts texts and "
            "writes none; ask it at /v1/classify",
            "model",
        )
    return served


async def chat_ids(served: Served, messages: Sequence[Message]) -> list[int]:
    """What a model reads before it answers the last message, as its prompt style has it.

    Raises:
        BadRequest: it has no prompt style, or the messages are no conversation.
    """
    style = served.style
    if style is None:
        raise BadRequest(
            f"{served.name} names no prompt style: it continues texts and was not taught to "
            "answer; ask it at /v1/completions (Ollama's: /api/generate), or start the server with "
            "--style",
            "model",
        )
    try:
        return await asyncio.to_thread(encode_prompt, messages, served.tokenizer, style)
    except UserError as error:
        raise BadRequest(f"messages: {error}", "messages") from None


async def prompt_ids(served: Served, prompt: str | Sequence[int]) -> list[int]:
    """A prompt's ids, as ``groundup generate`` reads it: an empty one begins a text anew.

    Raises:
        BadRequest: an id is none of the vocabulary.
    """
    tokenizer = served.tokenizer
    if not isinstance(prompt, str):
        for extreme in (min(prompt, default=0), max(prompt, default=0)):
            if not 0 <= extreme < tokenizer.vocab_size:
                raise BadRequest(
                    f"prompt has the id {extreme}; expected 0 to {tokenizer.vocab_size - 1}",
                    "prompt",
                )
        return list(prompt) or [tokenizer.eot_token or 0]
    return await asyncio.to_thread(tokenizer.encode_alone, prompt) or [tokenizer.eot_token or 0]


def check_count(served: Served, prompts: int, each: int) -> None:
    """Refuse more texts than there can ever be room for, before any prompt is read.

    Raises:
        BadRequest: there are more; the message has both numbers.
    """
    try:
        served.runner.check_room(prompts * each)
    except UserError as error:
        raise BadRequest(str(error), "n" if prompts == 1 else "prompt") from None


def check_length(ids: Sequence[int], context: int, field: str = "prompt") -> None:
    """Refuse a prompt that a context has no room for.

    Raises:
        BadRequest: it is longer; the message has both numbers.
    """
    if len(ids) > context:
        raise BadRequest(
            f"the prompt has {len(ids)} tokens, but the context is {context} tokens; shorten it",
            field,
            "context_length_exceeded",
        )


async def begin(
    served: Served,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    *,
    stop: Sequence[str] = (),
    logprobs: int | None = None,
    schema: dict[str, Any] | None = None,
) -> Writing:
    """Begin ``config.num_samples`` texts after each of the prompts.

    Raises:
        BadRequest: an option makes no sense for this model.
        Busy: there is no room for them now.
    """

    def text(prompt: Sequence[int], index: int, form: Constraint | None) -> Text:
        return Text(
            prompt,
            config,
            tokenizer=served.tokenizer,
            stop=stop,
            index=index,
            adapter=served.adapter,
            logprobs=logprobs,
            constraint=form and form.copy(),
        )

    def all_texts() -> list[Text]:
        form = None if schema is None else Constraint(served.tokenizer, schema)
        return [text(prompt, i, form) for prompt in prompts for i in range(config.num_samples)]

    check_count(served, len(prompts), config.num_samples)
    try:
        config.check(served.tokenizer.vocab_size)
        texts = all_texts() if schema is None else await asyncio.to_thread(all_texts)
    except ValueError as error:  # a UserError, or an id of thousands of digits
        raise BadRequest(str(error)) from None
    return served.runner.write(texts, served.name)
