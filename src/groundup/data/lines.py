"""A file's lines as text, gzipped or not, and the report of everything that is wrong in them."""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from groundup.errors import UserError

LISTED = 10
"""So many rows are named per kind of problem."""

NOT_UTF8 = "not UTF-8 (convert the file, for example with `iconv -f latin1 -t utf-8`)"


class Problems:
    """What is wrong with a file's rows, gathered so that one message names all of them.

    Args:
        source: the file.
        at_once: raise at the first problem instead.
    """

    def __init__(self, source: str, *, at_once: bool = False) -> None:
        self.source, self.at_once = source, at_once
        self.unit: tuple[str, str] = ("line", "lines")
        self._rows: dict[str, list[str]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, row: int, problem: str, detail: str = "") -> None:
        """Note a row's problem; the detail is what differs between rows that have it."""
        rows = self._rows.setdefault(problem, [])
        self._counts[problem] += 1
        if len(rows) < LISTED:
            rows.append(f"{row} ({detail})" if detail else str(row))
        if self.at_once:
            self.raise_if_any()

    def raise_if_any(self) -> None:
        """Raise everything noted as one ``UserError``."""
        parts = []
        for problem, rows in self._rows.items():
            count = self._counts[problem]
            more = f" and {count - len(rows)} more" if count > len(rows) else ""
            parts.append(f"{problem} in {self.unit[count > 1]} {', '.join(rows)}{more}")
        if parts:
            raise UserError(f"{self.source}: {'; '.join(parts)}; mend or remove what is named")


def open_binary(source: str, stack: ExitStack) -> io.BufferedIOBase:
    """Open a file, unpacking it if it is gzip; the stack closes it.

    Raises:
        UserError: it is missing, a directory, an archive, or cannot be read.
    """
    if Path(source).is_dir():
        raise UserError(f"{source} is a directory; name one file")
    try:
        file = stack.enter_context(open(source, "rb"))
    except FileNotFoundError:
        raise UserError(f"there is no file {source!r}") from None
    except OSError as error:
        raise UserError(f"cannot read {source}: {error.strerror}") from error
    start = file.peek(4)
    if start.startswith(b"PK\x03\x04"):
        raise UserError(f"{source} is a zip archive or a workbook; unpack it, or save it as CSV")
    if start.startswith(b"\x1f\x8b"):
        return stack.enter_context(gzip.GzipFile(fileobj=file))
    return file


class Lines:
    """A file's lines as text. The numbers of those that are not UTF-8 are kept in ``broken``."""

    def __init__(self, file: io.BufferedIOBase | BinaryIO, problems: Problems) -> None:
        self._file, self._problems = file, problems
        self._number = 0
        self.broken: set[int] = set()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            data = self._file.readline()
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{self._problems.source} is not valid gzip: {error}") from error
        except OSError as error:
            raise UserError(f"cannot read {self._problems.source}: {error.strerror}") from error
        if not data:
            raise StopIteration
        self._number += 1
        encoding = "utf-8-sig" if self._number == 1 else "utf-8"
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            self.broken.add(self._number)
            self._problems.add(self._number, NOT_UTF8, f"byte 0x{error.object[error.start]:02x}")
            return data.decode(encoding, "replace")
