"""What works here and fails on a system with another encoding or other line ends."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def method_calls(*folders: str) -> Iterator[tuple[str, str, int, set[str | None]]]:
    """Place, name, number of arguments and keywords of all of them."""
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                place = f"{path.relative_to(ROOT)}:{call.lineno}"
                yield place, call.func.attr, len(call.args), {word.arg for word in call.keywords}


def test_whoever_reads_or_writes_a_text_says_its_encoding() -> None:
    """Ruff's PLW1514 sees it of ``open`` and of plain paths, not of what a function returns."""
    needed = {"read_text": 1, "write_text": 2}
    for place, name, arguments, words in method_calls("src", "tests", "benchmarks", "notebooks"):
        assert arguments >= needed.get(name, 0) or "encoding" in words, place


def test_what_is_written_has_the_same_line_ends_everywhere() -> None:
    for place, name, _, words in method_calls("src"):
        assert name != "write_text" or "newline" in words, place
