"""Turn token ids into text as they arrive, never showing half of a character.

One character can be several tokens: the emoji 🙂 is two or more tokens of GPT-2, none of which is
text by itself. A stream must hold such bytes back until the character is whole.
"""

from __future__ import annotations

import codecs
from typing import Protocol


class HasTokenBytes(Protocol):
    """Any tokenizer that can say which bytes a token stands for."""

    def token_bytes(self, token_id: int, /) -> bytes:
        """Return the bytes of one token."""
        ...


class StreamDecoder:
    """Decode one sequence of tokens, token by token; the pieces joined equal `decode(ids)`."""

    def __init__(self, tokenizer: HasTokenBytes) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Return the text that this token completes, which may be empty.

        Raises:
            UserError: the id is not in the vocabulary.
        """
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def finish(self) -> str:
        """Return what is still held back (as U+FFFD) and start afresh."""
        return self._utf8.decode(b"", final=True)
