"""The report of a judged run: one object, which ``written.py`` writes as Markdown and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from groundup.judge.responses import numbered

EXTREMES = 5
"""How many of the best and of the worst answers are shown."""

Bars = list[tuple[str, int]]
"""Labels and counts."""


@dataclass(frozen=True)
class Shown:
    """An answer as the reports show it: a verdict, the task, and texts side by side.

    Attributes:
        value: the verdict: a score, a winner, or None.
        words: what there is to say about it.
    """

    entry: int
    value: Any
    words: str
    task: str
    texts: dict[str, str]

    @property
    def cells(self) -> list[str]:
        """A row of a table."""
        return [str(self.entry), self.words, self.task, *self.texts.values()]


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


def describe(results: Mapping[str, Any]) -> dict[str, Any]:
    """What both forms of a report say.

    Returns:
        ``title``; ``facts``: the figures, by what they are; ``notes``: what a reader must know to
        trust them; ``bars``: the distribution of ``counted``; ``groups``: answers (:class:`Shown`)
        under their headings; ``rows``: every entry; ``question``: the prompt template.
    """
    pairwise = results["against"] is not None
    rows = [_shown(row, pairwise) for row in results["entries"]]
    verdicts = [row.value for row in rows if row.value is not None]
    if pairwise:
        bars = [(name, verdicts.count(name)) for name in ("A", "tie", "B")]
        groups = {
            f"{name} is better": [row for row in rows if row.value == name][:EXTREMES]
            for name in ("A", "B")
        }
    else:
        bars = bins(verdicts, *results["template"]["scale"])
        groups = _extremes(rows)
    groups["Unscored"] = [row for row in rows if row.value is None]
    if "comparison" in results:
        groups["Differences"] = _differences(results["comparison"], rows)
    return {
        "title": "Which response is better" if pairwise else "Scores of the responses",
        "counted": "entries" if pairwise else "scores",
        "facts": _facts(results),
        "notes": _notes(results),
        "bars": bars,
        "groups": [(heading, group) for heading, group in groups.items() if group],
        "rows": rows,
        "question": results["template"]["prompt"],
    }


def bins(scores: Sequence[int], low: int, high: int) -> Bars:
    """Count scores: each by itself on a short scale, else in ten ranges."""
    width = 1 if high - low < 12 else -(-(high - low) // 10)
    starts = list(range(low, high + 1, width))
    if width > 1 and high - starts[-1] < width - 1 and len(starts) > 1:
        starts.pop()  # 100 belongs to the last range, 90 to 100, and is none of its own
    counts = np.histogram(scores, [*starts, high + 1])[0].tolist()
    ends = [start - 1 for start in starts[1:]] + [high]
    labels = [f"{a}" if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True)]
    return list(zip(labels, counts, strict=True))


def _shown(row: Mapping[str, Any], pairwise: bool) -> Shown:
    value = row["winner" if pairwise else "score"]
    if value is None:
        said = [x["answers"] for x in row["orders"].values()] if pairwise else row["answers"]
        words = f"unscored ({row.get('note') or f'the judge said {said}'})"
    elif row["empty"]:
        words = f"{value} (empty response, not asked)"
    else:
        words = f"{value} (the order decided)" if row.get("by_order") else str(value)
    task = row["instruction"] + (f"\n\n{row['input']}" if row["input"] else "")
    names = ("reference", "response_a", "response_b") if pairwise else ("reference", "response")
    texts = {name.replace("_a", " A").replace("_b", " B"): row[name] for name in names}
    return Shown(row["entry"], value, words, task, texts)


def _extremes(rows: Sequence[Shown]) -> dict[str, list[Shown]]:
    """The best and the worst; no entry is in both."""
    scored = [row for row in rows if row.value is not None]
    scored.sort(key=lambda row: -row.value)  # stable: equal scores stay in the file's order
    half = (len(scored) + 1) // 2
    worst = scored[max(half, len(scored) - EXTREMES) :]
    return {"Best answers": scored[: min(half, EXTREMES)], "Worst answers": worst[::-1]}


def _differences(comparison: Mapping[str, Any], rows: Sequence[Shown]) -> list[Shown]:
    """Every entry that both runs scored, the largest difference first."""
    pairs = sorted(comparison["entries"], key=lambda pair: -abs(pair["difference"]))
    return [
        replace(
            rows[pair["entry"] - 1],
            words=f"{pair['difference']:+d} ({pair['earlier']} then, {pair['score']} now)",
            texts=rows[pair["entry"] - 1].texts | {"response then": pair["response_earlier"]},
        )
        for pair in pairs
    ]


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("result", headline(results))]
    if (compared := results.get("comparison")) and not compared["pairs"]:
        facts.append(("compared with", f"{compared['with']}: no entry has a score in both runs"))
    elif compared:
        mean = f"{compared['mean_difference']:+.2f}{_interval(compared['interval'], '+.2f')}"
        counts = f"{compared['better']} better, {compared['worse']} worse"
        facts += [
            ("compared with", compared["with"]),
            ("mean difference", f"{mean} over {compared['pairs']} entries: {counts}"),
        ]
    if calibrated := results.get("calibration"):
        verdict = f"{calibrated['verdict']}; {calibrated['details']}"
        facts.append(("calibration", f"{verdict} ({calibrated['from']})"))
    else:
        facts.append(("calibration", "none; --calibrate tells whether to believe this judge"))
    if results["against"] is None:
        facts.append(("responses", results["responses"]))
    else:
        facts += [("A", results["responses"]), ("B", results["against"])]
    facts += [
        ("judge", results["judge"]),
        ("digest", results["digest"] or "the server tells none"),
        ("settings", ", ".join(f"{k} {v}" for k, v in results["settings"].items())),
        ("versions", ", ".join(f"{k} {v}" for k, v in results["versions"].items())),
        ("server", results["base_url"]),
        ("version of the server", results["server_version"]),
    ]
    return [(label, value) for label, value in facts if value]


def _notes(results: Mapping[str, Any]) -> list[str]:
    summary, notes = results["summary"], []
    if "calibration" in results and not results["calibration"]["can_tell"]:
        notes.append(f"warning: {results['calibration']['verdict']}")
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
