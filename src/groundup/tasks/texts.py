"""What a pretraining reads: texts in memory, texts too big for it, or a prepared corpus.

They look the same from outside: a fingerprint, a tokenizer that is brought or trained, and rows of
tokens to cut windows from. Whichever it is, the same text gives the same windows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from groundup.data.batching import Batch
from groundup.data.corpus import Corpus, is_corpus
from groundup.data.corpus_cache import BigText
from groundup.data.corpus_windows import CorpusWindows
from groundup.data.finding import PACKED, STDIN
from groundup.data.text import find_texts, fingerprint, read_documents, split_documents
from groundup.data.tokens import encode_in_a_row
from groundup.data.windows import TokenWindows
from groundup.errors import UserError
from groundup.tasks.tokenizer import train_on_stream, train_tokenizer
from groundup.tokenizers import Tokenizer

Say = Callable[[str], None]

BIG = 20_000_000
"""Bytes of files; more are not read into memory."""

_UNPACKED = 4
"""A packed file becomes so many times as long, about."""


class Windows(Protocol):
    """Windows over a row of tokens."""

    num_tokens: int

    def __len__(self) -> int: ...

    def collate(self, rows: Sequence[int]) -> Batch:
        """A batch of the windows of these numbers."""
        ...


class Row(Protocol):
    """A row of tokens."""

    def __len__(self) -> int: ...

    def windows(self, length: int, stride: int, *, documents: bool) -> Windows:
        """Windows over it, which say which document each token is of if that is asked."""
        ...


class Texts(Protocol):
    """What one trains or validates on: a text, or a mixture of them."""

    description: str

    @property
    def decided_ratio(self) -> float | None:
        """The share that trains, if that is decided already."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer that it brings."""
        ...

    def sha256(self, more: Sequence[str] = ()) -> str:
        """Its fingerprint, together with others'."""
        ...

    def train_tokenizer(self, ratio: float, size: int, say: Say) -> Tokenizer:
        """A tokenizer of the part that trains."""
        ...

    def expect_tokenizer(self, tokenizer: Tokenizer, whose: str) -> None:
        """Refuse a tokenizer that it was not made with."""
        ...

    def watch(self) -> None:
        """Begin to verify it."""
        ...


class OneText(Texts, Protocol):
    """A text."""

    def split(self, tokenizer: Tokenizer, ratio: float, say: Say) -> tuple[Row, Row]:
        """What trains and what validates."""
        ...

    def whole(self, tokenizer: Tokenizer, say: Say) -> Row:
        """All of it."""
        ...


@dataclass
class ArrayRow:
    """Tokens in memory, and where documents begin."""

    ids: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def windows(self, length: int, stride: int, *, documents: bool) -> TokenWindows:
        """See :class:`Row`."""
        return TokenWindows(self.ids, length, stride, starts=self.starts if documents else None)


@dataclass
class CorpusRow:
    """Tokens on the disk."""

    corpus: Corpus
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    def windows(self, length: int, stride: int, *, documents: bool) -> CorpusWindows:
        """See :class:`Row`."""
        place = self.corpus, self.begin, self.end
        return CorpusWindows(*place, length, stride, documents=documents)


class InMemory:
    """Documents in memory."""

    tokenizer = decided_ratio = None

    def __init__(self, documents: Sequence[str], description: str = "") -> None:
        self.documents, self.description = documents, description

    def sha256(self, more: Sequence[str] = ()) -> str:
        """See :class:`Texts`."""
        return fingerprint(chain(self.documents, more))

    def train_tokenizer(self, ratio: float, size: int, say: Say) -> Tokenizer:
        """See :class:`Texts`."""
        return train_tokenizer(self._split(ratio)[0], size, say)

    def split(self, tokenizer: Tokenizer, ratio: float, say: Say) -> tuple[Row, Row]:
        """See :class:`Texts`: by characters, as the course does."""
        train, val = self._split(ratio)
        rows = [ArrayRow(*encode_in_a_row(part, tokenizer, say)) for part in (train, val)]
        return rows[0], rows[1]

    def _split(self, ratio: float) -> tuple[list[str], list[str]]:
        train, val = split_documents(self.documents, ratio)
        if val and not train:
            raise UserError(
                f"the text is too short: train_ratio {ratio} leaves nothing of it to train on; use "
                "a longer one"
            )
        return train, val

    def whole(self, tokenizer: Tokenizer, say: Say) -> Row:
        """See :class:`Texts`."""
        return ArrayRow(*encode_in_a_row(self.documents, tokenizer, say))

    def expect_tokenizer(self, tokenizer: Tokenizer, whose: str) -> None:
        """Any will do."""

    def watch(self) -> None:
        """There is nothing to verify."""


class OnDisk:
    """Files that are too big to be read into memory: their tokens go to the cache."""

    tokenizer = decided_ratio = None

    def __init__(self, text: BigText) -> None:
        self.text, self.description = text, _count(text.documents, text.characters)
        self._corpus: Corpus | None = None

    def sha256(self, more: Sequence[str] = ()) -> str:
        """See :class:`Texts`: the same as if they were in memory."""
        return self.text.sha256 if not more else self.text.fingerprint_with(more)

    def train_tokenizer(self, ratio: float, size: int, say: Say) -> Tokenizer:
        """See :class:`Texts`."""
        return train_on_stream(self.text.training_texts(ratio), size, say)

    def split(self, tokenizer: Tokenizer, ratio: float, say: Say) -> tuple[Row, Row]:
        """See :class:`Texts`: by characters, as in memory."""
        self._corpus = corpus = self.text.tokens(tokenizer, ratio, say)
        cut, end = corpus.split(ratio), corpus.index.tokens
        return CorpusRow(corpus, 0, cut), CorpusRow(corpus, cut, end)

    def whole(self, tokenizer: Tokenizer, say: Say) -> Row:
        """See :class:`Texts`."""
        self._corpus = self.text.tokens(tokenizer, None, say)
        return CorpusRow(self._corpus, 0, self._corpus.index.tokens)

    def expect_tokenizer(self, tokenizer: Tokenizer, whose: str) -> None:
        """Any will do."""

    def watch(self) -> None:
        """Begin to verify what is in the cache."""
        if self._corpus is not None:
            self._corpus.watch()


class Prepared:
    """A corpus that was prepared."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.description = _count(corpus.index.documents, corpus.index.characters)
        self.decided_ratio: float | None = corpus.index.made_of.get("train_ratio")

    @property
    def tokenizer(self) -> Tokenizer:
        """See :class:`Texts`."""
        return self.corpus.tokenizer

    def sha256(self, more: Sequence[str] = ()) -> str:
        """See :class:`Texts`."""
        own = self.corpus.index.sha256
        return own if not more else hashlib.sha256("\n".join([own, *more]).encode()).hexdigest()

    def train_tokenizer(self, ratio: float, size: int, say: Say) -> Tokenizer:
        """It has one."""
        return self.tokenizer

    def split(self, tokenizer: Tokenizer, ratio: float, say: Say) -> tuple[Row, Row]:
        """See :class:`Texts`: as decided when it was made, else by tokens."""
        cut, end = self.corpus.split(ratio), self.corpus.index.tokens
        return CorpusRow(self.corpus, 0, cut), CorpusRow(self.corpus, cut, end)

    def whole(self, tokenizer: Tokenizer, say: Say) -> Row:
        """See :class:`Texts`."""
        return CorpusRow(self.corpus, 0, self.corpus.index.tokens)

    def expect_tokenizer(self, tokenizer: Tokenizer, whose: str) -> None:
        """See :class:`Texts`.

        Raises:
            UserError: it is another one; both fingerprints are named.
        """
        self.corpus.expect_tokenizer(tokenizer, whose)

    def watch(self) -> None:
        """See :class:`Texts`."""
        self.corpus.watch()


def texts_of(given: Sequence[str] | Corpus | Texts, description: str = "") -> Texts:
    """Documents or a corpus, as a text to train on."""
    if isinstance(given, Corpus):
        return Prepared(given)
    return InMemory(given, description) if isinstance(given, Sequence) else given


def open_texts(
    sources: Sequence[str], separator: str | None, say: Say, apart_from: Sequence[str] = ()
) -> OneText:
    """What the command line names: a prepared corpus, or files, in memory if they are not big.

    Raises:
        UserError: there is none of it, or a corpus and other things.
    """
    corpora = [source for source in sources if is_corpus(source)]
    if corpora and len(sources) > 1:
        raise UserError(
            f"{corpora[0]} is a prepared corpus, which is trained on alone; to train on several, "
            "give their shares: --mix FIRST=0.7 --mix SECOND=0.3"
        )
    if corpora:
        if separator is not None:
            raise UserError(
                f"{corpora[0]} is a prepared corpus, whose documents are separated already; leave "
                "out --document-separator"
            )
        return Prepared(Corpus(corpora[0]))
    apart_from = [source for source in apart_from if not is_corpus(source)]
    files = find_texts(sources, apart_from=apart_from)
    if _bytes(files) > BIG:
        find_texts(sources, say=say)  # says what is left out
        return OnDisk(BigText(files, separator))
    documents = read_documents(sources, separator, say=say)
    return InMemory(documents, _count(len(documents), sum(map(len, documents))))


def _bytes(files: Iterable[str]) -> int:
    """How much text there is in files, about; stdin is none, since it is read only once."""
    if any(file in ("-", STDIN) for file in files):
        return 0
    weights = {file: _UNPACKED if Path(file).suffix.lower() in PACKED else 1 for file in files}
    return sum(os.path.getsize(file) * weight for file, weight in weights.items())


def _count(documents: int, characters: int) -> str:
    return f"{documents} document{'s' * (documents != 1)}, {characters:,} characters"
