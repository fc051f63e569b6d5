"""A file's lines as text or as JSON, and the one message about everything that is wrong in them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from groundup.errors import UserError, first_ten
from groundup.parsing import from_json

NOT_UTF8 = "not UTF-8 (convert the file, for example with `iconv -f latin1 -t utf-8`)"


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

    def add(self, row: int, problem: str, detail: str = "") -> None:
        """Note a row's problem; the detail is what differs between rows that have it."""
        self.rows.add(row)
        self._noted.append((row, problem, f" ({detail})" if detail else ""))
        if self.at_once:
            self.raise_if_any()

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
        raise UserError(f"{self.source}: {text}; mend or remove what is named")


def file_lines(problems: Problems) -> Generator[str, None, None]:
    """The lines of ``problems.source``, unpacked if it is gzip; to close it closes the file.

    Raises:
        UserError: the file is missing, a directory, an archive, or cannot be read.
    """
    source = problems.source
    if Path(source).is_dir():
        raise UserError(f"{source} is a directory; name one file")
    try:
        with open(source, "rb") as file:
            start = file.peek(4)
            if start.startswith(b"PK\x03\x04"):
                raise UserError(
                    f"{source} is a zip archive or a workbook; unpack it, or save it as CSV"
                )
            packed = start.startswith(b"\x1f\x8b")
            yield from text_lines(gzip.GzipFile(fileobj=file) if packed else file, problems)
    except FileNotFoundError:
        raise UserError(f"there is no file {source!r}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{source} is not valid gzip: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {source}: {error.strerror}") from error


def text_lines(file: Iterable[bytes], problems: Problems) -> Iterator[str]:
    """Lines of bytes as text, each as soon as it is there; one that is not UTF-8 is noted."""
    for number, data in enumerate(file, 1):
        encoding = "utf-8-sig" if number == 1 else "utf-8"
        try:
            line = data.decode(encoding)
        except UnicodeDecodeError as error:
            problems.add(number, NOT_UTF8, f"byte 0x{error.object[error.start]:02x}")
            line = data.decode(encoding, "replace")
        yield line


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
