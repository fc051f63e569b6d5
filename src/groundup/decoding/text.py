"""Tokens to text, one at a time: never half a character, and nothing of a stop string.

A text ends at the end-of-text token or before the stop string that is complete first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from groundup.errors import UserError
from groundup.tokenizers import StreamDecoder, Tokenizer

FinishReason = Literal["length", "stop", "end_of_text", "error"]
"""Why a text ends: it is as long as it may be; a stop string came, or the form that is asked for is
whole; the end-of-text token came; or it cannot go on (see ``Sequence.error``)."""


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
