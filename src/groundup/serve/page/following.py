"""Following a file of JSON lines that a run writes: what it has more than is known already."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.output import visible
from groundup.parsing import from_json

CHUNK = 1 << 20
"""Bytes that are read at a time: some thousand measurements."""

TEXTS = 4_000
"""Characters of a sample that are shown."""

Rows = list[dict[str, Any]]


@dataclass
class Place:
    """Up to where a file is known: which file, and how many bytes of it; nothing, unless given."""

    id: str = ""
    offset: int = 0


def newer(path: Path, known: Place, told: Callable[[Rows], Any]) -> dict[str, Any]:
    """The whole lines of a file that come after those that are known.

    A run that goes on writes its file anew, as far as it was saved; so does one that replaces
    another. That is another file, and all of it is new.

    Args:
        path: the file; a missing one is empty.
        known: what an earlier call told of ``id`` and ``offset``.
        told: makes of rows what is to be shown.

    Returns:
        ``id`` and ``offset`` for the next call; ``anew``: forget what was told before; ``more``:
        there is more already; ``damaged``: how many lines are no JSON objects; ``rows``.
    """
    try:
        with path.open("rb") as file:
            first = file.readline(CHUNK)
            if not first.endswith(b"\n"):
                raise FileNotFoundError  # nothing is whole
            name = f"{os.fstat(file.fileno()).st_ino:x}-{zlib.crc32(first):x}"
            size = file.seek(0, 2)
            anew = known.id != name or not 0 <= known.offset <= size
            start = 0 if anew else known.offset
            file.seek(start)
            data = file.read(CHUNK)
    except OSError:
        return {"id": "", "offset": 0, "anew": True, "more": False, "damaged": 0, "rows": told([])}
    whole = data[: data.rfind(b"\n") + 1]
    if not whole and len(data) == CHUNK:
        whole = data  # no line of a run is so long
    rows = [row for line in whole.splitlines() if (row := _row(line)) is not None]
    return {
        "id": name,
        "offset": start + len(whole),
        "anew": anew,
        "more": start + len(data) < size and bool(whole),
        "damaged": len(whole.splitlines()) - len(rows),
        "rows": told(rows),
    }


def measured(rows: Rows) -> dict[str, list[float | None]]:
    """Measurements as columns, by name; None where one is missing or no finite number."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if _number(value))
    return {
        visible(name): [row[name] if _number(row.get(name)) else None for row in rows]
        for name in names
    }


def written(rows: Rows) -> Rows:
    """Samples: after which step, the prompt, and the text after it."""
    return [
        {
            "step": row["step"],
            "prompt": visible(row["prompt"][:TEXTS]),
            "text": visible(row["text"][:TEXTS]),
        }
        for row in rows
        if _number(row.get("step"))
        and isinstance(row.get("prompt"), str)
        and isinstance(row.get("text"), str)
    ]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = from_json(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _number(value: Any) -> bool:
    """Whether a value is a number that JSON can hold and a browser can draw."""
    return type(value) in (int, float) and -1e300 < value < 1e300
