"""The report on a classifier: the figures, the confusion matrix, the worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.classification import LabelledTexts
from groundup.errors import UserError, did_you_mean
from groundup.evaluate.classifier import Classifier, probabilities
from groundup.evaluate.metrics import ClassScores, accuracy, class_scores, confusion_matrix
from groundup.files import JsonLines, atomic_update, write_json
from groundup.output import inline
from groundup.plots import plot_confusion

PREDICTIONS = "predictions.jsonl"
"""The file of a report with every text."""


@dataclass(frozen=True)
class Mistake:
    """A text that the classifier takes for what it is not."""

    row: int  # in its file, from 1
    text: str
    label: str
    predicted: str
    probability: float  # of the wrong label


@dataclass(frozen=True)
class Called:
    """A text with what it is, and how likely the classifier thinks each class."""

    row: int  # in its file, from 1
    text: str
    label: str
    probabilities: list[float]  # in the order of the labels


@dataclass(frozen=True)
class Report:
    """What was found on one set of texts.

    Attributes:
        title: which texts.
        labels: the classes.
        matrix: how many texts of class ``i`` were called class ``j``.
        accuracy: share of the texts that were called what they are.
        classes: precision, recall and F1 of every class.
        mistakes: the most confident ones, the worst first.
        truncated: number of texts that were longer than the classifier looks at.
        called: every text.
    """

    title: str
    labels: list[str]
    matrix: list[list[int]]
    accuracy: float
    classes: list[ClassScores]
    mistakes: list[Mistake]
    truncated: int
    called: list[Called] = field(default_factory=list, repr=False)

    @property
    def count(self) -> int:
        """Number of texts."""
        return sum(map(sum, self.matrix))


def evaluate_classifier(
    classifier: Classifier, data: LabelledTexts, title: str, *, show: int = 10
) -> Report:
    """Classify texts whose labels are known.

    Args:
        classifier: the classifier.
        data: the texts.
        title: what they are, for the report.
        show: how many mistakes to keep.

    Raises:
        UserError: a label is not among the classifier's.
    """
    classes = class_numbers(data, classifier.labels)
    tokens = classifier.encode(data.texts, classes)
    found = probabilities(classifier.model, tokens)
    confidence, called = (part.tolist() for part in found.max(dim=-1))
    matrix = confusion_matrix(classes, called, len(classifier.labels))
    wrong = [i for i in range(len(classes)) if called[i] != classes[i]]
    wrong.sort(key=lambda i: -confidence[i])
    mistakes = [
        Mistake(
            data.rows[i],
            data.texts[i],
            data.labels[i],
            classifier.labels[called[i]],
            round(confidence[i], 6),
        )
        for i in wrong[:show]
    ]
    return Report(
        title,
        classifier.labels,
        matrix.tolist(),
        accuracy(matrix),
        class_scores(matrix, classifier.labels),
        mistakes,
        tokens.truncated,
        [
            Called(row, text, label, [round(p, 6) for p in found[i].tolist()])
            for i, (row, text, label) in enumerate(
                zip(data.rows, data.texts, data.labels, strict=True)
            )
        ],
    )


def class_numbers(data: LabelledTexts, labels: Sequence[str]) -> list[int]:
    """The number of each text's class.

    Raises:
        UserError: a label is not among ``labels``; all such are named with a row.
    """
    numbers = {label: index for index, label in enumerate(labels)}
    where = dict(zip(data.labels, data.rows, strict=True))
    unknown = {label: row for label, row in where.items() if label not in numbers}
    if unknown:
        named = ", ".join(f"{label!r} (row {row})" for label, row in list(unknown.items())[:10])
        hint = did_you_mean(next(iter(unknown)), labels) or ";"
        raise UserError(
            f"{data.source} has labels that the model does not know: {named}{hint} "
            f"it knows {', '.join(labels)}"
        )
    return [numbers[label] for label in data.labels]


def write_report(reports: Sequence[Report], directory: Path) -> None:
    """Write ``report.json``, ``report.md`` and a picture of each confusion matrix.

    And ``predictions.jsonl``: how likely each class is for every text of the longest report.

    Raises:
        UserError: they cannot be written.
    """
    with atomic_update(directory) as folder:
        write_json(folder / "report.json", {"reports": [_facts(report) for report in reports]})
        text = "\n".join(markdown(report) for report in reports)
        (folder / "report.md").write_text(text, encoding="utf-8", newline="\n")
        for report in reports:
            figure = plot_confusion(
                np.array(report.matrix), report.labels, report.title, show=False
            )
            figure.savefig(folder / _picture(report), dpi=150)
        longest = max(reports, key=lambda report: report.count)
        JsonLines(folder / PREDICTIONS).rewrite(map(asdict, longest.called))


def markdown(report: Report) -> str:
    """The report as Markdown, with the picture that :func:`write_report` makes."""
    lines = [
        f"## {report.title}",
        "",
        f"{report.count:,} texts, accuracy {report.accuracy:.2%}"
        + (f"; {report.truncated:,} were longer than the model reads" if report.truncated else ""),
        "",
        "| class | precision | recall | F1 | texts |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {inline(c.label)} | {c.precision:.2%} | {c.recall:.2%} | {c.f1:.2%} "
            f"| {c.support:,} |"
            for c in report.classes
        ),
        "",
        f"![confusion matrix]({_picture(report)})",
        "",
    ]
    if report.mistakes:
        lines += [
            "The most confident mistakes:",
            "",
            "| row | is | was called | probability | text |",
            "| ---: | --- | --- | ---: | --- |",
            *(
                f"| {m.row} | {inline(m.label)} | {inline(m.predicted)} | {m.probability:.1%} "
                f"| {inline(m.text)} |"
                for m in report.mistakes
            ),
            "",
        ]
    return "\n".join(lines)


def _facts(report: Report) -> dict[str, Any]:
    told = {"count": report.count} | asdict(report)
    del told["called"]
    return told


def _picture(report: Report) -> str:
    return f"confusion-{report.title.replace(' ', '-')}.png"
