"""Can a judge tell right from wrong? Answers of known worth, and what it makes of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from groundup.errors import UserError
from groundup.judge.answers import Answer
from groundup.judge.intervals import wilson_interval
from groundup.judge.responses import Entry
from groundup.judge.results import pair_rows, pair_summary, score_rows
from groundup.judge.scoring import Template
from groundup.judge.work import Work
from groundup.parsing import read_json

CALIBRATION = "calibration.json"

KINDS = ("reference", "shuffled", "near-empty")
"""The right answer, another task's, and one that says nothing."""

NEAR_EMPTY = "."
"""An answer without a character gets the lowest score unasked, which would say nothing."""

BARELY = 0.75
"""Whoever tells another task's answer from the right one less often has hardly read them."""


def calibration_work(
    tasks: Sequence[Entry], template: Template, count: int, seed: int, *, pairwise: bool
) -> Work:
    """Answers of known worth to so many of the tasks, evenly spaced.

    Returns:
        Three entries per task, of :data:`KINDS`, one after the other; or, to compare, the
        reference (A) and the shuffled one (B) of each task.

    Raises:
        UserError: fewer than two tasks have references, or all have the same.
    """
    usable = [task for task in tasks if task.reference.strip()]
    count = min(count, len(usable))
    places = np.linspace(0, max(0, len(usable) - 1), count).round().astype(int)
    chosen = [usable[place] for place in places.tolist()]
    if len({_said(task) for task in chosen}) < 2:
        raise UserError(
            "a calibration needs tasks with different reference answers; "
            f"{len(usable)} of the {len(tasks)} given have one, and the {len(chosen)} chosen do "
            "not differ; give a file with more tasks, or a larger --calibration-tasks"
        )
    answers: list[tuple[Entry, tuple[str, ...]]] = [
        (task, (task.reference, wrong, NEAR_EMPTY))
        for task, wrong in zip(chosen, _shuffled(chosen, seed), strict=True)
    ]
    if pairwise:
        groups = [
            [replace(task, number=n, response=x[kind]) for n, (task, x) in enumerate(answers, 1)]
            for kind in (0, 1)
        ]
        return Work(groups[0], groups[1], template)
    flat = [replace(task, response=response) for task, said in answers for response in said]
    entries = [replace(entry, number=number) for number, entry in enumerate(flat, 1)]
    return Work(entries, None, template)


def summarize(work: Work, answers: Sequence[Answer]) -> dict[str, Any]:
    """What the answers to :func:`calibration_work` say about the judge.

    Returns:
        ``tasks``; ``right``: how often the reference beat the shuffled one of the same task, ties
        counted half, in ``compared`` tasks, with its 95% ``interval``; ``can_tell``: whether that
        is surely more than half; ``unscored``: questions without a usable answer, of ``asked``;
        ``verdict``: a sentence. Of scores also ``means`` and ``scored`` by kind, ``correlation``
        (:func:`rank_correlation` of the scores with being right), ``scores`` (how often each was
        given); of pairs ``said`` (A, B and tie, in both orders) and ``by_order``, the pairs whose
        verdict changed with the order.
    """
    if work.others is not None:
        by_order = {(answer.entry, answer.order): answer for answer in answers}
        pairs = pair_summary(pair_rows(work.entries, work.others, by_order))
        won, compared = pairs["wins"] + pairs["ties"] / 2, pairs["scored"]
        said = Counter(answer.verdict for answer in answers)
        told = {
            "tasks": len(work.entries),
            "said": {verdict: said[verdict] for verdict in ("A", "B", "tie")},
            "by_order": pairs["by_order"],
        }
    else:
        scale = work.template.scale or (0, 100)
        rows = score_rows(work.entries, {answer.entry: answer for answer in answers}, scale)
        scores = [row["score"] for row in rows]
        by_kind = {kind: scores[place :: len(KINDS)] for place, kind in enumerate(KINDS)}
        duels = [
            (right > wrong) + (right == wrong) / 2
            for right, wrong in zip(by_kind["reference"], by_kind["shuffled"], strict=True)
            if None not in (right, wrong)
        ]
        won, compared = sum(duels), len(duels)
        kept = {kind: [x for x in found if x is not None] for kind, found in by_kind.items()}
        told = {
            "tasks": len(rows) // len(KINDS),
            "means": {kind: fmean(found) if found else None for kind, found in kept.items()},
            "scored": {kind: len(found) for kind, found in kept.items()},
            "correlation": rank_correlation(
                [x for found in kept.values() for x in found],
                [float(kind == KINDS[0]) for kind, found in kept.items() for _ in found],
            ),
            "scores": {str(x): n for x, n in sorted(Counter(sum(kept.values(), [])).items())},
        }
    interval = wilson_interval(won, compared)
    told |= {
        "right": won / compared if compared else None,
        "compared": compared,
        "interval": interval,
        "can_tell": interval is not None and interval[0] > 0.5,
        "asked": len(answers),
        "unscored": sum(answer.verdict is None for answer in answers),
    }
    return told | {"verdict": _verdict(told)}


def _verdict(told: Mapping[str, Any]) -> str:
    what = "references from other tasks' answers"
    useless = "verdicts" if "said" in told else "scores"
    if told["right"] is None:
        return f"this judge can't tell {what} (no usable answer): its {useless} mean nothing"
    low, high = told["interval"]
    rate = f"({told['right']:.2f} of {told['compared']}, interval {low:.2f} to {high:.2f})"
    if not told["can_tell"]:
        return f"this judge can't tell {what} {rate}: its {useless} mean nothing"
    return f"this judge can {'barely ' if told['right'] < BARELY else ''}tell {what} {rate}"


def details(summary: Mapping[str, Any]) -> str:
    """What lies behind the verdict, in one line."""
    parts = []
    if "said" in summary:
        said = ", ".join(f"{verdict} {count}" for verdict, count in summary["said"].items())
        changed = f"{summary['by_order']} of {summary['compared']} pairs changed with the order"
        parts += [f"said, whatever stood there: {said}", changed]
    else:
        means = [
            f"{kind} {'none' if mean is None else format(mean, '.1f')}"
            for kind, mean in summary["means"].items()
        ]
        distinct, related = len(summary["scores"]), summary["correlation"]
        parts += [
            f"mean scores: {', '.join(means)}",
            "rank correlation " + ("none" if related is None else format(related, ".2f")),
            f"{distinct} different score{'' if distinct == 1 else 's'}"
            + (f" ({', '.join(summary['scores'])})" if 0 < distinct < 6 else ""),
        ]
    if summary["unscored"]:
        parts.append(f"{summary['unscored']} of {summary['asked']} answers stated none")
    return "; ".join(parts)


def rank_correlation(scores: Sequence[float], worth: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None if either is always the same."""
    import pandas as pd

    if len(set(scores)) < 2 or len(set(worth)) < 2:
        return None
    return float(pd.Series(scores).rank().corr(pd.Series(worth).rank()))


def find_calibration(folder: Path, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The calibration of the judge, the question and the settings that a run has, if there is one.

    It is looked for in the run's directory, then in those beside it, which judged other responses.
    """
    folder = folder.resolve()
    for path in (folder / CALIBRATION, *sorted(folder.parent.glob(f"*/{CALIBRATION}"))):
        try:
            found = read_json(path)
            if all(found[name] == run[name] for name in ("asked_of", "settings", "template")):
                told = {name: found["summary"][name] for name in ("verdict", "can_tell")}
                behind = details(found["summary"])
                return {"from": f"{path.parent.name}/{path.name}", **told, "details": behind}
        except (OSError, UserError, KeyError, TypeError, ValueError, AttributeError):
            continue  # none, or nobody's business here
    return None


def _shuffled(tasks: Sequence[Entry], seed: int) -> list[str]:
    """For each task the reference of another, never one that says the same."""
    order = list(range(len(tasks)))
    random.Random(seed).shuffle(order)
    wrong = [""] * len(tasks)
    for place, task in enumerate(order):
        others = (tasks[other] for other in order[place + 1 :] + order[:place])
        wrong[task] = next(x.reference for x in others if _said(x) != _said(tasks[task]))
    return wrong


def _said(task: Entry) -> str:
    return " ".join(task.reference.split()).casefold()
