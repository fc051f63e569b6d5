"""What a judged run comes to: a score per entry, their mean, and how sure one can be of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from groundup.errors import UserError
from groundup.judge.answers import Answer
from groundup.judge.intervals import CONFIDENCE, bootstrap_interval, wilson_interval
from groundup.judge.responses import Entry, numbered
from groundup.judge.work import Work
from groundup.parsing import from_json

RESULTS = "results.json"

_COMPARED = {
    "judge": "judges",
    "digest": "versions of the judge (digests)",
    "settings": "settings",
    "template": "questions to the judge",
}

Row = dict[str, Any]
"""One entry of ``results.json``."""


def gather(work: Work, run: Mapping[str, Any], answers: Sequence[Answer]) -> dict[str, Any]:
    """What ``results.json`` holds.

    Args:
        work: what was judged.
        run: what was asked of whom, and how; and which files were given.
        answers: the answer to every question.
    """
    settings, judge = run["settings"], run["asked_of"]
    if work.others is None:
        scale = work.template.scale or (0, 100)
        rows = score_rows(work.entries, {answer.entry: answer for answer in answers}, scale)
        summary = score_summary(rows, settings["seed"])
    else:
        by_order = {(answer.entry, answer.order): answer for answer in answers}
        rows = pair_rows(work.entries, work.others, by_order)
        summary = pair_summary(rows)
    full = settings.get("num_ctx", math.inf) - 1
    cut = {answer.entry for answer in answers if (answer.prompt_tokens or 0) >= full}
    told = ("settings", "template", "versions", "responses", "against", "key")
    return {
        **{name: judge.get(name) for name in ("judge", "digest", "base_url")},
        "server_version": run.get("server_version"),
        **{name: run[name] for name in told},
        "structured": all(answer.structured for answer in answers if answer.texts),
        "prompts_cut": sorted(cut),
        "summary": summary,
        "entries": rows,
    }


def score_rows(
    entries: Sequence[Entry], answers: Mapping[int, Answer], scale: tuple[int, int]
) -> list[Row]:
    """One row per entry, in order; ``score`` is None where the judge gave none.

    An empty response was not shown to the judge: it has the lowest score.
    """
    rows = []
    for entry in entries:
        answer = answers.get(entry.number)
        score = scale[0] if entry.empty else answer.verdict if answer else None
        first = {"entry": entry.number, "score": score, "empty": entry.empty}
        rows.append(first | _task(entry) | {"response": entry.response} | _told(answer))
    return rows


def score_summary(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """Mean, median and interval over the entries that have a score, and how many have none."""
    scores = [row["score"] for row in rows if row["score"] is not None]
    answered = [row["score"] for row in rows if row["score"] is not None and not row["empty"]]
    return {
        **_counts(rows, scores),
        "mean": fmean(scores) if scores else None,
        "mean_without_empty": fmean(answered) if answered else None,
        "median": median(scores) if scores else None,
        "interval": bootstrap_interval(scores, seed),
        "confidence": CONFIDENCE,
    }


def pair_rows(
    entries: Sequence[Entry], others: Sequence[Entry], answers: Mapping[tuple[int, str], Answer]
) -> list[Row]:
    """One row per entry: who won, A or B, asked in both orders.

    If the two orders disagree, the judge went by the order and not by the responses: a tie. An
    empty response loses against one that is not, unasked.
    """
    rows = []
    for entry, other in zip(entries, others, strict=True):
        asked = {order: answers.get((entry.number, order)) for order in ("AB", "BA")}
        verdict, swapped = (answer and answer.verdict for answer in asked.values())
        swapped = {"A": "B", "B": "A"}.get(str(swapped), swapped)
        by_order = None not in (verdict, swapped) and swapped != verdict
        if entry.empty or other.empty:
            winner = "tie" if entry.empty and other.empty else "B" if entry.empty else "A"
        else:
            winner = None if None in (verdict, swapped) else "tie" if by_order else verdict
        rows.append(
            {
                "entry": entry.number,
                "winner": winner,
                "by_order": by_order,
                "empty": entry.empty or other.empty,
                **_task(entry),
                "response_a": entry.response,
                "response_b": other.response,
                "orders": {order: _told(answer) for order, answer in asked.items()},
            }
        )
    return rows


def pair_summary(rows: Sequence[Row]) -> dict[str, Any]:
    """How often A won; a tie is half a win."""
    winners = [row["winner"] for row in rows if row["winner"] is not None]
    wins, ties = winners.count("A"), winners.count("tie")
    score = wins + ties / 2
    return {
        **_counts(rows, winners),
        "wins": wins,
        "losses": winners.count("B"),
        "ties": ties,
        "by_order": sum(row["by_order"] for row in rows),
        "win_rate": score / len(winners) if winners else None,
        "interval": wilson_interval(score, len(winners)),
        "confidence": CONFIDENCE,
    }


def read_earlier(run: Path, entries: Sequence[Entry], scale: tuple[int, int]) -> dict[str, Any]:
    """Read the results of an earlier run, whose scores ours can be set against.

    Args:
        run: its directory.
        entries: what we judge.
        scale: the scale that we judge on.

    Raises:
        UserError: it holds no scores, or those of other tasks, or on another scale.
    """
    path = run / RESULTS if run.is_dir() else run
    try:
        results = from_json(path.read_bytes())
        rows, theirs = results["entries"], tuple(results["template"]["scale"])
        tasks = [(row["instruction"], row["input"]) for row in rows]
        if not all({"score", "response"} <= set(row) for row in rows):
            raise KeyError
    except FileNotFoundError:
        raise UserError(
            f"{run} holds no finished run of `groundup judge` ({path.name} is missing)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is not what a run of `groundup judge` that gives scores has written"
        ) from None
    if theirs != scale:
        raise UserError(f"{run} was judged on the scale {theirs}, this run is on {scale}")
    if len(rows) != len(entries):
        raise UserError(
            f"{run} has {len(rows)} entries, these responses are {len(entries)}; "
            "only runs over the same tasks can be compared"
        )
    pairs = zip(entries, tasks, strict=True)
    differ = [entry.number for entry, task in pairs if (entry.instruction, entry.input) != task]
    if differ:
        raise UserError(
            f"{run} was run over other tasks: the instruction or the input differs in "
            f"{numbered(differ)}"
        )
    return results


def compare(results: Mapping[str, Any], run: Path, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Set our scores against an earlier run's, entry by entry.

    Only entries that both have a score for count; the interval is that of the mean difference over
    these pairs.
    """
    pairs = [
        {
            "entry": ours["entry"],
            "score": ours["score"],
            "earlier": theirs["score"],
            "difference": ours["score"] - theirs["score"],
            "response_earlier": theirs["response"],
        }
        for ours, theirs in zip(results["entries"], earlier["entries"], strict=True)
        if ours["score"] is not None and theirs["score"] is not None
    ]
    differences = [pair["difference"] for pair in pairs]
    notes = [
        f"the two runs have different {what}, which alone can make the difference"
        for name, what in _COMPARED.items()
        if earlier.get(name) != results[name]
    ]
    return {
        "with": str(run),
        "pairs": len(pairs),
        "mean_difference": fmean(differences) if differences else None,
        "interval": bootstrap_interval(differences, results["settings"]["seed"]),
        "better": sum(difference > 0 for difference in differences),
        "worse": sum(difference < 0 for difference in differences),
        "notes": notes,
        "entries": pairs,
    }


def _counts(rows: Sequence[Row], verdicts: Sequence[Any]) -> dict[str, int]:
    return {
        "entries": len(rows),
        "scored": len(verdicts),
        "unscored": len(rows) - len(verdicts),
        "empty": sum(row["empty"] for row in rows),
    }


def _task(entry: Entry) -> Row:
    return {
        "instruction": entry.instruction,
        "input": entry.input,
        "reference": entry.reference,
    }


def _told(answer: Answer | None) -> Row:
    """What the judge said, for the record."""
    if answer is None:
        return {"answers": [], "attempts": 0, "seconds": 0.0, "prompt_tokens": None, "note": ""}
    return {
        "answers": answer.texts,
        "attempts": len(answer.texts),
        "seconds": answer.seconds,
        "prompt_tokens": answer.prompt_tokens,
        "structured": answer.structured,
        "note": answer.note,
    }
