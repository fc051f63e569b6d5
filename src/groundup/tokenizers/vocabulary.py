"""A byte-level BPE vocabulary as plain data: the tokens' ids, the merges, the special tokens.

It is what training produces, what a tokenizer encodes with and what the files hold.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from functools import cached_property

from groundup.errors import UserError
from groundup.tokenizers.byte_level import BYTE_TOKENS, END_OF_TEXT

Merge = tuple[bytes, bytes]


@dataclass(frozen=True)
class Vocabulary:
    """Ids are 0 to n-1, each used once; every byte is a token; every merge joins two tokens.

    Without merges some bytes may lack, as in a vocabulary of the characters of one text. Not
    ``strict``, none of this is asked for: others' tokenizers lack bytes or leave ids out.

    Raises:
        UserError: one of these does not hold.
    """

    ids: dict[bytes, int]
    """Ordinary tokens."""
    merges: list[Merge]
    """Best first: the place in this list is the merge's rank."""
    special_tokens: dict[str, int]
    added_tokens: dict[str, int] = field(default_factory=dict)
    """Words that somebody added later: wherever a text spells one, it is one token."""
    strict: InitVar[bool] = True

    def __post_init__(self, strict: bool) -> None:
        if not strict:
            return
        used = sorted([*self.ids.values(), *self._whole.values()])
        if used != list(range(len(used))):
            wrong = next(i for i, index in enumerate(used) if index != i)
            raise UserError(
                f"the ids of a vocabulary of {len(used)} tokens must be 0 to {len(used) - 1}, each "
                f"once, but {used[wrong]} comes where {wrong} is expected"
            )
        for token in BYTE_TOKENS:
            if token not in self.ids and self.merges:
                raise UserError(
                    f"the vocabulary has no token for the byte 0x{token.hex()}; a byte-level BPE "
                    "vocabulary has all 256, so that it can encode any text"
                )
        for left, right in self.merges:
            for token in (left, right, left + right):
                if token not in self.ids:
                    raise UserError(
                        f"the merge of {left!r} and {right!r} needs the token {token!r}, which is "
                        "not in the vocabulary; vocabulary and merges are not of one tokenizer"
                    )

    @classmethod
    def from_merges(cls, merges: Iterable[Merge], special_tokens: Iterable[str]) -> Vocabulary:
        """Number the tokens as GPT-2 does: bytes, then merged tokens in order, then specials."""
        merges = list(merges)
        tokens = dict.fromkeys([*BYTE_TOKENS, *(left + right for left, right in merges)])
        ids = {token: index for index, token in enumerate(tokens)}
        specials = {token: len(ids) + n for n, token in enumerate(special_tokens)}
        return cls(ids, merges, specials)

    def __len__(self) -> int:
        return len(self.ids) + len(self._whole)

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256: two tokenizers of the same one give every text the same ids."""
        digest = hashlib.sha256()
        for ids in (self.ids, self.special_tokens, self.added_tokens):
            tokens = sorted((index, token) for token, index in ids.items())
            digest.update(f"{tokens}\n".encode("utf-8", "surrogatepass"))
        digest.update(f"{self.merges}\n".encode())
        return digest.hexdigest()

    @property
    def _whole(self) -> dict[str, int]:
        """The tokens that no merge makes."""
        return self.special_tokens | self.added_tokens

    def within(self, size: int) -> Vocabulary:
        """Without tokens that were added at the end of it for a model that has no room for them.

        Its ids are below ``size`` then, unless more than such tokens are beyond.
        """
        kept, added = (
            {
                token: index
                for token, index in tokens.items()
                if index < size or token == END_OF_TEXT
            }
            for tokens in (self.special_tokens, self.added_tokens)
        )
        fits = len(self.ids) + len(kept) + len(added) <= size < len(self)
        return Vocabulary(self.ids, self.merges, kept, added) if fits else self

    @cached_property
    def token_bytes(self) -> dict[int, bytes]:
        """Every id's bytes, special tokens included."""
        ordinary = {index: token for token, index in self.ids.items()}
        return ordinary | {index: token.encode() for token, index in self._whole.items()}

    @property
    def eot_token(self) -> int | None:
        """The id of `<|endoftext|>`, if there is one."""
        return self.special_tokens.get(END_OF_TEXT)


def check_ids(ids: Iterable[int]) -> list[int]:
    """Return token ids as a list of int; a one-dimensional tensor or array will do.

    Raises:
        UserError: they are not whole numbers in one row.
    """
    to_list = getattr(ids, "tolist", None)
    try:
        return list(map(operator.index, to_list() if to_list else ids))
    except TypeError:
        raise UserError(
            f"expected token ids as one row of whole numbers, got {type(ids).__name__} of another "
            "shape or kind; decode a batch row by row"
        ) from None


def unknown_id(token_id: int, vocab_size: int) -> UserError:
    """Say that an id is no token of a vocabulary."""
    return UserError(
        f"token id {token_id} is not in this tokenizer's vocabulary of {vocab_size} tokens "
        f"(0 to {vocab_size - 1}); decode with the tokenizer that the ids were made with"
    )


def merges_from_ranks(ranks: Mapping[bytes, int]) -> list[Merge]:
    """Recover the merges of a vocabulary that lists only tokens by rank, as tiktoken's do.

    A token's merge is the last one that BPE performs on its bytes with the tokens ranked below it.
    """
    merges: list[Merge] = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            joined = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:], strict=False)]
            best = min(range(len(joined)), key=joined.__getitem__)
            if joined[best] >= rank:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges
