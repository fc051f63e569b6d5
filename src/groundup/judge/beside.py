"""The answers of a judged run side by side: plain data, for the report's page and for a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.judge.report import describe, headline
from groundup.judge.results import RESULTS
from groundup.output import visible
from groundup.parsing import read_json


def beside(results: Mapping[str, Any]) -> dict[str, Any]:
    """Every entry with its answers, ready to be shown: all texts are safe to show.

    Returns:
        ``title``, ``headline``, ``pairwise``; ``disagreement``: what it means that an entry is one,
        or None; ``rows``: of each entry its number, ``value`` (a score, A, B, tie or None), the
        verdict in ``words``, the ``task``, the ``texts`` by what they are, what the judge ``said``,
        and ``disagree``: how much, 0 if not.
    """
    report = describe(results)
    pairwise = results["against"] is not None
    earlier = {pair["entry"]: pair for pair in results.get("comparison", {}).get("entries", ())}
    rows = []
    for shown, row in zip(report["rows"], results["entries"], strict=True):
        texts, disagree = dict(shown.texts), int(bool(row.get("by_order")))
        pair = earlier.get(shown.entry)
        if pair is not None:
            texts["response then"], disagree = pair["response_earlier"], abs(pair["difference"])
        words = f"{shown.words}, then {pair['earlier']}" if pair is not None else shown.words
        rows.append(
            {
                "entry": shown.entry,
                "value": shown.value,
                "words": visible(words),
                "task": visible(shown.task),
                "texts": {name: visible(text or "") for name, text in texts.items()},
                "said": _said(row, pairwise),
                "disagree": disagree,
            }
        )
    meaning = "the judge's verdict changed with the order of the answers" if pairwise else None
    return {
        "title": report["title"],
        "headline": visible(headline(results)),
        "pairwise": pairwise,
        "disagreement": "the two runs got different scores" if earlier else meaning,
        "rows": rows,
    }


def _said(row: Mapping[str, Any], pairwise: bool) -> list[str]:
    if not pairwise:
        return [visible(text) for text in row["answers"]]
    return [
        visible(f"{order[0]} first: {text}")
        for order, told in row["orders"].items()
        for text in told["answers"]
    ]


def reports_in(folder: Path) -> list[Path]:
    """The directories of judged runs that lie in a folder."""
    return sorted(path.parent for path in folder.glob(f"*/{RESULTS}"))


def read_beside(folder: Path) -> dict[str, Any]:
    """The answers of a judged run by its directory.

    Raises:
        UserError: it is none, or damaged.
    """
    path = folder / RESULTS
    try:
        return beside(read_json(path))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise UserError(f"{path} is not what a run of `groundup judge` has written") from None
