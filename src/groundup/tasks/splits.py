"""The splits of labelled texts that a classifier's run makes, and reports on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from groundup.data.classification import (
    LabelledTexts,
    Splits,
    balance,
    class_names,
    read_labelled,
    split_labelled,
)
from groundup.data.sources import data_file
from groundup.data.text import fingerprint
from groundup.errors import UserError
from groundup.evaluate.classification_report import Report, evaluate_classifier
from groundup.evaluate.classifier import Classifier
from groundup.facts import Facts
from groundup.tasks.config import ClassifyConfig

Part = Literal["train", "validation", "test", "all"]


def read_texts(path: str | Path, config: ClassifyConfig) -> LabelledTexts:
    """Read labelled texts from the columns that the options name."""
    return read_labelled(
        path,
        text_column=config.text_column,
        label_column=config.label_column,
        separator=config.separator,
    )


def labelled_fingerprint(data: LabelledTexts) -> str:
    """A SHA-256 of the texts and labels, to tell whether the splits would be the same."""
    return fingerprint([*data.texts, *data.labels])


def split_for(data: LabelledTexts, config: ClassifyConfig) -> Splits:
    """The run's splits: cut first, then each balanced by itself, the test split left whole.

    Raises:
        UserError: a class has too few texts for them.
    """
    splits = split_labelled(
        data,
        fractions=(config.train_ratio, config.val_ratio),
        seed=config.seed,
        stratify=config.stratify,
    )
    if config.balance != "undersample":
        return splits
    validation = splits.validation  # none, if it was given no share
    return replace(
        splits,
        train=balance(splits.train, config.seed),
        validation=balance(validation, config.seed) if validation.texts else validation,
    )


def report_on(classifier: Classifier, splits: Splits, config: ClassifyConfig) -> list[Report]:
    """Reports on the test split: with as many texts of every class, and as it is."""
    if not splits.test.texts:
        return []
    reports = [evaluate_classifier(classifier, splits.test, "test split")]
    if len(set(Counter(splits.test.labels).values())) > 1:
        balanced = balance(splits.test, config.seed)
        reports.insert(0, evaluate_classifier(classifier, balanced, "balanced test split"))
    return reports


def describe(splits: Splits, data: LabelledTexts) -> str:
    """What the splits hold, and what was found on the way, for people."""
    lines = [
        f"texts: {len(data.texts):,} in {data.source}"
        + (f", {splits.duplicates:,} of them repeated" if splits.duplicates else "")
    ]
    if splits.conflicting:
        lines.append(f"note: {splits.conflicting:,} repeated texts have more than one label")
    for name in ("train", "validation", "test"):
        part: LabelledTexts = getattr(splits, name)
        counts = Counter(part.labels)
        shown = ", ".join(f"{counts[label]:,} {label}" for label in class_names(data.labels))
        lines.append(f"  {name:<10} {len(part.texts):>6,}: {shown}")
    return "\n".join(lines)


def reports_on_file(
    classifier: Classifier,
    facts: Facts,
    model: str,
    data: str | None,
    part: Part | None,
    columns: dict[str, str],
    say: Callable[[str], None],
) -> list[Report]:
    """Reports on a file of labelled texts, or on what a classifier was trained on.

    Args:
        classifier: the classifier.
        facts: what its directory says: how its data was split.
        model: what the user calls it.
        data: the file, or a data set by name; without one, what it was trained on.
        part: of the data; without one, all of ``data``, or the test split of what it was trained
            on.
        columns: which columns hold what, where the user has said so.
        say: told what may not be as expected about the split.

    Raises:
        UserError: the data cannot be read or has changed, or the part is empty.
    """
    trained = facts.options_of(ClassifyConfig) if facts.task == ClassifyConfig.TASK else None
    if data is None and trained is None:
        raise UserError(f"{model} does not say what it was trained on; name texts with --data")
    kept = trained if data is None and trained is not None else ClassifyConfig()
    texts = read_texts(data_file(data or kept.data), replace(kept, **columns))
    wanted = part or ("all" if data else "test")
    if wanted == "all":
        return [evaluate_classifier(classifier, texts, "all texts")]
    if facts.data.sha256 != labelled_fingerprint(texts):
        if data is None:
            raise UserError(
                f"{kept.data} has changed since {model} was trained on it, so which texts "
                "it has not seen is not known; name texts with --data"
            )
        say(f"note: {data} is not what {model} was trained on; it is split in the same way")
    config = trained or ClassifyConfig()
    splits = split_for(texts, config)
    chosen = {"train": splits.train, "validation": splits.validation, "test": splits.test}[wanted]
    if not chosen.texts:
        raise UserError(
            f"the {wanted} split is empty: the run gave it no share of the texts; name another "
            "--split, or other texts with --data"
        )
    if wanted == "test":
        return report_on(classifier, splits, config)
    return [evaluate_classifier(classifier, chosen, f"{wanted} split")]
