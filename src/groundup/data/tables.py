"""Rows of CSV, TSV and JSON files, one at a time, with the line numbers that messages need.

Python's own ``csv`` reads them, not pandas: it says in which line a row is wrong.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from groundup.data.columns import has_header
from groundup.data.lines import Lines, Problems, open_binary
from groundup.errors import UserError

SNIFFED_LINES = 100
"""From so many lines the separator is guessed."""

SAMPLE_ROWS = 1000
"""From so many rows it is guessed which columns there are; this much is in memory at once."""

LONGEST_CELL = 100_000_000
"""Characters; Python's own limit is 131,072, which a document can have.

There is a limit so that after a quote that is not closed not all the rest is held in memory.
"""

SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
"""By the names that ``separator=`` takes, besides the character itself."""

SUFFIXES = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")

Row = tuple[int, dict[str, Any]]
"""A row's number in its file (a line, or an entry of a JSON list) and its values by column."""


@dataclass(frozen=True)
class Table:
    """An open file of rows.

    Args:
        source: the file.
        columns: their names, as the header or the first JSON entries have them; without a header
            they are called by their numbers, from "1".
        kind: a ``table`` with a separator, ``jsonl``, or ``json``, which is a list of objects.
        separator: of a table, between two fields of a row.
        sample: the first rows, from which columns can be guessed.
        rows: all rows; they can be run through once.
    """

    source: str
    columns: list[str]
    kind: Literal["table", "jsonl", "json"]
    separator: str
    sample: list[Row]
    rows: Iterator[Row]


@contextmanager
def open_table(
    path: str | Path,
    separator: str | None,
    named: Sequence[str],
    problems: Problems,
    *,
    min_columns: int,
) -> Iterator[Table]:
    r"""Open a CSV, TSV, JSONL or JSON file, which may be gzipped.

    What it is follows from its suffix; without one that says it, from its first lines. CSV has the
    usual quoting. With tabs between the fields, quotes are text like any other, as in the SMS Spam
    Collection. Only a ``.json`` list is read whole; everything else row by row.

    Args:
        path: the file.
        separator: the character between two fields, or a name in ``SEPARATORS``.
        named: columns that the user named, which tell a header from a row.
        problems: where rows that cannot be read are noted; they are left out.
        min_columns: fewer show that the separator is another one.

    Raises:
        UserError: the file is missing, a directory, empty, or has another separator.
    """
    source = str(path)
    with ExitStack() as stack:
        lines = Lines(open_binary(source, stack), problems)
        head = list(islice(lines, SNIFFED_LINES))
        if not "".join(head).strip():
            raise UserError(f"{source} is empty; expected rows with a text")
        every_line = chain(head, lines)
        kind = _json_kind(source, head)
        if kind == "table":
            mark = _separator(source, head, separator, min_columns)
            records = _records(every_line, mark, problems, lines.broken)
            yield _open_rows(source, mark, records, named, problems)
            return
        if separator is not None:
            raise UserError(f"{source} is JSON, which has no separator; leave out --separator")
        if kind == "json":
            rows = _json_list(source, every_line, problems)
        else:
            rows = _json_lines(every_line, problems, lines.broken)
        sample = list(islice(rows, SAMPLE_ROWS))
        columns = list(dict.fromkeys(key for _, entry in sample for key in entry))
        if not columns:
            problems.raise_if_any()
            raise UserError(f"{source} has no entries; expected objects with a text")
        yield Table(source, columns, kind, "", sample, chain(sample, rows))


def check_text(number: int, row: dict[str, Any], column: str, problems: Problems) -> None:
    """Note what is wrong with a row's text: no such key, not a string, or nothing in it."""
    text = row.get(column)
    if column not in row:
        problems.add(number, f"no key {column!r}")
    elif text is not None and not isinstance(text, str):
        problems.add(number, f"no string as {column!r}", json.dumps(text)[:20])
    elif not (text or "").strip():
        problems.add(number, "an empty text")


def table_dialect(separator: str) -> dict[str, Any]:
    """What ``csv.reader`` and ``csv.writer`` must know of a table."""
    if separator == "\t":
        return {"delimiter": separator, "quoting": csv.QUOTE_NONE, "quotechar": None}
    return {"delimiter": separator, "quoting": csv.QUOTE_MINIMAL}


def _reader(lines: Iterable[str], separator: str, *, strict: bool = False) -> Any:
    """A ``csv.reader`` that takes long cells too; the limit holds for the whole process."""
    csv.field_size_limit(LONGEST_CELL)
    return csv.reader(lines, strict=strict, **table_dialect(separator))


def _json_kind(source: str, head: list[str]) -> Literal["table", "jsonl", "json"]:
    suffix = Path(source.lower().removesuffix(".gz")).suffix
    start = "".join(head).lstrip()
    if suffix in JSON_SUFFIXES:
        return "json" if start.startswith("[") else "jsonl"
    if suffix not in SUFFIXES and re.match(r"\[\s*\{", start):
        return "json"
    return "jsonl" if suffix not in SUFFIXES and start.startswith('{"') else "table"


def _json_list(source: str, lines: Iterable[str], problems: Problems) -> Iterator[Row]:
    text = "".join(lines)
    problems.raise_if_any()  # a line that is not UTF-8 may belong to any entry
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is not valid JSON: {error}") from error
    problems.unit = ("entry", "entries")
    return _objects(enumerate(entries, 1), problems)


def _json_lines(lines: Iterable[str], problems: Problems, broken: set[int]) -> Iterator[Row]:
    def values() -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(lines, 1):
            if not line.strip() or number in broken:
                continue
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                place = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
                problems.add(number, "not valid JSON", getattr(error, "msg", str(error)) + place)

    return _objects(values(), problems)


def _objects(values: Iterable[tuple[int, Any]], problems: Problems) -> Iterator[Row]:
    for number, value in values:
        if not isinstance(value, dict):
            problems.add(number, "not a JSON object", type(value).__name__)
        elif re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False)):
            problems.add(number, "half a character (a lone surrogate)")
        else:
            yield number, value


def _open_rows(
    source: str,
    separator: str,
    records: Iterator[tuple[int, list[str]]],
    named: Sequence[str],
    problems: Problems,
) -> Table:
    first = list(islice(records, SAMPLE_ROWS))
    if not first:
        problems.raise_if_any()
        raise UserError(f"{source} is empty; expected rows with a text")
    width = len(first[0][1])
    alike = [cells for _, cells in first if len(cells) == width]
    header = alike[0] if has_header(alike[0], alike[1:], named) else None
    if header:
        names = [cell.strip() or str(i) for i, cell in enumerate(header, 1)]
    else:
        width = Counter(len(cells) for _, cells in first).most_common(1)[0][0]
        names = [str(i) for i in range(1, width + 1)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{source} has several columns called {', '.join(map(repr, twice))}")

    def rows(records: Iterable[tuple[int, list[str]]]) -> Iterator[Row]:
        for number, cells in records:
            if len(cells) != width:
                problems.add(number, f"another number of columns than {width}", f"{len(cells)}")
            elif cells == header:
                problems.add(number, "the header once more")
            else:
                yield number, dict(zip(names, cells, strict=True))

    sample = list(rows(first[1:] if header else first))
    if not sample:
        problems.raise_if_any()
        raise UserError(f"{source} has a header but no rows")
    return Table(source, names, "table", separator, sample, chain(sample, rows(records)))


def _records(
    lines: Iterable[str], separator: str, problems: Problems, broken: set[int]
) -> Iterator[tuple[int, list[str]]]:
    """The fields of each row, with the number of the line in which the row begins."""
    reader = _reader(lines, separator, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.add(start, _csv_problem(str(error), separator))
            continue
        if cells and broken.isdisjoint(range(start, reader.line_num + 1)):
            yield start, cells


def _csv_problem(message: str, separator: str) -> str:
    if "new-line" in message:
        return "a carriage return within a row"
    if "limit" in message:
        perhaps_open = "" if separator == "\t" else ", or a quote that is not closed,"
        return f"a cell of more than {LONGEST_CELL:,} characters{perhaps_open}"
    return "a quote that is not closed or not doubled"


def _separator(source: str, head: list[str], given: str | None, min_columns: int) -> str:
    """The separator: as given, by the suffix, or as the first lines suggest.

    Raises:
        UserError: it is no separator, or leaves rows in one piece that another one divides.
    """
    asked = SEPARATORS.get(given or "", "\t" if given == r"\t" else given)
    if asked is not None and (len(asked) != 1 or asked in '"\r\n'):
        raise UserError(
            f"--separator is {given!r}; expected one character or {', '.join(SEPARATORS)}"
        )
    suffix = Path(source.lower().removesuffix(".gz")).suffix
    wanted = asked or SUFFIXES.get(suffix)
    fitting = next((name for name, mark in SEPARATORS.items() if _divides(head, mark)), None)
    if wanted is None:
        return SEPARATORS[fitting or "tab"]
    if fitting and not _divides(head, wanted) and (asked is None or min_columns > 1):
        names = {mark: name for name, mark in SEPARATORS.items()}
        raise UserError(
            f"{source} has no columns with the separator {names.get(wanted, wanted)}; it looks as "
            f"if it were {fitting}: give --separator {fitting}"
        )
    return wanted


def _divides(lines: list[str], separator: str) -> bool:
    """Whether nearly all rows have the same number of fields, at least two.

    A comma with a space behind it is one of prose.
    """
    try:
        rows = [cells for cells in _reader(lines, separator) if cells]
    except csv.Error:
        return False
    width, count = Counter(map(len, rows)).most_common(1)[0] if rows else (0, 0)
    prose = sum(any(cell.startswith(" ") for cell in cells[1:]) for cells in rows)
    if separator != "\t" and prose > 0.5 * len(rows):
        return False
    return width > 1 and count >= 0.9 * len(rows)
