"""Byte-level byte-pair encoding, the tokenizer of GPT-2: train it, encode, decode, save, load.

    tokenizer = BPETokenizer.train(text, vocab_size=4096)
    ids = tokenizer.encode("Hello, I am")
    tokenizer.decode(ids)                    # "Hello, I am"
    tokenizer.save("my-model")               # tokenizer.json and friends
    BPETokenizer.load("my-model")

How a text becomes ids: cut it into pieces (`byte_level.py`), spell each piece in bytes, then join
neighbours by the learned merges, the earliest learned first. `bpe_train.py` learns the merges.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from groundup.errors import UserError
from groundup.tokenizers.bpe_train import (
    Pair,
    Progress,
    check_documents,
    check_request,
    count_words,
    learn_merges,
)
from groundup.tokenizers.byte_level import (
    END_OF_TEXT,
    AllowedSpecial,
    check_allowed_special,
    check_text,
    split_special,
    splitter,
)
from groundup.tokenizers.interface import Tokenizer
from groundup.tokenizers.reading import read_vocabulary
from groundup.tokenizers.vocabulary import Vocabulary, check_ids, unknown_id

# Most text is the same few thousand pieces over and over; a cache of their ids makes encoding
# several times as fast. These bounds keep it to some tens of megabytes.
_CACHED_PIECES = 100_000
_LONGEST_CACHED_PIECE = 64


class BPETokenizer(Tokenizer):
    """A byte-level BPE tokenizer: any text has ids, and `decode(encode(text)) == text`."""

    name = "bpe"

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        ids = vocabulary.ids
        self._byte_ids = {token[0]: index for token, index in ids.items() if len(token) == 1}
        self._ranks = {
            (ids[left], ids[right]): (rank, ids[left + right])
            for rank, (left, right) in enumerate(vocabulary.merges)
        }
        self._pieces = _PieceCache(self._encode_piece)

    @classmethod
    def train(
        cls,
        text: str | Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        progress: Progress | None = None,
    ) -> BPETokenizer:
        """Learn a vocabulary from a text, or from several documents, which never merge together.

        Ids are GPT-2's way: 256 bytes, the merges in order, special tokens last. A short text may
        have fewer merges than asked for; then the tokenizer is smaller (see `vocab_size`).
        Special tokens that the text spells out are plain text here; give documents instead of
        joining them with `<|endoftext|>`.

        Args:
            text: a text, or an iterable of documents.
            vocab_size: how many tokens there shall be, bytes and special tokens included.
            special_tokens: tokens that no text can spell by itself.
            progress: called as `progress(merges done, merges wanted)`.

        Raises:
            UserError: the text is empty or not UTF-8, the vocabulary too small, a special token
                unusable.
        """
        specials = check_request(vocab_size, special_tokens)
        word_counts = count_words(check_documents(text))
        merges = learn_merges(word_counts, vocab_size - len(specials), progress)
        return cls(Vocabulary.from_merges(merges, specials))

    @classmethod
    def from_characters(cls, ids: Mapping[str, int]) -> BPETokenizer:
        """A tokenizer whose tokens are single characters, such as nanoGPT's ``stoi``.

        A text with another character, or one that is not ASCII, cannot be encoded.
        """
        return cls(Vocabulary({token.encode(): index for token, index in ids.items()}, [], {}))

    @property
    def vocabulary(self) -> Vocabulary:
        """Tokens, merges and special tokens as plain data."""
        return self._vocabulary

    def encode(self, text: str, *, allowed_special: AllowedSpecial = frozenset()) -> list[int]:
        """Return the text's token ids.

        Args:
            text: any text. `<|endoftext|>` spelled in it is plain text, since users type it too.
            allowed_special: special tokens that shall become their id instead, or `"all"`.

        Raises:
            UserError: the text has a lone surrogate, or `allowed_special` an unknown token.
        """
        check_text(text)
        allowed = check_allowed_special(allowed_special, self.special_tokens)
        split, ids = splitter(), []
        whole = {token: self.special_tokens[token] for token in allowed}
        whole |= self.vocabulary.added_tokens
        for part, is_whole in split_special(text, whole):
            if is_whole:
                ids.append(whole[part])
            else:
                ids.extend(chain.from_iterable(map(self._pieces.__getitem__, split(part))))
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of token ids.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        tokens = self.vocabulary.token_bytes
        try:
            return b"".join([tokens[token_id] for token_id in check_ids(ids)])
        except KeyError as error:
            raise unknown_id(error.args[0], self.vocab_size) from None

    @classmethod
    def load(cls, path: str | Path) -> BPETokenizer:
        """Open a `tokenizer.json`, or the directory that has one.

        Raises:
            UserError: it is missing, damaged, or no byte-level BPE as GPT-2 has it.
        """
        return cls(read_vocabulary(path))

    def __reduce__(self) -> tuple[type[BPETokenizer], tuple[Vocabulary]]:
        return type(self), (self.vocabulary,)  # worker processes get no cache

    def _encode_piece(self, piece: str) -> list[int]:
        try:
            return merge_piece([self._byte_ids[byte] for byte in piece.encode()], self._ranks)
        except KeyError:
            unknown = next(c for c in piece if any(b not in self._byte_ids for b in c.encode()))
            raise UserError(
                f"the tokenizer knows only the characters of the text that it was made for, and "
                f"{unknown!r} is none of them; leave it out"
            ) from None


def merge_piece(ids: list[int], ranks: Mapping[Pair, Pair]) -> list[int]:
    """Join neighbours by their merges: always the lowest rank, and of equals the leftmost.

    Args:
        ids: the ids of the piece's bytes; changed in place.
        ranks: pair of ids -> (rank of their merge, id of the merged token).

    A heap of the possible merges and a linked list of the surviving places make this
    O(n log n), so that a piece of a million letters is no trap.
    """
    n, gone = len(ids), -1
    heap = [
        (ranks[pair][0], i)
        for i, pair in enumerate(zip(ids, ids[1:], strict=False))
        if pair in ranks
    ]
    heapq.heapify(heap)
    previous, following = list(range(-1, n - 1)), list(range(1, n + 1))
    while heap:
        rank, i = heapq.heappop(heap)
        j = following[i]
        merge = ranks.get((ids[i], ids[j])) if j < n else None
        if merge is None or merge[0] != rank:
            continue  # an earlier merge took one of the two
        ids[i], ids[j] = merge[1], gone
        k = following[i] = following[j]
        if k < n:
            previous[k] = i
            if right := ranks.get((ids[i], ids[k])):
                heapq.heappush(heap, (right[0], i))
        h = previous[i]
        if h >= 0 and (left := ranks.get((ids[h], ids[i]))):
            heapq.heappush(heap, (left[0], h))
    return [token_id for token_id in ids if token_id != gone]


class _PieceCache(dict[str, list[int]]):
    """Piece -> ids, worked out when first asked for."""

    def __init__(self, encode_piece: Callable[[str], list[int]]) -> None:
        super().__init__()
        self._encode_piece = encode_piece

    def __missing__(self, piece: str) -> list[int]:
        ids = self._encode_piece(piece)
        if len(piece) <= _LONGEST_CACHED_PIECE:
            if len(self) >= _CACHED_PIECES:
                self.clear()
            self[piece] = ids
        return ids
