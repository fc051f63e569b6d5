"""Big texts as corpora in the cache, made the first time that they are trained on.

    $GROUNDUP_CACHE/corpora/KEY/        the tokens of certain files with a certain tokenizer
    $GROUNDUP_CACHE/corpora/KEY.json    the fingerprint of certain files' text

A key stands for the files (path, length, time of change), how they were read, and the tokenizer.
All of it may be deleted at any time; it is made anew then.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from groundup.data.corpus import Corpus, is_corpus
from groundup.data.prepare import make_corpus
from groundup.data.reading import Reading
from groundup.data.sources import cache_dir
from groundup.data.text import Fingerprint, no_text
from groundup.errors import UserError
from groundup.files import atomic_file, locked, read_json, write_json
from groundup.output import progress_bar
from groundup.tokenizers import Tokenizer

Say = Callable[[str], None]


class BigText:
    """Texts of any size in files, of which only pieces are in memory at any time.

    Args:
        files: as :func:`~groundup.data.finding.find_files` has found them.
        separator: between documents within a file.

    Raises:
        UserError: a file cannot be read, or all are blank.
    """

    def __init__(self, files: Sequence[str], separator: str | None) -> None:
        self.files, self.separator = [str(Path(file).resolve()) for file in files], separator
        self._reading = Reading(self.files, separator, field=None)
        self.documents, self.characters, self.sha256 = self._known()

    def tokens(self, tokenizer: Tokenizer, train_ratio: float | None, say: Say) -> Corpus:
        """Its tokens, from the cache or made now; the first so many of the characters train.

        Raises:
            UserError: the disk is full, …, or a text cannot be encoded.
        """
        reading = Reading(self.files, self.separator, None, train_ratio)
        folder = _folder() / _key(reading.identity() | {"tokens": _fingerprint(tokenizer)})
        busy = f"another run is tokenizing these files into {folder}; waiting for it"
        with locked(folder.with_suffix(".lock"), busy, wait=say):
            if is_corpus(folder):
                try:
                    corpus = Corpus(folder)
                    say(f"tokens: those of an earlier run, in {folder}")
                    return corpus
                except UserError as error:
                    say(f"note: {error}; it is made anew")
                    return make_corpus(reading, folder, tokenizer, overwrite=True, say=say)
            say(f"tokens: much text, so they go to {folder}, which later runs use, too")
            return make_corpus(reading, folder, tokenizer, say=say)

    def training_texts(self, train_ratio: float) -> Any:
        """The texts of the first so many of the characters, in pieces."""
        return self._reading.training_texts(int(train_ratio * self.characters))

    def _known(self) -> tuple[int, int, str]:
        """How many documents and characters, and the fingerprint of the text."""
        path = _folder() / f"{_key(self._reading.identity())}.json"
        if path.exists():
            try:
                found = read_json(path)
                return int(found["documents"]), int(found["characters"]), str(found["sha256"])
            except (UserError, KeyError, TypeError, ValueError):
                pass  # it is made anew
        sizes, characters = self._sizes()
        documents, sha256 = len(sizes), self._fingerprint(sizes, characters)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            known = {"documents": documents, "characters": characters, "sha256": sha256}
            write_json(temporary, known)
        return documents, characters, sha256

    def fingerprint_with(self, more: Sequence[str]) -> str:
        """The fingerprint of the text and of other documents behind it."""
        sizes, characters = self._sizes()
        return self._fingerprint(sizes, characters, more)

    def _sizes(self) -> tuple[array[int], int]:
        """The bytes of each document, and the characters of all."""
        sizes, size, characters = array("q"), 0, 0
        with progress_bar(desc="reading", unit="character", unit_scale=True, delay=1) as bar:
            for piece in self._reading.all_pieces():
                size += len(piece.text.encode())
                characters += len(piece.text)
                bar.update(len(piece.text))
                if piece.ends:
                    sizes.append(size)
                    size = 0
        if not sizes:
            raise no_text(self.files)
        return sizes, characters

    def _fingerprint(self, sizes: array[int], characters: int, more: Sequence[str] = ()) -> str:
        digest, number, begun = Fingerprint(), 0, False
        with progress_bar(total=characters, desc="fingerprint", unit_scale=True, delay=1) as bar:
            for piece in self._reading.all_pieces():
                if not begun:
                    digest.begin(sizes[number])
                digest.add(piece.text.encode())
                bar.update(len(piece.text))
                number, begun = number + piece.ends, not piece.ends
        for document in more:
            digest.begin(len(document.encode()))
            digest.add(document.encode())
        return digest.hexdigest()


def _folder() -> Path:
    return cache_dir() / "corpora"


def _key(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


def _fingerprint(tokenizer: Tokenizer) -> str:
    return tokenizer.fingerprint
