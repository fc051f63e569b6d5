"""One declaration per knob: a dataclass field with its default and its help.

The command line's flags, the keys of a TOML file (``--config run.toml``), and the configuration
saved beside a checkpoint all derive from such fields. Nothing else in the project declares one.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from groundup.errors import UserError, did_you_mean
from groundup.parsing import from_toml, read_text

RECIPES = resources.files("groundup") / "recipes"

LARGEST_TOML = 1 << 20
"""Bytes of a TOML file that people write."""


def option(default: Any, help: str, *, shown: bool = True) -> Any:
    """Declare a knob as a dataclass field: its default, its help, and whether a repr shows it."""
    return dataclasses.field(default=default, repr=shown, metadata={"help": help})


def option_fields(*configs: type) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Map each option's name to its field and its resolved type, over several dataclasses.

    A name that two of them declare counts once, as the first declares it.
    """
    found: dict[str, tuple[dataclasses.Field[Any], Any]] = {}
    for config in configs:
        hints = typing.get_type_hints(config)
        for field in dataclasses.fields(config):
            found.setdefault(field.name, (field, hints[field.name]))
    return found


def recipe_names(task: str) -> list[str]:
    """The recipes for a task that come with groundup: TOML files like any other, only packaged."""
    files = (RECIPES / task).iterdir()
    return sorted(p.name.removesuffix(".toml") for p in files if p.name.endswith(".toml"))


def read_recipe(task: str, name: str, *configs: type) -> dict[str, Any]:
    """Read a packaged recipe's options.

    Raises:
        UserError: the task has no recipe of that name; the message lists them.
    """
    names = recipe_names(task)
    if name not in names:
        hint = did_you_mean(name, names) or ";"
        raise UserError(f"unknown recipe {name!r}{hint} there are: {', '.join(names)}")
    path = RECIPES / task / f"{name}.toml"
    return _checked(path.read_text("utf-8"), f"recipe {name}", configs)


def read_toml(path: Path, *configs: type) -> dict[str, Any]:
    """Read options from a TOML file; its tables (``[model]``, ``[training]``) are only headings.

    Raises:
        UserError: the file is missing, is not TOML, or has a key or a value that no option takes.
    """
    try:
        text = read_text(path, LARGEST_TOML)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the config file {path}: {error}") from error
    return _checked(text, str(path), configs)


def _checked(text: str, source: str, configs: tuple[type, ...]) -> dict[str, Any]:
    try:
        tables = from_toml(text)
    except ValueError as error:
        raise UserError(f"{source} is not valid TOML: {error}") from error
    known = option_fields(*configs)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in _flatten(tables):
        name = key.replace("-", "_")
        if name in values:
            problems.append(f"{key} is there twice, in two tables or spelled with - and _")
        elif name not in known:
            problems.append(f"unknown key {key!r}{did_you_mean(name, known)}")
        elif not fits(value, known[name][1]):
            problems.append(f"{key} is {value!r}; expected {describe_type(known[name][1])}")
        else:
            values[name] = value
    if problems:
        raise UserError(f"{source}: " + "; ".join(problems))
    return values


def _flatten(tables: Mapping[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tables.items():
        rows.extend(_flatten(value) if isinstance(value, dict) else [(key, value)])
    return rows


def fits(value: object, hint: Any) -> bool:
    """Whether a value, such as TOML and JSON give, is of the type that a field is declared with."""
    if hint is Any:
        return True
    origin, of = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in of
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in of)
    if origin is list:
        if not isinstance(value, list):
            return False
        # Of these types one value is like another, and a list of ids may have millions.
        of_each_kind = dict(zip(map(type, value), value, strict=True)).values()
        return all(fits(v, of[0]) for v in (of_each_kind if of[0] in (int, str) else value))
    if origin is dict:
        return isinstance(value, dict) and all(fits(v, of[1]) for v in value.values())
    if isinstance(value, bool):  # which Python takes for a whole number
        return hint is bool
    if hint is float and isinstance(value, int):
        return abs(value) < 1 << 64  # 10**400 is no float
    return isinstance(value, int | float if hint is float else hint)


def describe_type(hint: Any) -> str:
    """Name a type for people: ``one of auto, fp32, bf16`` or ``a whole number``."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if origin in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        return " or ".join(describe_type(part) for part in parts)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(hint, str(hint))


def check_choices(config: Any) -> list[str]:
    """Describe every field of a dataclass instance whose value its type hint does not allow."""
    return [
        f"{name} is {getattr(config, name)!r}; expected {describe_type(hint)}"
        for name, (_, hint) in option_fields(type(config)).items()
        if not fits(getattr(config, name), hint)
    ]
