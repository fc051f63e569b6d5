"""What every tokenizer here can do, and the part of it that is the same for all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from groundup.tokenizers.byte_level import AllowedSpecial
from groundup.tokenizers.files import write_vocabulary
from groundup.tokenizers.vocabulary import Merge, Vocabulary


class Tokenizer(Protocol):
    """The common face of `BPETokenizer` and `GPT2Tokenizer`; write code against this."""

    name: str
    """Which kind it is: "bpe" or "gpt2"."""

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """Tokens, merges and special tokens as plain data."""
        ...

    @abstractmethod
    def encode(self, text: str, *, allowed_special: AllowedSpecial = frozenset()) -> list[int]:
        """Return the text's token ids; special tokens are plain text unless allowed."""
        ...

    @abstractmethod
    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of token ids.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; bytes that are not UTF-8 become U+FFFD.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one token, which need not be whole characters.

        Raises:
            UserError: the id is not in the vocabulary.
        """
        return self.decode_bytes([token_id])

    @property
    def vocab_size(self) -> int:
        """The number of tokens, special ones included; every id is below it."""
        return len(self.vocabulary)

    @property
    def n_vocab(self) -> int:
        """The same under tiktoken's name."""
        return self.vocab_size

    @property
    def eot_token(self) -> int | None:
        """The id of `<|endoftext|>`, if there is one."""
        return self.vocabulary.eot_token

    @property
    def special_tokens(self) -> dict[str, int]:
        """Special tokens and their ids."""
        return self.vocabulary.special_tokens

    @property
    def merges(self) -> list[Merge]:
        """The merges in the order in which they were learned."""
        return self.vocabulary.merges

    def save(self, directory: str | Path, model_max_length: int | None = None) -> None:
        """Write `tokenizer.json` and friends, which transformers' `AutoTokenizer` opens.

        Raises:
            UserError: the path is a file.
        """
        write_vocabulary(directory, self.vocabulary, model_max_length)
