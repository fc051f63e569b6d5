"""A file's lines as text or as JSON, and the one message about everything that is wrong in them."""

from __future__ import annotations

import codecs
import json
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from groundup.data.encodings import SAMPLE, conversion, marked_encoding, refuse_unmarked
from groundup.data.packed import opened
from groundup.errors import UserError, first_ten
from groundup.parsing import from_json


class Problems:
    """What is wrong with a file's rows, gathered so that one message names all of them.

    Args:
        source: the file.
        at_once: raise at the first problem instead.
        by_row: tell of each row what is wrong with it (``line 3: the output is empty``), not of
            each problem which rows have it (``an empty text in lines 3, 7``).

    ``rows`` has the numbers of all rows with a problem.
    """

    def __init__(self, source: str, *, at_once: bool = False, by_row: bool = False) -> None:
        self.source, self.at_once, self.by_row = source, at_once, by_row
        self.unit: tuple[str, str] = ("line", "lines")
        self.rows: set[int] = set()
        self._noted: list[tuple[int, str, str]] = []
        self._undecoded = b""  # some of the lines that are not UTF-8

    def add(self, row: int, problem: str, detail: str = "") -> None:
        """Note a row's problem; the detail is what differs between rows that have it."""
        self.rows.add(row)
        self._noted.append((row, problem, f" ({detail})" if detail else ""))
        if self.at_once:
            self.raise_if_any()

    def add_undecoded(self, row: int, line: bytes, error: UnicodeDecodeError) -> None:
        """Note a line that is not UTF-8."""
        if len(self._undecoded) < SAMPLE:
            self._undecoded += line
        self.add(row, "not UTF-8", f"byte 0x{error.object[error.start]:02x}")

    def raise_if_any(self) -> None:
        """Raise everything noted as one ``UserError``."""
        if not self._noted:
            return
        if self.by_row:
            told = [f"{self.unit[0]} {row}: {what}{detail}" for row, what, detail in self._noted]
            text = first_ten(told, "; ")
        else:
            rows: dict[str, list[str]] = {}
            for row, what, detail in self._noted:
                rows.setdefault(what, []).append(f"{row}{detail}")
            text = "; ".join(
                f"{what} in {self.unit[len(which) > 1]} {first_ten(which)}"
                for what, which in rows.items()
            )
        advice = f"; {conversion(self._undecoded, self.source)}" if self._undecoded else ""
        raise UserError(f"{self.source}: {text}; mend or remove what is named{advice}")


def file_lines(problems: Problems) -> Generator[str, None, None]:
    """The lines of ``problems.source``, unpacked if it is packed; to close it closes the file.

    Raises:
        UserError: the file is missing, a directory, an archive, or cannot be read.
    """
    source = problems.source
    if Path(source).is_dir():
        raise UserError(f"{source} is a directory; name one file")
    with opened(source) as file:
        if file.peek(4).startswith(b"PK\x03\x04"):
            raise UserError(
                f"{source} is a zip archive or a workbook; unpack it, or save it as CSV"
            )
        yield from text_lines(file, problems)


def text_lines(file: Iterable[bytes], problems: Problems) -> Iterator[str]:
    """Lines of bytes as text, each as soon as it is there; one that is not UTF-8 is noted.

    A byte order mark says what else they are, if it is at their beginning.

    Raises:
        UserError: they are not what their mark says, or UTF-16 without one.
    """
    lines = iter(file)
    first = next(lines, b"")
    encoding = marked_encoding(first)
    if encoding not in (None, "utf-8-sig"):
        try:
            yield from _lines_of(chain([first], lines), encoding)
        except UnicodeError as error:
            raise UserError(
                f"{problems.source} is not {encoding.upper()}, as its beginning says: {error}"
            ) from error
        return
    refuse_unmarked(first, problems.source)
    for number, data in enumerate(chain([first] if first else [], lines), 1):
        try:
            line = data.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            problems.add_undecoded(number, data, error)
            line = data.decode("utf-8", "replace")
        yield line


def _lines_of(chunks: Iterable[bytes], encoding: str) -> Iterator[str]:
    """Lines of bytes that were cut anywhere."""
    decoder = codecs.getincrementaldecoder(encoding)()
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from (line + "\n" for line in lines)
    if rest := rest + decoder.decode(b"", final=True):
        yield rest


def json_lines(lines: Iterable[str]) -> Iterator[tuple[int, Any, str, str]]:
    """The number and the value of each line that is not blank.

    Of a line that is not JSON, the value is ``None``; then come why, and in which column if that is
    known.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        value, problem, place = None, "", ""
        try:
            value = from_json(line)
        except json.JSONDecodeError as error:
            problem, place = error.msg, f"column {error.colno}"
        except ValueError as error:
            problem = str(error)
        yield number, value, problem, place
