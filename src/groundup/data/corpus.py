"""A corpus: a directory of token ids in shards, opened in no time and read in no memory.

    corpus.json        what it is: tokens, documents, the SHA-256 of everything, its tokenizer's
    shard-00000.bin …  ids, 2 or 4 bytes each, little-endian, all of the same length but the last
    documents.bin      where each document begins, 8 bytes each
    sources.jsonl      the files it was made of, with their SHA-256
    tokenizer.json …   its tokenizer

Between two documents is the tokenizer's end-of-text, with which the second one begins. What
validates, if that was decided when the corpus was made, comes last and begins without one.

Windows are read (`pread`), not mapped: the pages of a mapped file count as the process's memory
once they are touched, so a run would seem to need as much as its corpus is long.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from groundup.errors import UserError, read_error
from groundup.files import read_json, write_json
from groundup.options import fits, option_fields
from groundup.tokenizers import Tokenizer, load_tokenizer

INDEX, DOCUMENTS, SOURCES, SHARD = (
    "corpus.json",
    "documents.bin",
    "sources.jsonl",
    "shard-{:05}.bin",
)
VERSION = 1

AT_ONCE = 2**29
"""Bytes whose SHA-256 are compared before anything else; it takes a second or two. What is more is
compared while the run goes on."""


@dataclass(frozen=True)
class Index:
    """What ``corpus.json`` says.

    Attributes:
        tokens: how many, end-of-text among them.
        documents: how many.
        split: the first so many tokens train, if that was decided when the corpus was made.
        dtype: of an id.
        shard_tokens: ids of each shard, but the last.
        shards: the SHA-256 of each.
        documents_sha256: of ``documents.bin``.
        sources_sha256: of ``sources.jsonl``.
        end_of_text: the id between documents; None if the tokenizer has none.
        tokenizer: its name.
        tokenizer_sha256: its fingerprint.
        characters: of all documents.
        made_of: how the sources were read: separator, field, share that trains.
        text_sha256: the fingerprint of the documents, as that of a text in memory, where it is one.
    """

    tokens: int
    documents: int
    split: int | None
    dtype: str
    shard_tokens: int
    shards: list[str]
    documents_sha256: str
    sources_sha256: str
    end_of_text: int | None
    tokenizer: str
    tokenizer_sha256: str
    characters: int
    made_of: dict[str, Any] = field(default_factory=dict)
    text_sha256: str | None = None

    @property
    def sha256(self) -> str:
        """The fingerprint of all ids, of where documents begin, and of the tokenizer."""
        said = [self.tokenizer_sha256, self.documents_sha256, str(self.split), *self.shards]
        return hashlib.sha256("\n".join(said).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write it."""
        write_json(path, {"version": VERSION} | asdict(self))

    @classmethod
    def read(cls, path: Path) -> Index:
        """Read it.

        Raises:
            UserError: it is damaged, or of a newer version.
        """
        values = read_json(path)
        version = values.pop("version", None)
        if isinstance(version, int) and version > VERSION:
            raise UserError(
                f"{path} is of version {version}; this groundup reads up to version {VERSION}: "
                "update groundup"
            )
        hints = {name: hint for name, (_, hint) in option_fields(cls).items()}
        wrong = [f.name for f in fields(cls) if not fits(values.get(f.name), hints[f.name])]
        wrong += ["version"] if version != VERSION else []
        if not wrong and (
            values["dtype"] not in ("uint16", "uint32") or values["shard_tokens"] < 1
        ):
            wrong = ["dtype", "shard_tokens"]
        if wrong:
            raise UserError(f"{path} is damaged: see its {', '.join(wrong)}")
        return cls(**{f.name: values[f.name] for f in fields(cls)})


def is_corpus(path: str | Path) -> bool:
    """Whether a prepared corpus is there."""
    return (Path(path) / INDEX).is_file()


class Corpus:
    """A prepared corpus.

    Args:
        directory: where it is.

    Raises:
        UserError: it is none, or a file of it is missing or of another length than it was.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        if not is_corpus(self.directory):
            raise UserError(
                f"there is no prepared corpus in {directory} (no {INDEX}); make one with "
                "`groundup data prepare FILES --out DIRECTORY`"
            )
        self.index = Index.read(self.directory / INDEX)
        self._width = np.dtype(self.index.dtype).itemsize
        self._problem: UserError | None = None
        self._open: dict[int, int] = {}  # shards' numbers and their file descriptors
        for path, size, _ in self._files():
            found = path.stat().st_size if path.exists() else None
            if found != size:
                what = "is missing" if found is None else f"has {found:,} bytes instead of {size:,}"
                raise UserError(
                    f"{path} {what}, so the corpus is damaged; copy it again, or prepare it again"
                )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer.

        Raises:
            UserError: it is not the one that the corpus was made with.
        """
        tokenizer = load_tokenizer(self.directory)
        self.expect_tokenizer(tokenizer, f"the tokenizer.json in {self.directory}")
        return tokenizer

    def expect_tokenizer(self, tokenizer: Tokenizer, whose: str) -> None:
        """Refuse another tokenizer than the one the corpus was made with.

        Raises:
            UserError: it is another one; both fingerprints are named.
        """
        ours, other = self.index.tokenizer_sha256, tokenizer.fingerprint
        if ours != other:
            raise UserError(
                f"{self.directory} was made with another tokenizer: its fingerprint is "
                f"{ours[:16]}, that of {whose} is {other[:16]}; prepare the corpus with "
                "--tokenizer and the model's directory, or take a model of the corpus's tokenizer"
            )

    def verify(self) -> None:
        """Compare everything with the SHA-256 it was made with.

        Raises:
            UserError: a file differs; it is named.
        """
        for path, _, digest in self._files():
            try:
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise read_error(path, error) from error
            if found != digest:
                raise UserError(
                    f"{path} is not as it was made: its SHA-256 is another one, so it is damaged "
                    "or has been changed; copy it again, prepare it again, or take it as it is "
                    "with --no-verify"
                )

    def watch(self) -> None:
        """Verify it, a large one in the background: the next read raises what was found.

        Raises:
            UserError: a file differs.
        """
        if self.bytes <= AT_ONCE:
            self.verify()
            return

        def work() -> None:
            try:
                self.verify()
            except UserError as error:
                self._problem = error

        threading.Thread(target=work, name="verify-corpus", daemon=True).start()

    @property
    def bytes(self) -> int:
        """Of all ids."""
        return self.index.tokens * self._width

    def read(self, begin: int, end: int) -> np.ndarray:
        """The ids from a place to another, ``(N,)``, whatever shards they are in.

        Raises:
            UserError: the corpus was found to be damaged meanwhile.
        """
        if self._problem is not None:
            raise self._problem
        size, parts = self.index.shard_tokens, []
        while begin < end:
            number, offset = divmod(begin, size)
            count = min(end - begin, size - offset)
            parts.append(self._read(number, offset, count))
            begin += count
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @cached_property
    def starts(self) -> np.ndarray:
        """Where documents begin ``(D,)``; in the file, not in memory."""
        if not self.index.documents:
            return np.empty(0, "<u8")
        return np.memmap(self.directory / DOCUMENTS, dtype="<u8", mode="r")

    def split(self, ratio: float) -> int:
        """How many tokens train: as decided when it was made, else this share of all."""
        return int(ratio * self.index.tokens) if self.index.split is None else self.index.split

    def _read(self, number: int, offset: int, count: int) -> np.ndarray:
        if number not in self._open:
            self._open[number] = os.open(self._shard(number), os.O_RDONLY | _BINARY)
        width, file = self._width, self._open[number]
        if hasattr(os, "pread"):
            data = os.pread(file, count * width, offset * width)
        else:  # Windows
            os.lseek(file, offset * width, os.SEEK_SET)
            data = os.read(file, count * width)
        if len(data) != count * width:
            raise UserError(
                f"{self._shard(number)} has become shorter while it was read; copy or prepare the "
                "corpus again"
            )
        return np.frombuffer(data, dtype=f"<u{width}")

    def _shard(self, number: int) -> Path:
        return self.directory / SHARD.format(number)

    def _files(self) -> list[tuple[Path, int, str]]:
        """The files that decide what is learned: with their length and SHA-256."""
        index, found, rest = self.index, [], self.index.tokens
        for number, digest in enumerate(index.shards):
            count = min(rest, index.shard_tokens)
            found.append((self._shard(number), count * self._width, digest))
            rest -= count
        return [*found, (self.directory / DOCUMENTS, 8 * index.documents, index.documents_sha256)]

    def __del__(self) -> None:
        for file in getattr(self, "_open", {}).values():
            os.close(file)


_BINARY = getattr(os, "O_BINARY", 0)
