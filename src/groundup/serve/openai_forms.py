"""The JSON of OpenAI's answers: of chats and of completions, whole and in chunks."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from groundup.decoding.sequence import Logprob
from groundup.decoding.text import FinishReason
from groundup.errors import UserError
from groundup.serve.models import Served
from groundup.serve.writing import Piece, Writing
from groundup.tokenizers import Tokenizer


class Form(ABC):
    """How one kind of answer looks."""

    KIND: ClassVar[str]
    CHUNK: ClassVar[str]
    PREFIX: ClassVar[str]

    def __init__(self, served: Served, writing: Writing, *, logprobs: bool) -> None:
        self.served, self.writing, self.logprobs = served, writing, logprobs
        self.id = f"{self.PREFIX}-{uuid.uuid4().hex}"
        self.created = int(time.time())

    def whole(self, pieces: Sequence[Piece], usage: dict[str, int]) -> dict[str, Any]:
        """The answer, once all is written."""
        own: list[list[Piece]] = [[] for _ in self.writing.texts]
        for piece in pieces:
            own[piece.place].append(piece)
        choices = [self._choice(place, pieces) for place, pieces in enumerate(own)]
        return self._envelope(self.KIND, choices) | {"usage": usage}

    def opening(self) -> list[dict[str, Any]]:
        """What a stream begins with."""
        return []

    def chunk(self, piece: Piece) -> dict[str, Any] | None:
        """One piece of a stream; None if there is nothing to tell yet."""
        if not (piece.text or piece.finish_reason or self.logprobs):
            return None
        return self._envelope(self.CHUNK, [self._choice(piece.place, [piece], chunk=True)])

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        """The end of a stream that tells the numbers of tokens."""
        return self._envelope(self.CHUNK, []) | {"usage": usage}

    def _choice(
        self, place: int, pieces: Sequence[Piece], *, chunk: bool = False
    ) -> dict[str, Any]:
        text = "".join(piece.text for piece in pieces)
        # The end-of-text token is no part of a text, nor is its probability.
        logprobs = [
            piece.logprob
            for piece in pieces
            if piece.logprob is not None and piece.finish_reason != "end_of_text"
        ]
        return {
            "index": place,
            **self._content(place, text, chunk),
            "logprobs": self._logprobs(place, logprobs) if self.logprobs else None,
            "finish_reason": _reason(pieces[-1].finish_reason),
        }

    @abstractmethod
    def _content(self, place: int, text: str, chunk: bool) -> dict[str, Any]: ...

    @abstractmethod
    def _logprobs(self, place: int, logprobs: Sequence[Logprob]) -> dict[str, Any]: ...

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        about = {"id": self.id, "object": kind, "created": self.created, "model": self.served.name}
        return {**about, "choices": choices}


class ChatForm(Form):
    """A chat's."""

    KIND, CHUNK, PREFIX = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def opening(self) -> list[dict[str, Any]]:
        """Who speaks, in each of the answers."""
        return [
            self._envelope(
                self.CHUNK,
                [
                    {
                        "index": place,
                        "delta": {"role": "assistant", "content": ""},
                        "logprobs": None,
                        "finish_reason": None,
                    }
                ],
            )
            for place in range(len(self.writing.texts))
        ]

    def _content(self, place: int, text: str, chunk: bool) -> dict[str, Any]:
        if chunk:
            return {"delta": {"content": text} if text else {}}
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _logprobs(self, place: int, logprobs: Sequence[Logprob]) -> dict[str, Any]:
        tokenizer = self.served.tokenizer

        def told(token_id: int, logprob: float) -> dict[str, Any]:
            data = token_bytes(tokenizer, token_id)
            text = data.decode("utf-8", "replace")
            return {"token": text, "logprob": logprob, "bytes": list(data)}

        return {
            "content": [
                {**told(one.token_id, one.logprob), "top_logprobs": [told(*top) for top in one.top]}
                for one in logprobs
            ],
            "refusal": None,
        }


class CompletionForm(Form):
    """A completion's.

    Attributes:
        before: what stands before each text and is to be told too (``echo``).
    """

    KIND = CHUNK = "text_completion"
    PREFIX = "cmpl"

    def __init__(self, served: Served, writing: Writing, *, logprobs: bool) -> None:
        super().__init__(served, writing, logprobs=logprobs)
        self.before: list[str] = []
        self._offsets = [0 for _ in writing.texts]

    def opening(self) -> list[dict[str, Any]]:
        """The prompts, if they are to be told."""
        return [
            self._envelope(
                self.CHUNK,
                [{"index": place, "text": text, "logprobs": None, "finish_reason": None}],
            )
            for place, text in enumerate(self.before)
        ]

    def _content(self, place: int, text: str, chunk: bool) -> dict[str, Any]:
        return {"text": text if chunk or not self.before else self.before[place] + text}

    def _logprobs(self, place: int, logprobs: Sequence[Logprob]) -> dict[str, Any]:
        tokenizer = self.served.tokenizer

        def text_of(token_id: int) -> str:
            return token_bytes(tokenizer, token_id).decode("utf-8", "replace")

        tokens = [text_of(one.token_id) for one in logprobs]
        offsets = []
        for token in tokens:
            offsets.append(self._offsets[place])
            self._offsets[place] += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [one.logprob for one in logprobs],
            "top_logprobs": [{text_of(i): value for i, value in one.top} for one in logprobs],
            "text_offset": offsets,
        }


def token_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """A token's bytes; none, where the vocabulary has a gap."""
    try:
        return tokenizer.token_bytes(token_id)
    except UserError:
        return b""


def _reason(reason: FinishReason | None) -> str | None:
    """OpenAI's word for why a text ends."""
    return "stop" if reason in ("stop", "end_of_text") else reason
