"""Rows of CSV, TSV and JSON files, one at a time, with the line numbers that messages need.

Python's own ``csv`` reads them, not pandas: it says in which line a row is wrong, where pandas
drops one with a bad quote, or fills one that is too short, without a word.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from groundup.data.columns import choose_columns, has_header
from groundup.data.lines import Problems, file_lines, json_lines
from groundup.data.separators import (
    SUFFIXES,
    csv_problem,
    csv_reader,
    find_separator,
    quotes_fields,
)
from groundup.errors import UserError
from groundup.parsing import from_json

SNIFFED_LINES = 100
"""From so many lines the separator is guessed."""

SAMPLE_ROWS = 1000
"""From so many rows it is guessed which columns there are; this much is in memory at once."""

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")

Row = tuple[int, dict[str, Any]]
"""A row's number in its file (a line, or an entry of a JSON list) and its values by column."""


@dataclass(frozen=True)
class Table:
    """An open file of rows, which can be run through once and are not held in memory.

    Args:
        source: the file.
        columns: their names, as the header or the first JSON entries have them; without a header
            they are called by their numbers, from "1".
        separator: between two fields of a row; empty if the rows are JSON objects.
        quoted: whether a quote around a field is no part of it.
        text_column: the column with the text; ``row[table.text_column]`` is never empty.
        label_column: the column with the label, if there must be one.
        numbered: the rows as they are there, with their numbers.
    """

    source: str
    columns: list[str]
    separator: str
    quoted: bool
    text_column: str
    label_column: str | None
    numbered: Iterator[Row]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows alone: values by column, in their order."""
        return (row for _, row in self.numbered)


@contextmanager
def open_table(
    problems: Problems,
    *,
    separator: str | None,
    text_column: str | None,
    label_column: str | None = None,
    label_needed: bool,
) -> Iterator[Table]:
    r"""Open a CSV, TSV, JSONL or JSON file, which may be gzipped.

    What it is follows from its suffix; without one that says it, from its first lines. CSV has the
    usual quoting. With tabs between the fields, quotes are text like any other, as in the SMS Spam
    Collection, unless the first lines show that they stand around fields (see
    :func:`quotes_fields`). Only a ``.json`` list is read whole; everything else row by row.

    Args:
        problems: of the file ``problems.source``: rows that cannot be read are noted there and left
            out; those without a text are noted when they are reached.
        separator: the character between two fields, or a name in ``SEPARATORS``; unless it shows.
        text_column: the text's column, if it is not found.
        label_column: the label's column, if it is not found.
        label_needed: whether there must be one.

    Raises:
        UserError: the file is missing, a directory, empty, or has another separator; or a column is
            not there or not clear.
    """
    source = problems.source
    named = [name for name in (text_column, label_column) if name]
    with closing(file_lines(problems)) as lines:
        mark, quoted, columns, rows = _open_rows(lines, problems, separator, named, label_needed)
        sample = list(islice(rows, SAMPLE_ROWS))
        entries = [entry for _, entry in sample]
        columns = columns or list(dict.fromkeys(chain.from_iterable(entries)))
        nothing = "a header but no rows" if mark else "no entries; expected objects with a text"
        try:
            if not entries or not columns:
                raise UserError(f"{source} has {nothing}")
            text, label = choose_columns(
                source, columns, entries, text_column, label_column, label_needed=label_needed
            )
        except UserError:
            problems.raise_if_any()  # the rows that were left out are what is missing
            raise
        checked = _checked(chain(sample, rows), text, problems)
        yield Table(source, columns, mark, quoted, text, label, checked)


def _open_rows(
    lines: Iterator[str], problems: Problems, given: str | None, named: list[str], several: bool
) -> tuple[str, bool, list[str], Iterator[Row]]:
    """The separator, whether fields are quoted, the columns and the rows; of JSON, the rows."""
    source = problems.source
    head = list(islice(lines, SNIFFED_LINES))
    start = "".join(head).lstrip()
    if not start:
        raise UserError(f"{source} is empty; expected rows with a text")
    every_line = chain(head, lines)
    suffix = Path(source.lower().removesuffix(".gz")).suffix
    if suffix in JSON_SUFFIXES or suffix not in SUFFIXES and re.match(r'\[\s*\{|\{"', start):
        if given is not None:
            raise UserError(f"{source} is JSON, which has no separator; leave out --separator")
        return "", False, [], _json_rows(every_line, start.startswith("["), problems)
    mark = find_separator(source, head, given, SUFFIXES.get(suffix), several)
    quoted = mark != "\t"
    if not quoted:
        head = list(islice(every_line, SAMPLE_ROWS))
        every_line, quoted = chain(head, lines), quotes_fields(head)
    return mark, quoted, *_table_rows(_records(every_line, mark, quoted, problems), named, problems)


def _checked(rows: Iterable[Row], column: str, problems: Problems) -> Iterator[Row]:
    """The rows, noting what is wrong with a text: no such key, not a string, or nothing in it."""
    for number, row in rows:
        text = row.get(column)
        if column not in row:
            problems.add(number, f"no key {column!r}")
        elif text is not None and not isinstance(text, str):
            problems.add(number, f"no string as {column!r}", json.dumps(text)[:20])
        elif not (text or "").strip():
            problems.add(number, "an empty text")
        yield number, row


def _json_rows(lines: Iterable[str], is_list: bool, problems: Problems) -> Iterator[Row]:
    """The objects of a JSON list, or of JSON lines."""
    if is_list:
        text = "".join(lines)
        problems.raise_if_any()  # a line that is not UTF-8 may belong to any entry
        try:
            entries = from_json(text)
        except ValueError as error:
            raise UserError(f"{problems.source} is not valid JSON: {error}") from error
        problems.unit = ("entry", "entries")
        values = ((number, entry, "", "") for number, entry in enumerate(entries, 1))
    else:
        values = json_lines(lines)
    for number, value, problem, place in values:
        if number in problems.rows:
            continue  # it is not UTF-8
        if problem:
            problems.add(number, "not valid JSON", ", ".join(filter(None, (problem, place))))
        elif not isinstance(value, dict):
            problems.add(number, "not a JSON object", type(value).__name__)
        elif re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False)):
            problems.add(number, "half a character (a lone surrogate)")
        else:
            yield number, value


def _table_rows(
    records: Iterator[tuple[int, list[str]]], named: list[str], problems: Problems
) -> tuple[list[str], Iterator[Row]]:
    """The names of the columns, and the rows that have as many fields as there are columns."""
    first = list(islice(records, SAMPLE_ROWS))
    if not first:
        return [], iter(())
    counts = [len(cells) for _, cells in first]
    alike = [cells for _, cells in first if len(cells) == counts[0]]
    header = alike[0] if has_header(alike[0], alike[1:], named) else None
    width = len(header) if header else Counter(counts).most_common(1)[0][0]
    names = [cell.strip() or str(i) for i, cell in enumerate(header or [""] * width, 1)]
    if twice := [repr(name) for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{problems.source} has several columns called {', '.join(twice)}")

    def rows() -> Iterator[Row]:
        for number, cells in chain(first[1:] if header else first, records):
            if len(cells) != width:
                problems.add(number, f"another number of columns than {width}", f"{len(cells)}")
            elif cells == header:
                problems.add(number, "the header once more")
            else:
                yield number, dict(zip(names, cells, strict=True))

    return names, rows()


def _records(
    lines: Iterable[str], separator: str, quoted: bool, problems: Problems
) -> Iterator[tuple[int, list[str]]]:
    """The fields of each row, with the number of the line in which the row begins."""
    reader = csv_reader(lines, separator, quoted, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.add(start, csv_problem(str(error), quoted))
            continue
        if cells and problems.rows.isdisjoint(range(start, reader.line_num + 1)):
            yield start, cells
