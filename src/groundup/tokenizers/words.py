"""The course's first tokenizers: split text into words and punctuation, look each up in a table.

    vocab = build_vocab(Path("the-verdict.txt").read_text(encoding="utf-8"))
    SimpleTokenizerV2(vocab).encode("Hello, do you like tea?")  # 1131 5 355 1126 628 975 10

They show what a vocabulary is and why it is not enough: V1 fails on a word that the text did not
have, V2 forgets which word it was. Byte-level BPE (`bpe.py`) has neither problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from groundup.errors import UserError, did_you_mean

UNKNOWN = "<|unk|>"

_SPLIT = re.compile(r'([,.:;?_!"()\']|--|\s)')


def split_words(text: str) -> list[str]:
    """Split text into words and punctuation marks; white space is dropped."""
    return [token for piece in _SPLIT.split(text) if (token := piece.strip())]


def build_vocab(
    text: str, special_tokens: Iterable[str] = ("<|endoftext|>", UNKNOWN)
) -> dict[str, int]:
    """Number the distinct tokens of a text in sorted order, then the special tokens.

    Raises:
        UserError: the text has no token at all.
    """
    specials = list(dict.fromkeys(special_tokens))
    tokens = sorted(set(split_words(text)).difference(specials))
    if not tokens:
        raise UserError("the text for a vocabulary is empty; give a text with at least one word")
    return {token: index for index, token in enumerate(tokens + specials)}


class SimpleTokenizerV1:
    """A word tokenizer that knows only the words of its vocabulary (the course's first version)."""

    _space_before_mark = re.compile(r'\s+([,.?!"()\'])')

    def __init__(self, vocab: Mapping[str, int]) -> None:
        self.str_to_int = vocab
        self.int_to_str = {index: token for token, index in vocab.items()}

    def encode(self, text: str) -> list[int]:
        """Return the id of each word and punctuation mark.

        Raises:
            UserError: a word is not in the vocabulary.
        """
        return [self._id(token) for token in split_words(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Join the tokens with spaces, then take away the space before punctuation marks.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        try:
            text = " ".join([self.int_to_str[index] for index in ids])
        except KeyError as error:
            raise UserError(
                f"token id {error.args[0]} is not in the vocabulary of {len(self.int_to_str)} "
                "tokens; decode with the tokenizer that encoded the text"
            ) from None
        return self._space_before_mark.sub(r"\1", text)

    def _id(self, token: str) -> int:
        try:
            return self.str_to_int[token]
        except KeyError:
            raise UserError(
                f"the word {token!r} is not in the vocabulary of {len(self.str_to_int)} tokens, "
                "and SimpleTokenizerV1 knows no other; use SimpleTokenizerV2, which encodes it as "
                f"{UNKNOWN}, or mend the word{did_you_mean(token, self.str_to_int)}"
            ) from None


class SimpleTokenizerV2(SimpleTokenizerV1):
    """V1, and any word outside the vocabulary becomes `<|unk|>`."""

    _space_before_mark = re.compile(r'\s+([,.:;?!"()\'])')

    def _id(self, token: str) -> int:
        known = self.str_to_int
        if token in known:
            return known[token]
        if UNKNOWN not in known:
            raise UserError(
                f"the word {token!r} is unknown and the vocabulary has no {UNKNOWN} token; "
                "make the vocabulary with build_vocab(text)"
            )
        return known[UNKNOWN]
