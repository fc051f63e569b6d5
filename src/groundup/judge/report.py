"""The report of a judged run, as Markdown; :mod:`page` makes the page of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.files import atomic_file
from groundup.judge.histogram import histogram
from groundup.judge.page import page
from groundup.judge.responses import numbered

MARKDOWN, PAGE, PICTURE = "report.md", "report.html", "distribution.svg"
FILES = (MARKDOWN, PAGE, PICTURE)

EXTREMES = 5
"""How many of the best and of the worst answers are shown."""

LARGEST = 20
"""How many differences between two runs the Markdown report lists; the page lists all."""


@dataclass(frozen=True)
class Shown:
    """An answer as the reports show it: a verdict, the task, and texts side by side."""

    entry: int
    verdict: str
    task: str
    texts: dict[str, str]


@dataclass(frozen=True)
class Content:
    """What both forms of a report say.

    Args:
        title: the headline.
        facts: the figures, by what they are.
        notes: what a reader must know to trust them.
        picture: the distribution, as SVG.
        picture_text: the same in words.
        groups: answers under their headings.
        all_rows: every entry.
        question: the prompt template.
    """

    title: str
    facts: list[tuple[str, str]]
    notes: list[str]
    picture: str
    picture_text: str
    groups: list[tuple[str, list[Shown]]]
    all_rows: list[Shown]
    question: str


def write_report(folder: Path, results: Mapping[str, Any]) -> None:
    """Write ``report.md`` with its picture and the self-contained ``report.html``.

    Raises:
        UserError: the disk is full or cannot be written to.
    """
    content = describe(results)
    for name, text in (
        (PICTURE, content.picture),
        (MARKDOWN, markdown(content)),
        (PAGE, page(content)),
    ):
        with atomic_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def headline(results: Mapping[str, Any]) -> str:
    """The result in one line."""
    summary = results["summary"]
    counts = f"{summary['scored']} of {summary['entries']} scored, {summary['unscored']} unscored"
    if summary["empty"]:
        counts += f", {summary['empty']} empty"
    if results["against"] is None:
        if summary["mean"] is None:
            return f"no score at all ({counts})"
        mean = f"mean {summary['mean']:.2f}{_interval(summary['interval'])}"
        return f"{mean}, median {summary['median']:g} ({counts})"
    if summary["win_rate"] is None:
        return f"no verdict at all ({counts})"
    rate = f"A wins {summary['win_rate']:.1%}{_interval(summary['interval'], '.1%')}"
    record = f"{summary['wins']} wins, {summary['ties']} ties, {summary['losses']} losses"
    return f"{rate}: {record} ({counts})"


def describe(results: Mapping[str, Any]) -> Content:
    """Gather what a report says."""
    rows = results["entries"]
    pairwise = results["against"] is not None
    facts = [("result", headline(results)), ("responses", results["responses"])]
    if pairwise:
        facts[-1:] = [("A", results["responses"]), ("B", results["against"])]
    facts += [
        ("judge", results["judge"]),
        ("digest", results["digest"] or "the server tells none"),
        ("settings", ", ".join(f"{k} {v}" for k, v in results["settings"].items())),
        ("versions", ", ".join(f"{k} {v}" for k, v in results["versions"].items())),
    ]
    for name, label in (("base_url", "server"), ("server_version", "version of the server")):
        if results[name]:
            facts.append((label, results[name]))
    if pairwise:
        values = [row["winner"] for row in rows if row["winner"] is not None]
        bars = [(name, values.count(key)) for name, key in (("A", "A"), ("tie", "tie"), ("B", "B"))]
    else:
        low, high = results["template"]["scale"]
        bars = bins([row["score"] for row in rows if row["score"] is not None], low, high)
    shown = [_shown(row, pairwise) for row in rows]
    groups = _winners(rows, shown) if pairwise else _extremes(rows, shown)
    unscored = [s for s, row in zip(shown, rows, strict=True) if _verdict(row) is None]
    if unscored:
        groups.append(("Unscored", unscored))
    if "comparison" in results:
        facts[1:1] = _comparison_facts(results["comparison"])
        groups.append(("Differences", _differences(results, shown)))
    return Content(
        "Which response is better" if pairwise else "Scores of the responses",
        facts,
        _notes(results),
        histogram(bars, "entries" if pairwise else "scores"),
        ", ".join(f"{label}: {count}" for label, count in bars),
        groups,
        shown,
        results["template"]["prompt"],
    )


def bins(scores: Sequence[int], low: int, high: int) -> list[tuple[str, int]]:
    """Count scores: each by itself on a short scale, else in ten ranges."""
    width = 1 if high - low < 12 else -(-(high - low) // 10)
    starts = list(range(low, high + 1, width))
    if width > 1 and high - starts[-1] < width - 1 and len(starts) > 1:
        starts.pop()  # 100 belongs to the last range, 90 to 100, and is none of its own
    counts = [0] * len(starts)
    for score in scores:
        counts[min((score - low) // width, len(starts) - 1)] += 1
    ends = [start - 1 for start in starts[1:]] + [high]
    labels = [f"{a}" if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True)]
    return list(zip(labels, counts, strict=True))


def markdown(content: Content) -> str:
    """The report as Markdown, with the answers side by side in tables."""
    lines = [f"# {content.title}", ""]
    lines += [f"- **{label}:** {_inline(value)}" for label, value in content.facts]
    lines += ["", *(f"> {_inline(note)}  " for note in content.notes), ""]
    lines += [f"![{content.picture_text}]({PICTURE})", ""]
    for heading, group in content.groups:
        lines += [f"## {heading}", ""]
        names = ["entry", "verdict", "task", *group[0].texts]
        lines += [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
        for shown in group[:LARGEST]:
            cells = [str(shown.entry), shown.verdict, shown.task, *shown.texts.values()]
            lines.append(f"| {' | '.join(map(_cell, cells))} |")
        lines.append("")
        if len(group) > LARGEST:
            lines += [f"{len(group) - LARGEST} more are in {PAGE}.", ""]
    lines += ["## The question", "", _fenced(content.question), ""]
    return re.sub("\n{3,}", "\n\n", "\n".join(lines))


def _verdict(row: Mapping[str, Any]) -> Any:
    return row["score"] if "score" in row else row["winner"]


def _shown(row: Mapping[str, Any], pairwise: bool) -> Shown:
    task = row["instruction"] + (f"\n\n{row['input']}" if row["input"] else "")
    verdict = _verdict(row)
    if verdict is None:
        said = (
            row["answers"] if "answers" in row else [x["answers"] for x in row["orders"].values()]
        )
        words = f"unscored ({row.get('note') or f'the judge said {said}'})"
    elif row["empty"]:
        words = f"{verdict} (empty response, not asked)"
    else:
        words = f"{verdict} (the order decided)" if row.get("by_order") else str(verdict)
    names = (
        {"response_a": "response A", "response_b": "response B"} if pairwise else {"response": ""}
    )
    texts = {label or name: row[name] for name, label in names.items()}
    return Shown(row["entry"], words, task, {"reference": row["reference"], **texts})


def _extremes(
    rows: Sequence[Mapping[str, Any]], shown: Sequence[Shown]
) -> list[tuple[str, list[Shown]]]:
    """The best and the worst; no entry is in both."""
    scored = [
        (row["score"], s) for row, s in zip(rows, shown, strict=True) if row["score"] is not None
    ]
    scored.sort(key=lambda pair: -pair[0])  # stable: equal scores stay in the file's order
    worst = scored[max((len(scored) + 1) // 2, len(scored) - EXTREMES) :]
    best = scored[: min((len(scored) + 1) // 2, EXTREMES)]
    groups = [
        ("Best answers", [s for _, s in best]),
        ("Worst answers", [s for _, s in worst[::-1]]),
    ]
    return [(heading, group) for heading, group in groups if group]


def _winners(
    rows: Sequence[Mapping[str, Any]], shown: Sequence[Shown]
) -> list[tuple[str, list[Shown]]]:
    groups = [
        (
            f"{name} is better",
            [s for row, s in zip(rows, shown, strict=True) if row["winner"] == name],
        )
        for name in ("A", "B")
    ]
    return [(heading, group[:EXTREMES]) for heading, group in groups if group]


def _comparison_facts(comparison: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not comparison["pairs"]:
        return [("compared with", f"{comparison['with']}: no entry has a score in both runs")]
    mean = f"{comparison['mean_difference']:+.2f}{_interval(comparison['interval'], '+.2f')}"
    return [
        ("compared with", comparison["with"]),
        (
            "mean difference",
            f"{mean} over {comparison['pairs']} entries: {comparison['better']} better, "
            f"{comparison['worse']} worse",
        ),
    ]


def _differences(results: Mapping[str, Any], shown: Sequence[Shown]) -> list[Shown]:
    """Every entry that both runs scored, the largest difference first."""
    pairs = sorted(results["comparison"]["entries"], key=lambda pair: -abs(pair["difference"]))
    return [
        Shown(
            pair["entry"],
            f"{pair['difference']:+d} ({pair['earlier']} then, {pair['score']} now)",
            shown[pair["entry"] - 1].task,
            {**shown[pair["entry"] - 1].texts, "response then": pair["response_earlier"]},
        )
        for pair in pairs
    ]


def _notes(results: Mapping[str, Any]) -> list[str]:
    summary, notes = results["summary"], []
    if summary["unscored"]:
        notes.append(
            f"unscored entries: {summary['unscored']}; no answer of the judge stated a verdict on "
            "them, so they count neither as 0 nor otherwise"
        )
    if summary["empty"] and results["against"] is None:
        without = summary["mean_without_empty"]
        notes.append(
            f"empty responses: {summary['empty']}; they count with the lowest score, unasked"
            + ("" if without is None else f" (the mean without them is {without:.2f})")
        )
    if summary["empty"] and results["against"] is not None:
        notes.append(
            f"entries with an empty response: {summary['empty']}; it loses, unasked (two such tie)"
        )
    if summary.get("by_order"):
        notes.append(
            f"entries whose verdict changed with the order of the responses: "
            f"{summary['by_order']}; these count as ties"
        )
    if results["prompts_cut"]:
        notes.append(
            f"the question on {numbered(results['prompts_cut'])} filled the judge's context of "
            f"{results['settings']['num_ctx']} tokens, so it saw only a part; see --num-ctx"
        )
    if not results["structured"]:
        notes.append("some answers were not held to a JSON schema, which the server did not take")
    return notes + list(results.get("comparison", {}).get("notes", ()))


def _interval(interval: Sequence[float] | None, form: str = ".2f") -> str:
    if interval is None:
        return ""
    return f" (95% interval {interval[0]:{form}} to {interval[1]:{form}})"


def _inline(text: str) -> str:
    """Text within a line of Markdown, with nothing in it that could be markup."""
    return re.sub(r"([\\`*_<>\[\]|#~&])", r"\\\1", " ".join(text.split()))


def _cell(text: str) -> str:
    """Text of several lines within a table."""
    return "<br>".join(_inline(line) for line in text.strip().split("\n"))


def _fenced(text: str) -> str:
    """Text between fences that are longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
