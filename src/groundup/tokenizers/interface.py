"""What every tokenizer here can do, and how to open one by name or from a directory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from groundup.errors import UserError
from groundup.tokenizers.bpe import BPETokenizer
from groundup.tokenizers.byte_level import AllowedSpecial
from groundup.tokenizers.files import read_openai_vocabulary, read_vocabulary
from groundup.tokenizers.gpt2 import GPT2Tokenizer, get_gpt2_tokenizer, is_gpt2
from groundup.tokenizers.vocabulary import Vocabulary


class Tokenizer(Protocol):
    """The common face of `BPETokenizer` and `GPT2Tokenizer`; write code against this."""

    @property
    def name(self) -> str:
        """Which kind it is: "bpe" or "gpt2"."""
        ...

    @property
    def vocab_size(self) -> int:
        """The number of tokens, special ones included; every id is below it."""
        ...

    @property
    def n_vocab(self) -> int:
        """The same under tiktoken's name."""
        ...

    @property
    def eot_token(self) -> int | None:
        """The id of `<|endoftext|>`, if there is one."""
        ...

    @property
    def special_tokens(self) -> dict[str, int]:
        """Special tokens and their ids."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """Tokens, merges and special tokens as plain data."""
        ...

    def encode(self, text: str, *, allowed_special: AllowedSpecial = frozenset()) -> list[int]:
        """Return the text's token ids; special tokens are plain text unless allowed."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; bytes that are not UTF-8 become U+FFFD."""
        ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of token ids."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one token, which need not be whole characters."""
        ...

    def save(self, directory: str | Path, model_max_length: int | None = None) -> None:
        """Write `tokenizer.json` and friends into a directory."""
        ...


def load_tokenizer(directory: str | Path) -> BPETokenizer | GPT2Tokenizer:
    """Open the tokenizer of a model directory; GPT-2's own vocabulary gets tiktoken's speed.

    Raises:
        UserError: there is no `tokenizer.json`, or not one that can be used here.
    """
    vocabulary = read_vocabulary(directory)
    if is_gpt2(vocabulary):
        return GPT2Tokenizer.from_vocabulary(vocabulary)
    return BPETokenizer(vocabulary)


def load_openai_tokenizer(directory: Path) -> BPETokenizer | GPT2Tokenizer:
    """Open the tokenizer of a folder with OpenAI's `encoder.json` and `vocab.bpe`.

    Raises:
        UserError: one of them is missing or damaged.
    """
    vocabulary = read_openai_vocabulary(directory)
    if is_gpt2(vocabulary):
        return GPT2Tokenizer.from_vocabulary(vocabulary)
    return BPETokenizer(vocabulary)


def get_tokenizer(name_or_path: str | Path) -> BPETokenizer | GPT2Tokenizer:
    """Return the tokenizer that a command line names: `gpt2`, a directory, or a tokenizer.json.

    Raises:
        UserError: it is none of these, or what is there cannot be used.
    """
    if str(name_or_path) == "gpt2":
        return get_gpt2_tokenizer()
    if not Path(name_or_path).exists():
        raise UserError(
            f"unknown tokenizer {str(name_or_path)!r}; give gpt2, or the path of a directory with "
            "a tokenizer.json or of the file itself"
        )
    return load_tokenizer(name_or_path)
