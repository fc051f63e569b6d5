"""Texts to classify, row by row, and the same rows back with what was predicted."""

from __future__ import annotations

import csv
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO

from groundup.data.lines import Problems
from groundup.data.separators import table_dialect
from groundup.data.tables import Table, open_table
from groundup.errors import UserError


def open_texts(
    path: str | Path, *, text_column: str | None = None, separator: str | None = None
) -> AbstractContextManager[Table]:
    """Open a CSV, TSV or JSONL file (``.gz`` too) to classify its texts.

    ::

        with open_texts("new.csv") as rows, open("out.csv", "w", newline="") as stream:
            writer = RowWriter(stream, rows)
            for row in rows:
                writer.write(row, *classify(row[rows.text_column]))

    A ``.json`` list is taken too, but is read whole.

    Args:
        path: the file; it needs no label column.
        text_column: the text's column; by default it is found as in ``read_labelled``.
        separator: of a table, if its suffix and its first lines do not show it.

    Raises:
        UserError: the file cannot be read, or, while the rows are run through, a row is bad; the
            message names it.
    """
    return open_table(
        Problems(str(path), at_once=True),
        text_column=text_column,
        separator=separator,
        label_needed=False,
    )


class RowWriter:
    """Writes rows in the format they came in, with the columns ``label`` and ``probability`` added.

    Where the input has such a column already, the added one is ``predicted_label``, and so on. A
    table always gets a header; columns that had no name are called by their number. Text is quoted
    as it was: a TSV that had no quotes around fields gets none (pandas reads it with
    ``quoting=csv.QUOTE_NONE``). A ``.json`` list comes out as JSONL.

    Args:
        stream: where to write; a file must be opened with ``newline=""`` and as UTF-8.
        rows: where the rows come from.
    """

    def __init__(self, stream: TextIO, rows: Table) -> None:
        self.label_column = _free_name("label", rows.columns)
        self.probability_column = _free_name("probability", rows.columns)
        self._stream, self._source = stream, rows.source
        self._separator, self._quoted = rows.separator, rows.quoted
        if rows.separator:
            self._write([*rows.columns, self.label_column, self.probability_column])

    def write(self, row: dict[str, Any], label: str, probability: float) -> None:
        """Write a row with its prediction.

        Raises:
            UserError: a JSON entry has a key of the same name as what is added, unlike the first.
        """
        added = {self.label_column: label, self.probability_column: round(probability, 6)}
        if self._separator:
            self._write([*row.values(), *added.values()])
        elif taken := [name for name in added if name in row]:
            raise UserError(
                f"{self._source}: an entry has the key {taken[0]!r}, which the first ones had not "
                "and which the prediction would replace; rename it"
            )
        else:
            self._stream.write(json.dumps(row | added, ensure_ascii=False) + "\n")

    def _write(self, cells: list[Any]) -> None:
        dialect = table_dialect(self._separator, self._quoted)
        if any("\r" in cell for cell in cells if isinstance(cell, str)):
            dialect["quoting"] = csv.QUOTE_ALL  # else Python leaves a carriage return unquoted
        csv.writer(self._stream, lineterminator="\n", **dialect).writerow(cells)


def _free_name(name: str, columns: list[str]) -> str:
    taken = {column.casefold() for column in columns}
    while name in taken:
        name = f"predicted_{name}"
    return name
