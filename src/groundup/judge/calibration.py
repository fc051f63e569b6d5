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
from groundup.judge.results import pair_rows, pair_summary
from groundup.judge.scoring import VERDICTS, Template
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
            "a calibration needs tasks with different references; "
            f"{len(usable)} of the {len(tasks)} given have one, and those of the {count} chosen "
            "do not differ; give more tasks, or a larger --calibration-tasks"
        )
    said = [task.reference for task in chosen], _shuffled(chosen, seed), [NEAR_EMPTY] * count
    groups = [
        [replace(task, response=response) for task, response in zip(chosen, kind, strict=True)]
        for kind in said
    ]
    if pairwise:
        return Work(_numbered(groups[0]), _numbered(groups[1]), template)
    by_task = [entry for entries in zip(*groups, strict=True) for entry in entries]
    return Work(_numbered(by_task), None, template)


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
    told, won = (_of_scores if work.others is None else _of_pairs)(work, answers)
    interval = wilson_interval(won, told["compared"])
    told |= {
        "right": won / told["compared"] if told["compared"] else None,
        "interval": interval,
        "can_tell": interval is not None and interval[0] > 0.5,
        "asked": len(answers),
        "unscored": sum(answer.verdict is None for answer in answers),
    }
    return told | {"verdict": _verdict(told)}


def _of_scores(work: Work, answers: Sequence[Answer]) -> tuple[dict[str, Any], float]:
    """What only scores tell, and how often the reference won."""
    scores: dict[int, Any] = {answer.entry: answer.verdict for answer in answers}
    found = [scores[entry.number] for entry in work.entries]
    tasks = [found[start : start + len(KINDS)] for start in range(0, len(found), len(KINDS))]
    duels = [task[:2] for task in tasks if None not in task[:2]]
    by_kind = zip(KINDS, zip(*tasks, strict=True), strict=True)
    kept = {kind: [x for x in scores if x is not None] for kind, scores in by_kind}
    given = [score for scores in kept.values() for score in scores]
    worth = [float(kind == KINDS[0]) for kind, scores in kept.items() for _ in scores]
    told = {
        "tasks": len(tasks),
        "compared": len(duels),
        "means": {kind: fmean(scores) if scores else None for kind, scores in kept.items()},
        "scored": {kind: len(scores) for kind, scores in kept.items()},
        "correlation": rank_correlation(given, worth),
        "scores": {str(score): count for score, count in sorted(Counter(given).items())},
    }
    return told, sum((right > wrong) + (right == wrong) / 2 for right, wrong in duels)


def _of_pairs(work: Work, answers: Sequence[Answer]) -> tuple[dict[str, Any], float]:
    """What only pairs tell, and how often the reference won."""
    by_order = {(answer.entry, answer.order): answer for answer in answers}
    pairs = pair_summary(pair_rows(work.entries, work.others or (), by_order))
    said = Counter(answer.verdict for answer in answers)
    told = {
        "tasks": len(work.entries),
        "compared": pairs["scored"],
        "said": {verdict: said[verdict] for verdict in VERDICTS},
        "by_order": pairs["by_order"],
    }
    return told, pairs["wins"] + pairs["ties"] / 2


def _verdict(told: Mapping[str, Any]) -> str:
    rate, right = "no usable answer", told["right"] or 0.0
    if told["right"] is not None:
        low, high = told["interval"]
        rate = f"{right:.2f} of {told['compared']}, interval {low:.2f} to {high:.2f}"
    can = "can't" if not told["can_tell"] else "can barely" if right < BARELY else "can"
    useless = "" if told["can_tell"] else "verdicts" if "said" in told else "scores"
    return f"this judge {can} tell references from other tasks' answers ({rate})" + (
        f": its {useless} mean nothing" if useless else ""
    )


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


def _numbered(entries: Sequence[Entry]) -> list[Entry]:
    return [replace(entry, number=number) for number, entry in enumerate(entries, 1)]
