"""Labelled texts for classification: reading them, splitting them, and weighing the classes."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.data.columns import cell_text, is_column_name
from groundup.data.lines import Problems
from groundup.data.tables import open_table
from groundup.errors import UserError, first_ten

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with one label each.

    Args:
        texts: as they are in the file.
        labels: the class of each, by name.
        rows: where each comes from: a line, or an entry of a JSON list, counted from 1.
        source: the file.
    """

    texts: list[str]
    labels: list[str]
    rows: list[int]
    source: str

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, indices: Iterable[int]) -> LabelledTexts:
        """Return some of the texts, in the order of ``indices``."""
        chosen = list(indices)
        return LabelledTexts(
            [self.texts[i] for i in chosen],
            [self.labels[i] for i in chosen],
            [self.rows[i] for i in chosen],
            self.source,
        )


@dataclass(frozen=True)
class Splits:
    """Labelled texts in three parts that have no text in common.

    Args:
        train: to learn from.
        validation: to choose by; may be empty.
        test: to judge by; may be empty.
        duplicates: how many texts had occurred before.
        conflicting: how many different texts have several labels.
    """

    train: LabelledTexts
    validation: LabelledTexts
    test: LabelledTexts
    duplicates: int
    conflicting: int


def read_labelled(
    path: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    separator: str | None = None,
) -> LabelledTexts:
    """Read labelled texts from CSV, TSV, JSONL or a JSON list of objects (``.gz`` too).

    Columns are found by their names (``text``, ``message``, …; ``label``, ``class``, …), else by
    what they hold. A file without a header, such as the SMS Spam Collection, has the columns "1",
    "2", and so on. White space around a label does not count; "NA" and "null" are labels and texts
    like any other.

    Args:
        path: the file.
        text_column: the text's column, if it is not found.
        label_column: the label's column, if it is not found.
        separator: of a table, if its suffix and its first lines do not show it.

    Raises:
        UserError: the file cannot be read, rows are bad (all of them are named), a column is not
            there or not clear, or there is only one class. A label that occurs once and is what
            the column is called is a header that was taken for a row, which is bad.
    """
    problems = Problems(str(path))
    with open_table(
        problems,
        text_column=text_column,
        label_column=label_column,
        separator=separator,
        label_needed=True,
    ) as table:
        text, label = table.text_column, table.label_column
        assert label is not None
        texts: list[str] = []
        labels: list[str] = []
        rows: list[int] = []
        for number, row in table.numbered:
            name = " ".join(cell_text(row.get(label)).split())
            if label not in row:
                problems.add(number, f"no key {label!r}")
            elif isinstance(row[label], dict | list):
                problems.add(number, "a label that is neither a text nor a number")
            elif not name:
                problems.add(number, "no label")
            texts.append(row.get(text, ""))
            labels.append(name)
            rows.append(number)
    for name, count in Counter(labels).items():
        place = labels.index(name)
        if count == 1 and is_column_name(name, label, first=place == 0):
            problems.add(rows[place], f"the column's name {name!r} as the label")
    problems.raise_if_any()
    if len(set(labels)) < 2:
        raise UserError(
            f"{path}: all {len(labels)} labels (column {label!r}) are {labels[0]!r}; expected at "
            "least two classes"
        )
    return LabelledTexts(texts, labels, rows, str(path))


def class_names(labels: Iterable[str]) -> list[str]:
    """The different labels in order: numbers by their value, anything else as text."""
    names = set(labels)
    if all(re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", name) for name in names):
        return sorted(names, key=lambda name: (float(name), name))
    return sorted(names)


def class_weights(labels: Sequence[str], names: Sequence[str]) -> list[float]:
    """Weights by which every class counts the same: inverse to its frequency, 1 on average.

    The weight of a class with ``n`` of ``N`` examples among ``K`` classes is ``N / (K n)``, so that
    the mean over the examples is 1.

    Args:
        labels: the label of each example.
        names: the classes.

    Raises:
        UserError: a class has no example, or a label is no class.
    """
    counts = Counter(labels)
    empty = [name for name in names if not counts[name]]
    unknown = [name for name in class_names(counts) if name not in names]
    if empty or unknown:
        raise UserError(
            f"the classes {_listed(names)} do not match the labels: without an example "
            f"{_listed(empty) or 'none'}, unknown {_listed(unknown) or 'none'}"
        )
    return [len(labels) / (len(names) * counts[name]) for name in names]


def balance(data: LabelledTexts, seed: int = 123) -> LabelledTexts:
    """Keep as many examples of every class as the rarest has, drawn at random; in file order."""
    generator = random.Random(seed)
    rarest = min(Counter(data.labels).values())
    chosen: list[int] = []
    for name in class_names(data.labels):
        members = [i for i, label in enumerate(data.labels) if label == name]
        chosen += generator.sample(members, rarest)
    return data.select(sorted(chosen))


def split_labelled(
    data: LabelledTexts,
    *,
    fractions: tuple[float, float] = (0.7, 0.1),
    seed: int = 123,
    stratify: bool = False,
) -> Splits:
    """Shuffle and split into training, validation and test texts.

    Copies of a text (white space around it does not count) all go to the same split: otherwise the
    test would ask for what was learnt by heart.

    Args:
        data: the texts.
        fractions: of the training and the validation split; the test split gets the rest.
        seed: the same seed gives the same split.
        stratify: give each class the same fractions, instead of the texts as a whole.

    Raises:
        UserError: the fractions are none, or a split would be empty or lack a class. A class needs
            as many different texts as there are splits; one that is rare may need ``stratify``.
    """
    shares = _shares(fractions)
    groups: dict[str, list[int]] = {}
    for i, text in enumerate(data.texts):
        groups.setdefault(text.strip(), []).append(i)
    shuffled = list(groups.values())
    random.Random(seed).shuffle(shuffled)
    strata = [data.labels[group[0]] if stratify else "" for group in shuffled]
    sizes: Counter[str] = Counter()
    for stratum, group in zip(strata, shuffled, strict=True):
        sizes[stratum] += len(group)
    room = {stratum: _sizes(size, shares) for stratum, size in sizes.items()}
    parts: list[list[int]] = [[], [], []]
    for stratum, group in zip(strata, shuffled, strict=True):
        left = room[stratum]
        # The first split with room for all copies, else the one with the most room.
        split = next((i for i in range(3) if left[i] >= len(group)), left.index(max(left)))
        left[split] -= len(group)
        parts[split] += group
    empty = [SPLITS[i] for i in range(3) if shares[i] and not parts[i]]
    if empty:
        raise UserError(
            f"{data.source} has too few different texts ({len(groups)}): nothing is left for "
            f"{' and '.join(empty)}; add some, or ask for fewer splits"
        )
    used = {SPLITS[i]: parts[i] for i in range(3) if shares[i]}
    _check_classes(data, shuffled, used, stratify)
    return Splits(
        *map(data.select, parts),
        duplicates=len(data) - len(groups),
        conflicting=sum(len({data.labels[i] for i in group}) > 1 for group in shuffled),
    )


def _shares(fractions: tuple[float, float]) -> tuple[float, float, float]:
    train, validation = fractions
    test = 1.0 - train - validation
    if not (train > 0.0 and validation >= 0.0 and test > -1e-9):
        raise UserError(
            f"the fractions are {train} for training and {validation} for validation; expected "
            "more than 0 and at least 0, together at most 1"
        )
    return train, validation, test if test > 1e-9 else 0.0


def _sizes(count: int, shares: tuple[float, float, float]) -> list[int]:
    """The sizes of the splits, rounded as in the course; one with a share gets at least one."""
    sizes = [int(count * shares[0]), int(count * shares[1]), 0]
    sizes[2 if shares[2] else 1 if shares[1] else 0] += count - sum(sizes)
    for split, share in enumerate(shares):
        if share and not sizes[split]:
            sizes[split] += 1
            sizes[sizes.index(max(sizes))] -= 1
    return sizes


def _check_classes(
    data: LabelledTexts, groups: list[list[int]], splits: dict[str, list[int]], stratify: bool
) -> None:
    """Refuse splits of which one lacks a class.

    Args:
        data: all texts.
        groups: the copies of each text.
        splits: what each split was given.
        stratify: whether every class was split by itself.
    """
    different = Counter(label for group in groups for label in {data.labels[i] for i in group})
    names = class_names(different)
    rare = [f"{name!r} has {different[name]}" for name in names if different[name] < len(splits)]
    if rare:
        raise UserError(
            f"{data.source} has too few different texts of some classes, where each of "
            f"{len(splits)} splits needs one: {first_ten(rare, '; ')}; add examples of them, "
            "leave them out, or ask for fewer splits"
        )
    labels = {split: {data.labels[i] for i in part} for split, part in splits.items()}
    lacking = [
        f"{name!r} (of which there are {different[name]}) is not in {' nor in '.join(absent)}"
        for name in names
        if (absent := [split for split in splits if name not in labels[split]])
    ]
    if lacking:
        advice = "" if stratify else "split every class alike (--stratify), "
        raise UserError(
            f"{data.source} has too few different texts of some classes to draw at random: "
            f"{first_ten(lacking, '; ')}; {advice}add examples of them or take another seed"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
