"""A conversation with a model: what was said, what of it the model sees, and its next answer."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from groundup.data.instructions import encode_prompt
from groundup.decoding.config import SamplingConfig
from groundup.decoding.engine import Engine
from groundup.decoding.sampling import sampler_of
from groundup.decoding.text import FinishReason
from groundup.decoding.texts import TextStream
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.prompts import Message, PromptStyle
from groundup.tokenizers import Tokenizer


class Chat:
    """A conversation, kept within the model's context by forgetting the oldest turns.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        style: the prompt style that it was trained in.
        config: the sampling options; all answers share one random generator.
        system: what the model is told before the conversation; None for the style's own, if any.

    Attributes:
        turns: every message and its answer, the forgotten ones too.
        forgotten: how many of them, from the beginning, the model does not see any more.
    """

    def __init__(
        self,
        model: GPTModel,
        tokenizer: Tokenizer,
        style: PromptStyle,
        config: SamplingConfig,
        *,
        system: str | None = None,
    ) -> None:
        config.check(tokenizer.vocab_size)
        self.model, self.tokenizer, self.style, self.config = model, tokenizer, style, config
        self.system = system
        self.turns: list[tuple[str, str]] = []
        self.forgotten = 0
        self._engine = Engine(model, tokenizer, max_batch=1)  # it remembers what it has read
        self._sampler = sampler_of(config)

    def reset(self) -> None:
        """Begin anew, with the same system message."""
        self.turns, self.forgotten = [], 0

    def messages(self) -> list[Message]:
        """The whole conversation, the system message first if there is one."""
        return self._messages(self.turns)

    def ask(self, text: str) -> Answer:
        """Say something; the answer is written as one iterates over it.

        Raises:
            UserError: the text alone leaves no room for an answer; the conversation is as it was.
        """
        context = self.model.cfg.context_length
        # So much is kept free for the answer; it takes more if there is more.
        room = min(self.config.max_new_tokens, max(1, context // 4))
        for first in range(self.forgotten, len(self.turns) + 1):
            ids = self._encode(text, self.turns[first:])
            if len(ids) + room <= context:
                self.forgotten = first
                return Answer(self, text, ids)
        ids = self._encode(text, [])
        raise UserError(
            f"the message makes {len(ids)} tokens with what stands around it; the model's context "
            f"of {context} leaves {context - room} for that: shorten the message"
            + (" or the system message" if self.system else "")
        )

    def _encode(self, text: str, turns: Sequence[tuple[str, str]]) -> list[int]:
        asked: Message = {"role": "user", "content": text}
        return encode_prompt([*self._messages(turns), asked], self.tokenizer, self.style)

    def _messages(self, turns: Sequence[tuple[str, str]]) -> list[Message]:
        messages: list[Message] = []
        if self.system is not None:
            messages.append({"role": "system", "content": self.system})
        for text, answer in turns:
            messages.append({"role": "user", "content": text})
            messages.append({"role": "assistant", "content": answer})
        return messages

    def _stream(self, ids: Sequence[int]) -> TextStream:
        # Where the context is full the answer ends: the model would lose sight of the question.
        return TextStream(
            self.model,
            self.tokenizer,
            ids,
            self.config,
            stop=self.style.stop,
            sampler=self._sampler,
            engine=self._engine,
            on_full="end",
        )


class Answer:
    """The answer to one message; iterate over its pieces once.

    The turn becomes part of the conversation as far as the answer came, also if it was stopped (by
    an exception such as Ctrl-C's, or :meth:`stop`). A turn without an answer does not: there is
    nothing that a model could have been trained on.

    Attributes:
        text: what was written so far.
        finish_reason: why it ended; None if it goes on, or was stopped.
    """

    def __init__(self, chat: Chat, question: str, prompt_ids: Sequence[int]) -> None:
        self.text = ""
        self.finish_reason: FinishReason | None = None
        self._chat, self._question = chat, question
        self._pieces = self._write(chat._stream(prompt_ids))

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def stop(self) -> None:
        """End the answer where it is."""
        self._pieces.close()

    def _write(self, stream: TextStream) -> Generator[str, None, None]:
        try:
            for piece in stream:
                self.text += piece
                yield piece
            self.finish_reason = stream.finish_reason
        finally:
            if answer := self.text.strip():
                self._chat.turns.append((self._question, answer))
