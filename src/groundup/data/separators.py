"""How a table's rows are divided: by which separator, and whether quotes are around fields."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from groundup.errors import UserError

LONGEST_CELL = 100_000_000
"""Characters; Python's own limit is 131,072, which a document can have.

There is a limit so that after a quote that is not closed not all the rest is held in memory.
"""

SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
"""By the names that ``separator=`` takes, besides the character itself."""

SUFFIXES = {".csv": ",", ".tsv": "\t", ".tab": "\t"}


def find_separator(
    source: str, head: list[str], given: str | None, usual: str | None, several: bool
) -> str:
    """The separator: as given, as is usual for the suffix, or as the first lines suggest.

    Raises:
        UserError: it is no separator, or leaves rows in one piece that another one divides (one
            that was given may, unless there must be ``several`` columns).
    """
    asked = SEPARATORS.get(given or "", "\t" if given == r"\t" else given)
    if asked is not None and (len(asked) != 1 or asked in '"\r\n'):
        raise UserError(
            f"--separator is {given!r}; expected one character or {', '.join(SEPARATORS)}"
        )
    wanted = asked or usual
    fitting = next((name for name, mark in SEPARATORS.items() if _divides(head, mark)), None)
    if wanted is None:
        return SEPARATORS[fitting or "tab"]
    if fitting and not _divides(head, wanted) and (asked is None or several):
        names = {mark: name for name, mark in SEPARATORS.items()}
        raise UserError(
            f"{source} has no columns with the separator {names.get(wanted, wanted)}; it looks as "
            f"if it were {fitting}: give --separator {fitting}"
        )
    return wanted


def quotes_fields(lines: Sequence[str], separator: str = "\t") -> bool:
    r"""Whether quotes stand around fields and are no part of them.

    They do if wherever a field has a quote, it is within a pair around the field, doubled; and if
    each of these pairs is needed (around a quote, a separator or a line end: what pandas writes),
    or its whole column has them but for empty fields and a header (what spreadsheets write). A
    message that somebody put between quotes is neither.

    Args:
        lines: the file's first ones; the last row may be incomplete.
        separator: between fields.
    """
    text = "".join(lines)
    if '"' not in text:
        return False
    field = re.compile(rf'("(?:[^"]|"")*"|[^"{separator}\r\n]*)({separator}|\r?\n|\Z)')
    rows: list[list[str]] = [[]]
    place = 0
    while place < len(text):
        found = field.match(text, place)
        if found is None:
            if not re.compile(r'"(?:[^"]|"")*\Z').match(text, place):
                return False
            rows.pop()
            break  # the last row goes on
        if separator in found[1] and "\n" in found[1]:
            return False  # whole rows between a quote here and one there
        rows[-1].append(found[1])
        rows += [[]] if found[2] != separator else []
        place = found.end()
    header, *below = rows or [[]]
    needed = re.compile(rf'(?s)".*(""|{separator}|\n).*"')
    seen = False
    for number in range(max(map(len, below), default=0)):
        column = [row[number] for row in below if len(row) > number and row[number]]
        quoted = [cell for cell in column if cell.startswith('"')]
        whole = header[number : number + 1] + column if len(column) == 1 else column
        if not all(map(needed.fullmatch, quoted)) and (
            len(whole) < 2 or not all(cell.startswith('"') for cell in whole)
        ):
            return False
        seen = seen or bool(quoted)
    return seen


def table_dialect(separator: str, quoted: bool) -> dict[str, Any]:
    """What ``csv.reader`` and ``csv.writer`` must know of a table."""
    if not quoted:
        return {"delimiter": separator, "quoting": csv.QUOTE_NONE, "quotechar": None}
    return {"delimiter": separator, "quoting": csv.QUOTE_MINIMAL}


def csv_reader(
    lines: Iterable[str], separator: str, quoted: bool | None = None, *, strict: bool = False
) -> Any:
    """A ``csv.reader`` that takes long cells too; the limit holds for the whole process."""
    csv.field_size_limit(LONGEST_CELL)
    dialect = table_dialect(separator, separator != "\t" if quoted is None else quoted)
    return csv.reader(lines, strict=strict, **dialect)


def csv_problem(message: str, quoted: bool) -> str:
    """What Python's message about a row means."""
    if "new-line" in message:
        return "a carriage return within a row"
    if "limit" in message:
        perhaps_open = ", or a quote that is not closed," if quoted else ""
        return f"a cell of more than {LONGEST_CELL:,} characters{perhaps_open}"
    return "a quote that is not closed or not doubled"


def _divides(lines: list[str], separator: str) -> bool:
    """Whether nearly all rows have the same number of fields, at least two.

    A comma with a space behind it is one of prose (``csv.Sniffer`` takes it for a separator).
    """
    try:
        rows = [cells for cells in csv_reader(lines, separator) if cells]
    except csv.Error:
        return False
    width, count = Counter(map(len, rows)).most_common(1)[0] if rows else (0, 0)
    prose = sum(any(cell.startswith(" ") for cell in cells[1:]) for cells in rows)
    if separator != "\t" and prose > 0.5 * len(rows):
        return False
    return width > 1 and count >= 0.9 * len(rows)
