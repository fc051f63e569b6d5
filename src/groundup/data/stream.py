"""Documents as a stream of pieces, so that a corpus of any size passes through little memory.

A text is cut where no token can span (`tokenizers/parts.py`), so the ids of a document's pieces,
joined, are the document's own. Texts may be packed; JSONL and Parquet hold a document per row.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from groundup.data.encodings import decode
from groundup.data.finding import unpacked_name
from groundup.data.lines import Problems, json_lines, text_lines
from groundup.data.packed import BUFFER, Opened, opened, shown
from groundup.errors import UserError, first_ten
from groundup.tokenizers.parts import CUT

FIELD = "text"
"""What of a row is the document, unless told otherwise."""

PIECE = 2**18
"""Characters of a piece of a longer document, about."""

_ROWS = 256
"""Rows of Parquet that are held at once."""


class Piece(NamedTuple):
    """A document, or a part of a long one."""

    text: str
    ends: bool  # whether its document ends with it
    place: str  # of what file it is, for messages


def file_pieces(source: str, separator: str | None = None) -> Iterator[Piece]:
    """The documents of a text, piece by piece; those of white space alone are left out.

    Args:
        source: a file, ``.gz`` and ``.zst`` too, or ``-`` for stdin.
        separator: stands between documents; without one the file is one document.

    Raises:
        UserError: it is missing, empty, not UTF-8, or cannot be unpacked.
    """
    with opened(source) as file:
        yield from text_pieces(file, separator)


def whole_documents(pieces: Iterable[Piece]) -> Iterator[str]:
    """Documents that fit into memory, each in one."""
    begun: list[str] = []
    for piece in pieces:
        begun.append(piece.text)
        if piece.ends:
            yield "".join(begun)
            begun = []


def pieces_of(file: Opened, separator: str | None, field: str) -> Iterator[Piece]:
    """The documents of a file of any kind that a corpus can be made of, told by its name.

    Args:
        file: the file. Parquet is opened once more, by its library.
        separator: between the documents of a text.
        field: what of each row of JSONL or Parquet is the document.

    Raises:
        UserError: the file cannot be read, or a row has no such field, or no text in it.
    """
    name = unpacked_name(file.source)
    if name.endswith(".parquet"):
        return _parquet_pieces(file, field)
    if name.endswith((".jsonl", ".ndjson")):
        return _json_pieces(file, field)
    return text_pieces(file, separator)


def text_pieces(file: Opened, separator: str | None = None) -> Iterator[Piece]:
    """The documents of a text; line ends become line feeds and a byte order mark is dropped."""
    name = file.source
    if not file.peek(1):
        raise UserError(f"{name} is empty; give a text to learn from")
    held = len(separator or " ")  # behind it, a separator may have begun
    rest, begun = "", False
    for text in _texts(file):
        rest += text
        *whole, rest = rest.split(separator) if separator else [rest]
        for document in whole:
            if begun or has_text(document):
                yield Piece(document, True, name)
            begun = False
        place = 0
        while found := CUT.search(rest, place + PIECE, max(0, len(rest) - held)):
            yield Piece(rest[place : found.start()], False, name)
            place, begun = found.start(), True
        rest = rest[place:]
    if begun or has_text(rest):
        yield Piece(rest, True, name)


def has_text(document: str) -> bool:
    """Whether there is more than white space."""
    return bool(document) and not document.isspace()


def _texts(file: Opened) -> Iterator[str]:
    """A file's text, a chunk at a time, with line feeds as line ends."""
    line_ends = io.IncrementalNewlineDecoder(None, translate=True)
    for chunk in decode(iter(partial(file.read, BUFFER), b""), file.source):
        yield line_ends.decode(chunk)
    yield line_ends.decode("", final=True)


def _json_pieces(file: Opened, field: str) -> Iterator[Piece]:
    """The documents of JSONL, one a line; null and white space are none."""
    problems = Problems(file.source, at_once=True)
    for number, row, problem, place in json_lines(text_lines(file, problems)):
        if problem:
            problems.add(number, f"not JSON: {problem}", place)
        elif not isinstance(row, dict):
            problems.add(number, "no object of JSON")
        elif field not in row:
            problems.add(number, f"no field {field!r}", f"there are {_names(row)}; see --field")
        elif row[field] is not None and not isinstance(row[field], str):
            problems.add(number, f"the field {field!r} is no text", type(row[field]).__name__)
        elif row[field] and has_text(row[field]):
            try:
                row[field].encode()
            except UnicodeEncodeError:
                problems.add(number, "half a character (a lone surrogate), which UTF-8 lacks")
            yield Piece(_line_feeds(row[field]), True, f"{file.source}, line {number}")


def _parquet_pieces(file: Opened, field: str) -> Iterator[Piece]:
    """The documents of Parquet, one a row; null and white space are none."""
    name = file.source
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{name} is Parquet, which needs another package: pip install 'groundup[corpora]'"
        ) from None
    while file.read(BUFFER):  # for its SHA-256
        pass
    try:
        table = parquet.ParquetFile(name)
        schema = table.schema_arrow
        if field not in schema.names:
            raise UserError(
                f"{name} has no column {field!r}; it has {_names(schema.names)}: name one of them "
                "with --field"
            )
        kind = schema.field(field).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not pa.types.is_string(kind) and not pa.types.is_large_string(kind):
            raise UserError(f"{name}: the column {field!r} holds {kind}; expected text (string)")
        batches = table.iter_batches(_ROWS, columns=[field])
        texts = (text for batch in batches for text in batch.column(0).to_pylist())
        for number, text in enumerate(texts, 1):
            if text and has_text(text):
                yield Piece(_line_feeds(text), True, f"{name}, row {number}")
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{shown(name)} is not valid Parquet: {str(error).splitlines()[0]}"
        ) from error


def _line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _names(names: Iterable[Any]) -> str:
    return first_ten([repr(name) for name in names]) or "none"
