"""What is read for a corpus, in jobs to encode: the same ones from any place on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from groundup.data.finding import STDIN
from groundup.data.packed import BUFFER, Opened, opened
from groundup.data.shards import Job, Place
from groundup.data.stream import FIELD, Piece, pieces_of, text_pieces
from groundup.errors import UserError

JOB = 2**20
"""Characters that are encoded at once, about."""


@dataclass(frozen=True)
class Reading:
    """How documents are read from files.

    Attributes:
        files: each once, as :func:`find_files` has found them.
        separator: between the documents of a text.
        field: of JSONL and Parquet, what of a row is the document; None takes any file for a text.
        train_ratio: the first so many of all characters train, if that is decided here.
    """

    files: Sequence[str]
    separator: str | None = None
    field: str | None = FIELD
    train_ratio: float | None = None

    def __post_init__(self) -> None:
        ratio = self.train_ratio
        if ratio is not None and not 0.0 < ratio <= 1.0:
            raise UserError(f"train_ratio is {ratio}; expected more than 0 and at most 1")

    def pieces(self, file: Opened) -> Iterator[Piece]:
        """A file's documents."""
        if self.field is None:
            return text_pieces(file, self.separator)
        return pieces_of(file, self.separator, self.field)

    def all_pieces(self) -> Iterator[Piece]:
        """The documents of all files."""
        for name in self.files:
            with opened(name) as file:
                yield from self.pieces(file)

    def training_texts(self, room: int | None) -> Iterator[str]:
        """The texts of the first so many characters, in pieces; all of them without a number."""
        for piece in self.all_pieces():
            text = piece.text if room is None else piece.text[:room]
            room = None if room is None else room - len(text)
            if text:
                yield text
            if room == 0:
                return

    def room(self) -> int | None:
        """How many characters train, if that is decided here; reads everything once."""
        if self.train_ratio is None:
            return None
        return int(self.train_ratio * sum(len(piece.text) for piece in self.all_pieces()))

    def identity(self) -> dict[str, Any]:
        """What must be the same for the work to be the same; of files, what tells them changed."""
        files = []
        for name in self.files:
            known = None if name in ("-", STDIN) else os.stat(name)
            files.append([str(name), *((known.st_size, known.st_mtime_ns) if known else ())])
        return {
            "files": files,
            "separator": self.separator,
            "field": self.field,
            "train_ratio": self.train_ratio,
        }


def jobs_of(reading: Reading, room: int | None, marks: bool, place: Place) -> Iterator[Job]:
    """What is left to do, from a place on.

    Args:
        reading: the files.
        room: how many characters train, if that is decided.
        marks: whether there is an end-of-text to put between documents.
        place: where to begin.
    """
    at, job, size = copy(place), Job(), 0
    for number in range(place.file, len(reading.files)):
        name, skip = reading.files[number], place.piece if number == place.file else 0
        at.file, at.piece, read = number, skip, 0
        with opened(name, hashed=True) as file:
            for count, piece in enumerate(reading.pieces(file)):
                if count < skip:
                    continue
                _add(job, piece, at, room, marks)
                at.piece = count + 1
                size += len(piece.text)
                if size >= JOB:
                    job.after, job.read = copy(at), file.raw_file.count - read
                    yield job
                    job, size, read = Job(), 0, file.raw_file.count
            while file.raw_file.read(BUFFER):  # what an archive may have behind it
                pass
            raw = file.raw_file
            digest = raw.digest.hexdigest() if raw.digest else None
            job.sources.append({"path": name, "bytes": raw.count, "sha256": digest})
            job.read += raw.count - read
        at.file, at.piece = number + 1, 0
    job.after = copy(at)
    yield job


def _add(job: Job, piece: Piece, at: Place, room: int | None, marks: bool) -> None:
    """Put a piece into a job, in two where the split is in the middle of it."""
    left = None if room is None or at.validates else room - at.characters
    at.characters += len(piece.text)
    if left is None or len(piece.text) < left:
        _append(job, piece, at, marks)
        return
    head, tail = piece.text[:left], piece.text[left:]
    if head:
        _append(job, Piece(head, True, piece.place), at, marks)
    at.validates, at.is_open, at.is_fresh = True, False, True
    if tail:
        _append(job, piece._replace(text=tail), at, marks)


def _append(job: Job, piece: Piece, at: Place, marks: bool) -> None:
    if at.validates and at.is_fresh:
        job.split = len(job.pieces)
    begins = not at.is_open
    job.pieces.append(piece)
    job.begins.append(begins)
    job.marked.append(begins and marks and not at.is_fresh)
    at.is_open, at.is_fresh = not piece.ends, False
