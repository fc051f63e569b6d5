"""What every tokenizer here can do, and the part of it that is the same for all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from groundup.tokenizers.byte_level import (
    END_OF_TEXT,
    AllowedSpecial,
    check_text,
    split_special,
    splitter,
)
from groundup.tokenizers.files import write_template, write_vocabulary
from groundup.tokenizers.vocabulary import Merge, Vocabulary


class Tokenizer(Protocol):
    """The common face of all tokenizers here; write code against this.

    What stands around a text is not encoded with it, so ids can be joined. A text that stands alone
    (a prompt, a text to classify) begins with `begin`, which `encode_alone` puts there: the same
    ids as `transformers` gives. Documents to train on are separated by `eot_token` instead.
    """

    name: str
    """Which kind it is: "bpe", "gpt2" or "library"."""

    chat_template: str | None = None
    """The model's own, in Jinja, if it brought one; saved with it."""

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """Tokens, merges and special tokens as plain data."""
        ...

    @abstractmethod
    def encode(self, text: str, *, allowed_special: AllowedSpecial = frozenset()) -> list[int]:
        """Return the text's token ids; special tokens are plain text unless allowed."""
        ...

    def encode_alone(
        self, text: str, *, allowed_special: AllowedSpecial = frozenset()
    ) -> list[int]:
        """The same for a text that stands alone: it begins with `begin`."""
        return [*self.begin, *self.encode(text, allowed_special=allowed_special)]

    def split(self, text: str, special: Collection[str]) -> Iterator[tuple[str, int | None]]:
        """Yield each part of a text with the id of the special token that it is, or None.

        Args:
            text: any text.
            special: the special tokens to look for.
        """
        for part, is_special in split_special(text, special):
            yield part, self.special_tokens[part] if is_special else None

    def pieces(self, text: str) -> Iterator[list[int]]:
        """Yield the ids of each piece that the text is cut into; no merge, and no token, spans two.

        Raises:
            UserError: as :meth:`encode`.
        """
        check_text(text)
        added = self.vocabulary.added_tokens
        for part, is_added in split_special(text, added):
            if is_added:
                yield [added[part]]
            else:
                yield from map(self.encode, splitter()(part))

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
        """The token that ends a text or an answer: `<|endoftext|>`, if there is one."""
        return self.vocabulary.eot_token

    @property
    def bos_token(self) -> int | None:
        """The token that is said to begin a text, which need not be put there; see `begin`."""
        return self.special_tokens.get(self.roles.get("bos_token", ""), self.eot_token)

    @property
    def begin(self) -> list[int]:
        """The ids that a text begins with where it stands alone, such as Llama 3's BOS."""
        return []

    @property
    def roles(self) -> dict[str, str]:
        """Which token is `bos_token`, `eos_token`, …, as chat templates call them."""
        roles = ("bos_token", "eos_token", "unk_token")
        return dict.fromkeys(roles, END_OF_TEXT) if END_OF_TEXT in self.special_tokens else {}

    @property
    def cuttable(self) -> bool:
        """Whether a long text may be encoded in the parts that `parts.py` cuts it into."""
        return True

    @property
    def fingerprint(self) -> str:
        """A SHA-256: two tokenizers of the same one give every text the same ids."""
        return self.vocabulary.fingerprint

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
        write_template(directory, self.chat_template)
