"""The source of a class or function, to be read beside prose: no wider than 80 columns.

What is shown is what runs. Only line ends move: long lines are broken where Python allows it, and
a comment at the end of one goes above it (a test holds the two programs equal).
"""

from __future__ import annotations

import inspect
import io
import re
import textwrap
import token
import tokenize
from collections.abc import Callable, Iterator
from typing import Any

WIDTH = 80


def source_of(thing: Callable[..., Any] | type, width: int = WIDTH) -> str:
    """The source of a class or function, its lines at most ``width`` columns wide."""
    return fit(raw_source(thing), width)


def raw_source(thing: Callable[..., Any] | type) -> str:
    """The source of a class, function or method, from its first line to its last."""
    return textwrap.dedent(inspect.getsource(thing)).strip()


def fit(source: str, width: int = WIDTH) -> str:
    """Break the lines of a piece of Python that are too long."""
    lines, fitted, row = source.splitlines(), [], 0
    code, texts = _read(source)
    while row < len(lines):
        line = lines[row]
        if row in texts:
            end = texts[row]
            fitted += _fit_text(lines[row : end + 1], width)
            row = end
        elif line.strip().startswith("#"):
            indent = line[: line.index("#")]
            last = row
            while last + 1 < len(lines) and lines[last + 1].startswith(f"{indent}# "):
                last += 1
            block = lines[row : last + 1]
            fitted += _fit_comment(block, indent, width)
            row = last
        else:
            fitted += _fit_code(line, code.get(row, []), width) if len(line) > width else [line]
        row += 1
    return "\n".join(fitted) + "\n"


Place = tuple[int, int]
"""A column where a line may be broken, and how bad that is: 0 after a comma between the outermost
brackets, one more for each bracket further in, 10 more where there is no comma, 20 outside of all
brackets, where it takes a backslash; -1 is where the line's comment begins."""


def _read(source: str) -> tuple[dict[int, list[Place]], dict[int, int]]:
    """Where each row may be broken; and the rows of docstrings, from the first to the last."""
    places: dict[int, list[Place]] = {}
    texts: dict[int, int] = {}
    depth = in_fstring = 0
    before = tokenize.NEWLINE
    last = ""
    for found in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = found.start[0] - 1, found.start[1]
        if found.type == tokenize.COMMENT:
            places.setdefault(row, []).append((column, -1))
        elif found.type == tokenize.STRING and before in (tokenize.NEWLINE, tokenize.INDENT):
            texts[row] = found.end[0] - 1
        elif not in_fstring and found.string not in "),]}.(:=[" and last != ".":
            if depth and last != "=":
                places.setdefault(row, []).append((column, depth + 10 * (last != ",")))
            elif not depth and last in ("=", ","):
                places.setdefault(row, []).append((column, 20))
        in_fstring += found.type == getattr(token, "FSTRING_START", -1)
        in_fstring -= found.type == getattr(token, "FSTRING_END", -1)
        depth += (found.string in "([{") - (found.string in ")]}") if found.string.strip() else 0
        last = found.string.strip()
        if found.type not in (tokenize.COMMENT, tokenize.NL, tokenize.DEDENT):
            before = found.type
    return places, texts


def _fit_code(line: str, places: list[Place], width: int) -> list[str]:
    """A line of code in several, the later ones eight columns further in."""
    indent = line[: len(line) - len(line.lstrip())]
    fitted: list[str] = []
    for column, kind in places:
        if kind == -1:
            fitted += _fit_comment([indent + line[column:]], indent, width)
            line = line[:column].rstrip()
    start, lead = len(indent), indent
    # The brackets that the line is in already: what they hold stays in line.
    outer = next((kind for at, kind in places if at == len(indent)), 0) % 10 or None
    while len(lead) + len(line[start:].strip()) > width:
        room = start + width - len(lead)
        here = [
            (kind, -at)
            for at, kind in places
            if kind >= 0 and start + 5 < at <= room - 2 * (kind >= 20)
        ]
        if not here:
            return fitted + _fit_string(lead, line[start:].strip(), width)
        kind, end = min(here)[0], -min(here)[1]
        fitted.append(lead + line[start:end].strip() + " \\" * (kind >= 20))
        start, lead = end, indent if kind == outer else f"{indent}        "
    return [*fitted, lead + line[start:].strip()]


def _fit_string(lead: str, code: str, width: int) -> list[str]:
    """A line that begins with a string, which Python joins with the one that follows it."""
    opening = re.match('f?"', code)
    ends = [
        found.end()
        for found in re.finditer(" ", code[: width - len(lead) - 1])
        if code[: found.end()].count("{") == code[: found.end()].count("}")
        and code[: found.end()].count('"') == 1
    ]
    if opening is None or not ends:
        return [lead + code]
    return [
        f'{lead}{code[: ends[-1]]}"',
        *_fit_code(lead + opening[0] + code[ends[-1] :], [], width),
    ]


def _fit_comment(lines: list[str], indent: str, width: int) -> list[str]:
    if all(len(line) <= width for line in lines):
        return lines
    text = " ".join(line.strip().lstrip("# ") for line in lines)
    return _wrapped(text, f"{indent}# ", f"{indent}# ", width)


def _fit_text(lines: list[str], width: int) -> list[str]:
    """A docstring, with each paragraph and each argument's text wrapped if it is too wide."""
    fitted: list[str] = []
    for block in _blocks(lines):
        if all(len(line) <= width for line in block):
            fitted += block
            continue
        indents = [line[: len(line) - len(line.lstrip())] for line in block]
        hanging = indents[0] + "    " * bool(_ITEM.match(block[0].strip()))
        rest = indents[1] if len(block) > 1 else hanging
        text = " ".join(line.strip() for line in block)
        fitted += _wrapped(text, indents[0], rest, width)
    return fitted


_ITEM = re.compile(r"[\w*]+: |- ")


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    block: list[str] = []
    for line in lines:
        text = line.strip()
        shallower = bool(block) and len(block) > 1 and _indent(line) < _indent(block[-1])
        after_title = bool(block) and re.fullmatch(r"\w+:", block[-1].strip()) is not None
        if block and (text in ("", '"""') or _ITEM.match(text) or shallower or after_title):
            yield block
            block = []
        block.append(line)
        if not text:
            yield block
            block = []
    if block:
        yield block


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _wrapped(text: str, first: str, rest: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
