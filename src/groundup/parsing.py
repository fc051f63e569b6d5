"""The one reader of small files, JSON and TOML: whatever is in them, a value or a ``ValueError``.

Files come from strangers. Python's parsers raise other things than ``ValueError`` on some of them
(too deep, a number of 100,000 digits), let the last of two equal keys win, and read what has no
end. What is read here has none of that, and may begin with a byte order mark.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from groundup.errors import UserError, read_error

BOM = "\ufeff"
"""The byte order mark, with which editors of Windows begin a file."""

DEEPEST = 100
"""Lists and objects inside each other; files that mean anything have about ten."""

LARGEST = 16 << 20
"""Bytes of a file of settings; the largest indexes of models have one."""


def read_text(path: Path, largest: int = LARGEST) -> str:
    """The text of a file that is small, without a byte order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than ``largest`` bytes, or not UTF-8.
    """
    with path.open("rb") as file:
        data = file.read(largest + 1)  # not the size that it says: a device or a pipe says 0
    if len(data) > largest:
        raise ValueError(f"it is larger than {largest >> 20} MiB, so it is no such file")
    return data.decode().removeprefix(BOM)


def from_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, has a key twice in one object, is nested too deep or has a
            number of thousands of digits.
    """
    text = (text.decode() if isinstance(text, bytes) else text).removeprefix(BOM)
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles)
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise _plain(error) from None
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value)
    return value


def from_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        ValueError: it is not TOML, is nested too deep or has a number of thousands of digits.
    """
    try:
        tables = tomllib.loads(text.removeprefix(BOM))
    except RecursionError:
        raise _too_deep() from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:
        raise _plain(error) from None
    _check_depth(tables)  # also of dotted names: a.a.a.a = 1
    return tables


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of settings.

    Raises:
        UserError: the file is missing, or is not a JSON object.
    """
    try:
        value = from_json(read_text(path))
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not a complete model: {path.name} is missing") from None
    except OSError as error:
        raise read_error(path, error) from error
    except ValueError as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}; expected a JSON object")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(name for name, _ in pairs)
        twice = next(name for name in found if times[name] > 1)
        raise ValueError(f"the key {twice!r:.80} is there twice")
    return found


def _check_depth(value: Any) -> None:
    """Layer by layer, since a function that calls itself would run out of stack itself."""
    layer = [value]
    for _ in range(DEEPEST + 1):
        inner = (v.values() if isinstance(v, dict) else v for v in layer)
        layer = [v for values in inner for v in values if isinstance(v, dict | list)]
        if not layer:
            return
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {DEEPEST} deep")


def _plain(error: ValueError) -> ValueError:
    """Without the advice how to lift the limit on the digits of a whole number."""
    return ValueError(str(error).split("; use sys.")[0])
