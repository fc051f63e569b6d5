"""Which column is the text and which the label: by its name, else by what it holds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from groundup.errors import UserError, did_you_mean

LABEL_NAMES = (
    "label labels class category target sentiment topic intent y".split()  # the first is surest
)
TEXT_NAMES = (
    "text texts message sms content sentence review comment body document tweet utterance".split()
)

MOST_CLASSES = 200
LONGEST_LABEL = 50
"""A column with more different values, or longer ones, is not taken for the label unasked."""


def has_header(first: Sequence[str], rest: Sequence[Sequence[str]], named: Sequence[str]) -> bool:
    """Whether the first row names the columns.

    It does if it holds a column that the user named. It does not if a cell is there again below.
    Else it does if it holds a usual name such as ``label``, or if its cells look like names and one
    of them cannot be a value: a word above numbers, or above few values of which it is none.

    Args:
        first: the first row.
        rest: the rows below, as many cells each.
        named: columns that the user named.
    """
    names = [cell.strip() for cell in first]
    rows = [row for row in rest if row != first]
    below = {name: [row[i].strip() for row in rows] for i, name in enumerate(names) if name}
    new = {name: values for name, values in below.items() if name not in values}
    words = [name for name in named if not name.isdecimal()]  # "2" may mean the second column
    if any(name in new for name in words):
        return True
    usual = {*LABEL_NAMES, *TEXT_NAMES}
    if any(name not in new and name.casefold() not in usual for name in below):
        return False
    if any(name.casefold() in usual for name in new):
        return True
    if not all(re.fullmatch(r"[\w .?#/()-]{0,30}", name) for name in names):
        return False
    return any(
        _over_numbers(name, values) or _few_values(values, 3) for name, values in new.items()
    )


def choose_columns(
    source: str,
    columns: Sequence[str],
    rows: Sequence[dict[str, Any]],
    text: str | None,
    label: str | None,
    *,
    label_needed: bool,
) -> tuple[str, str | None]:
    """Return the names of the text's column and of the label's (``None`` if there is none).

    Args:
        source: the file, for messages.
        columns: all of them.
        rows: some rows.
        text: as the user named it.
        label: as the user named it.
        label_needed: whether there must be one.

    Raises:
        UserError: there is no column of that name, or it cannot be told which one it is.
    """
    named = {"--text-column": text, "--label-column": label}
    missing = [
        f"there is no column {name!r} ({flag}){did_you_mean(name, columns) or ';'}"
        for flag, name in named.items()
        if name is not None and name not in columns
    ]
    if missing:
        raise UserError(f"{source}: {' '.join(missing)} there are {_listed(columns)}")
    if text is not None and text == label:
        raise UserError(f"--text-column and --label-column are both {text!r}; expected two columns")
    if label_needed and len(columns) < 2:
        raise UserError(
            f"{source} has only the column {_listed(columns)}; expected a text and a label in each "
            "row (if another character separates them, name it with --separator)"
        )
    values = {name: [cell_text(row.get(name)) for row in rows] for name in columns}
    left = [name for name in columns if name not in named.values()]
    text = text or _by_name(left, TEXT_NAMES)
    label = label or _by_name([name for name in left if name != text], LABEL_NAMES)
    left = [name for name in columns if name not in (text, label)]
    labels = [name for name in left if _few_values(values[name], 1.5)]
    if text is None:
        others = [name for name in left if name not in labels]
        text = left[0] if len(left) == 1 else _longest({name: values[name] for name in others})
    if label is None and label_needed:
        labels = [name for name in labels if name != text]
        label = labels[0] if len(labels) == 1 else None
    unknown = ["the text (--text-column)"] if text is None else []
    if label is None and label_needed:
        unknown.append("the label (--label-column)")
    if text is None or unknown:
        raise UserError(
            f"cannot tell which column of {source} is {' and which '.join(unknown)}; "
            f"name it: there are {_listed(columns)}"
        )
    return text, label


def is_column_name(label: str, column: str, *, first: bool) -> bool:
    """Whether this is no label but what a column of labels is called.

    Args:
        label: as the file has it.
        column: the label column's name; a number, where there was no header.
        first: whether it is the first row's.
    """
    plain = label.strip("\"' ").casefold()
    return plain == column.casefold() or first and column.isdecimal() and plain in LABEL_NAMES


def cell_text(value: Any) -> str:
    """A value as text; empty if it is missing. JSON's numbers and truths are spelled as in JSON."""
    if isinstance(value, str):
        return value
    missing = value is None or isinstance(value, float) and math.isnan(value)
    return "" if missing else json.dumps(value, ensure_ascii=False)


def _by_name(columns: Iterable[str], names: Sequence[str]) -> str | None:
    """The only column with a usual name; the surest name wins over the others."""
    found = [column for column in columns if column.casefold() in names]
    surest = [column for column in found if column.casefold() == names[0]]
    return next((some[0] for some in (surest, found) if len(some) == 1), None)


def _few_values(values: Sequence[str], repeats: float) -> bool:
    """Whether these can be labels: short, few, and each there ``repeats`` times on average."""
    filled = [value for value in values if value]
    return (
        len(filled) * 2 > len(values)
        and 2 <= len(set(filled)) <= min(MOST_CLASSES, len(filled) / repeats)
        and max(map(len, filled)) <= LONGEST_LABEL
    )


def _over_numbers(name: str, values: Sequence[str]) -> bool:
    number = re.compile(r"[+-]?\d+(\.\d+)?")
    return not number.fullmatch(name) and bool(values) and all(map(number.fullmatch, values))


def _longest(values: dict[str, list[str]]) -> str | None:
    """The column with the most letters, if it has at least twice as many as any other."""
    letters = {name: sum(map(str.isalpha, "".join(column))) for name, column in values.items()}
    ranked = sorted(letters, key=lambda name: letters[name], reverse=True)
    if len(ranked) > 1 and letters[ranked[0]] < max(1, 2 * letters[ranked[1]]):
        return None
    return ranked[0] if ranked else None


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(map(repr, columns))
