"""The report of a judged run as files: Markdown with its picture, and one self-contained page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.files import atomic_file
from groundup.judge.beside import beside
from groundup.judge.report import describe
from groundup.output import inline

MARKDOWN, PAGE, PICTURE = "report.md", "report.html", "distribution.svg"
FILES = (MARKDOWN, PAGE, PICTURE)

LARGEST = 20
"""How many differences between two runs the Markdown report lists; the page lists all."""

START = """
const data = JSON.parse(document.getElementById("data").textContent);
answersBeside(document.getElementById("beside"), data);
"""
"""What the page does when it is opened."""


def write_report(folder: Path, results: Mapping[str, Any]) -> None:
    """Write ``report.md`` with its picture and the self-contained ``report.html``.

    Raises:
        UserError: the disk is full or cannot be written to.
    """
    from groundup.pages import bundled, embedded, environment_of, fingerprint, inline_svg, web_file
    from groundup.plots import plot_counts, svg

    report = describe(results)
    bars = report["bars"]
    in_words = ", ".join(f"{label}: {count}" for label, count in bars)  # for who sees no picture
    picture = svg(plot_counts(bars), f"distribution of the {report['counted']}: {in_words}")
    environment = environment_of("groundup.judge")
    environment.filters |= {"inline": inline, "cell": _cell, "fenced": _fenced}
    script = f"\n{bundled('judge.js')}\n{START}"
    told = {
        "report": report,
        "in_words": in_words,
        "picture": inline_svg(picture),
        "picture_file": PICTURE,
        "page_file": PAGE,
        "largest": LARGEST,
        "data": embedded(beside(results)),
        "script": script,
        "policy": f"; script-src '{fingerprint(script)}'",
        "style": web_file("judge.css"),
    }
    texts = {name: environment.get_template(name).render(told) for name in (MARKDOWN, PAGE)}
    for name, text in {PICTURE: picture, **texts}.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")


def _cell(text: str) -> str:
    """Text of several lines within a table."""
    return "<br>".join(inline(line) for line in text.strip().split("\n"))


def _fenced(text: str) -> str:
    """Text between fences that are longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
