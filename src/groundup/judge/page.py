"""The report as one HTML page that loads nothing from anywhere and runs no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundup.judge.report import Content, Shown

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ border-top: 1px solid #8886; padding: .4rem .6rem; text-align: left;
  vertical-align: top; }}
td {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
.facts {{ width: auto; }}
.note {{ border-left: 4px solid #d1603d; padding-left: .8rem; }}
svg {{ max-width: 100%; height: auto; }}
pre {{ white-space: pre-wrap; }}
</style>
</head>
<body>
"""


def page(content: Content) -> str:
    """The page; everything that a person or a model wrote is escaped."""
    facts = "".join(_row("th", label, value) for label, value in content.facts)
    parts = [
        _HEAD.format(title=escape(content.title)),
        f"<h1>{escape(content.title)}</h1>\n",
        f'<table class="facts">\n{facts}</table>\n',
        *(f'<p class="note">{escape(note)}</p>\n' for note in content.notes),
        f"<figure>\n{content.picture}</figure>\n",
    ]
    for heading, group in content.groups:
        parts.append(f"<h2>{escape(heading)}</h2>\n{_table(group)}")
    every = _table(content.all_rows)
    parts.append(f"<h2>All entries</h2>\n<details>\n<summary>show</summary>\n{every}</details>\n")
    parts.append(
        f"<h2>The question</h2>\n<pre>{escape(content.question)}</pre>\n</body>\n</html>\n"
    )
    return "".join(parts)


def _table(group: Sequence[Shown]) -> str:
    names = list(group[0].texts) if group else []
    head = "".join(f"<th>{escape(name)}</th>" for name in ("entry", "verdict", "task", *names))
    rows = "".join(
        _row("td", str(shown.entry), shown.verdict, shown.task, *shown.texts.values())
        for shown in group
    )
    return f"<table>\n<tr>{head}</tr>\n{rows}</table>\n"


def _row(first: str, *cells: str) -> str:
    head, *rest = (escape(cell) for cell in cells)
    return f"<tr><{first}>{head}</{first}>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>\n"
