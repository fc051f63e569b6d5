"""Copy the figures of the documents from the committed results: ``python benchmarks/figures.py``.

``docs/measured.md`` is made of ``measured.md.j2`` beside this file; the tables between the marks of
the pages in ``TABLES`` of the templates named there. All name the results' files and keys. A test
runs this and compares, so no figure can be anything else than what a benchmark has written.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

import jinja2

HERE = Path(__file__).parent
ROOT = HERE.parent
BEGIN, END = "<!-- figures: make figures -->", "<!-- end of figures -->"


def results() -> dict[str, Any]:
    """What every benchmark has found, by its file's name (``-`` is ``_``)."""
    found = sorted((HERE / "results").glob("*.json"))
    return {f.stem.replace("-", "_"): json.loads(f.read_text("utf-8"))["results"] for f in found}


def render(template: str) -> str:
    """A template of this folder with the results filled in; an unknown name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    environment.filters |= {
        "median": median,
        "fixed": lambda value, digits=0: f"{value:,.{digits}f}",
        "percent": lambda value, digits=1: f"{value:.{digits}%}",
    }
    return environment.get_template(template).render(results())


def measured() -> str:
    """The text of ``docs/measured.md``."""
    return render("measured.md.j2")


TABLES = {
    "README.md": "readme.md.j2",
    "benchmarks/README.md": "ladder.md.j2",
    "docs/evaluate.md": "evaluate.md.j2",
}
"""By page: what the table between its marks is made of."""


def filled(page: str) -> str:
    """The text of one of these pages with its table of figures.

    Raises:
        ValueError: the marks are not there.
    """
    text = (ROOT / page).read_text("utf-8")
    block = f"{BEGIN}\n{render(TABLES[page])}{END}"
    changed, count = re.subn(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{page} has {count} places between {BEGIN} and {END}; expected one")
    return changed


if __name__ == "__main__":
    (ROOT / "docs" / "measured.md").write_text(measured(), encoding="utf-8")
    for page in TABLES:
        (ROOT / page).write_text(filled(page), encoding="utf-8")
