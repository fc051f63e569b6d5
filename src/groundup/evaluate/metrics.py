"""How good a classifier is: accuracy, precision, recall, F1, and what is mistaken for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassScores:
    """How well one class is told from all others.

    Attributes:
        label: the class.
        precision: share of the texts called so that are so; 0 if none is called so.
        recall: share of the texts that are so that are called so; 0 if there is none.
        f1: harmonic mean of the two.
        support: number of texts that are so.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int


def confusion_matrix(actual: Sequence[int], predicted: Sequence[int], size: int) -> np.ndarray:
    """Count the texts of class ``i`` that were called class ``j``: ``(size, size)``."""
    matrix = np.zeros((size, size), dtype=np.int64)
    np.add.at(matrix, (np.asarray(actual, int), np.asarray(predicted, int)), 1)
    return matrix


def accuracy(matrix: np.ndarray) -> float:
    """Share of the texts that were called what they are; NaN without texts."""
    return float(matrix.trace() / matrix.sum()) if matrix.sum() else float("nan")


def class_scores(matrix: np.ndarray, labels: Sequence[str]) -> list[ClassScores]:
    """Precision, recall and F1 of every class."""
    found = []
    for index, label in enumerate(labels):
        right, called, there = (
            int(n) for n in (matrix[index, index], matrix[:, index].sum(), matrix[index].sum())
        )
        found.append(
            ClassScores(
                label,
                right / called if called else 0.0,
                right / there if there else 0.0,
                2 * right / (called + there) if right else 0.0,
                there,
            )
        )
    return found
