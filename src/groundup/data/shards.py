"""Writes a corpus, so that after the end of the process at any moment the same command goes on.

What is on the disk for certain is noted in a journal, every few seconds; what came after is cut
off when the work goes on. With ``corpus.json``, which comes last and at once, it is a corpus.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from groundup.data.corpus import DOCUMENTS, INDEX, SHARD, SOURCES, Index
from groundup.data.encoding import Ids
from groundup.data.stream import Piece
from groundup.errors import UserError, write_error
from groundup.files import KEPT, JsonLines, atomic_file

JOURNAL = ".preparing.jsonl"

COMMIT = 5.0
"""Seconds from one entry of the journal to the next: as much work can be lost."""


@dataclass
class Place:
    """How far the work is.

    Attributes:
        file: which source is next, or being read.
        piece: which of its pieces is next.
        characters: of all pieces so far.
        is_open: whether the last document goes on.
        is_fresh: whether no document has begun yet, since the beginning or the split.
        validates: whether the pieces are beyond the split.
    """

    file: int = 0
    piece: int = 0
    characters: int = 0
    is_open: bool = False
    is_fresh: bool = True
    validates: bool = False


@dataclass
class Job:
    """Pieces that are encoded together, and what becomes of them.

    Attributes:
        pieces: the texts.
        begins: for each, whether a document begins with it.
        marked: for each, whether end-of-text comes before it.
        split: the first piece that validates, if it is one of these.
        after: how far the work is with them.
        sources: those that end here: path, length, SHA-256.
        read: bytes of the sources that were read for it.
    """

    pieces: list[Piece] = field(default_factory=list)
    begins: list[bool] = field(default_factory=list)
    marked: list[bool] = field(default_factory=list)
    split: int | None = None
    after: Place = field(default_factory=Place)
    sources: list[dict[str, Any]] = field(default_factory=list)
    read: int = 0


class ShardWriter:
    """Appends to a corpus that is being made.

    Args:
        out: its directory.
        width: bytes of an id.
        shard_tokens: ids of a shard.
        end_of_text: the id between documents.
        rows: of the journal, if the work goes on.
    """

    def __init__(
        self,
        out: Path,
        width: int,
        shard_tokens: int,
        end_of_text: int | None,
        rows: list[dict[str, Any]],
    ) -> None:
        self.out, self.width, self.shard_tokens = out, width, shard_tokens
        self.end_of_text = end_of_text
        self.journal = JsonLines(out / JOURNAL, row="entry", durable=True)
        self.journal.mend()
        last = rows[-1] if rows else {}
        self.place = Place(**last.get("place", {}))
        self.tokens, self.documents = last.get("tokens", 0), last.get("documents", 0)
        self.split: int | None = last.get("split")
        self.shards = [digest for row in rows for digest in row["shards"]]
        self.sources = [source for row in rows for source in row["sources"]]
        self._noted = len(self.shards), len(self.sources)
        self._committed = time.monotonic()
        self._cut_off()
        self._file, self._digest = self._reopened()
        self._starts = (out / DOCUMENTS).open("ab")

    def put(self, job: Job, encoded: Ids) -> None:
        """Append a job's ids.

        Raises:
            UserError: the disk is full, or cannot be written to.
        """
        ids, lengths = encoded
        begins, marked = np.array(job.begins, dtype=bool), np.array(job.marked, dtype=bool)
        offsets = np.cumsum(lengths) - lengths
        places = self.tokens + offsets + np.cumsum(marked) - marked  # each piece's first token
        if job.split is not None:
            self.split = int(places[job.split])
        if self.end_of_text is not None and marked.any():
            ids = np.insert(ids, offsets[marked], self.end_of_text)
        try:
            self._write(ids.astype(f"<u{self.width}"))
            self._starts.write(places[begins].astype("<u8").tobytes())
            self.documents += int(begins.sum())
            self.place = job.after
            self.sources += job.sources
            if time.monotonic() > self._committed + COMMIT:
                self.commit()
        except OSError as error:
            raise write_error(self.out, error, KEPT) from error

    def commit(self) -> None:
        """Note in the journal what is on the disk."""
        for file in (self._file, self._starts):
            file.flush()
            os.fsync(file.fileno())
        shards, sources = self._noted
        self.journal.append(
            {
                "place": asdict(self.place),
                "tokens": self.tokens,
                "documents": self.documents,
                "split": self.split,
                "shards": self.shards[shards:],
                "sources": self.sources[sources:],
            }
        )
        self._noted = len(self.shards), len(self.sources)
        self._committed = time.monotonic()

    def finish(self, make_index: Callable[..., Index]) -> None:
        """Make it a corpus: all at once.

        Args:
            make_index: makes what ``corpus.json`` says of what is known here.
        """
        self.commit()
        self.close()
        shards = list(self.shards)
        if self.tokens % self.shard_tokens:
            shards.append(self._digest.hexdigest())
        else:  # the next shard has been opened, and nothing came
            self._shard(len(shards)).unlink()
        JsonLines(self.out / SOURCES, row="source").rewrite(self.sources)
        index = make_index(
            tokens=self.tokens,
            documents=self.documents,
            split=self.split,
            dtype=f"uint{8 * self.width}",
            shard_tokens=self.shard_tokens,
            shards=shards,
            documents_sha256=_sha256(self.out / DOCUMENTS),
            sources_sha256=_sha256(self.out / SOURCES),
            end_of_text=self.end_of_text,
            characters=self.place.characters,
        )
        with atomic_file(self.out / INDEX) as temporary:
            index.write(temporary)
        self.journal.path.unlink()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._starts.close()

    def _write(self, ids: np.ndarray) -> None:
        while len(ids):
            room = self.shard_tokens - self.tokens % self.shard_tokens
            data = ids[:room].tobytes()
            self._file.write(data)
            self._digest.update(data)
            self.tokens += len(ids[:room])
            ids = ids[room:]
            if self.tokens % self.shard_tokens == 0:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self.shards.append(self._digest.hexdigest())
                self._file, self._digest = (
                    self._shard(len(self.shards)).open("wb"),
                    hashlib.sha256(),
                )

    def _cut_off(self) -> None:
        """Take away what the journal does not know of.

        Raises:
            UserError: what it knows of is not there.
        """
        number, offset = divmod(self.tokens, self.shard_tokens)
        for path in self.out.glob(SHARD.replace("{:05}", "*")):
            if path.stem.removeprefix("shard-") > f"{number:05}":
                path.unlink()
        expected = [(self._shard(n), self.shard_tokens * self.width) for n in range(number)]
        expected.append((self._shard(number), offset * self.width))
        expected.append((self.out / DOCUMENTS, 8 * self.documents))
        for path, size in expected:
            path.touch()
            if path.stat().st_size < size:
                raise UserError(
                    f"{path} is shorter than it was, so this cannot be gone on with; begin anew "
                    "with --overwrite"
                )
            os.truncate(path, size)

    def _reopened(self) -> tuple[BinaryIO, Any]:
        """The shard that is being written, and the SHA-256 of what is in it."""
        path = self._shard(len(self.shards))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        return path.open("ab"), digest

    def _shard(self, number: int) -> Path:
        return self.out / SHARD.format(number)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
