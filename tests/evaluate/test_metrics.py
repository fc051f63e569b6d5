import math

import numpy as np
import pytest

from groundup.evaluate.metrics import accuracy, class_scores, confusion_matrix


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_scikit_learn_agrees(classes: int, seed: int) -> None:
    """The last class is never predicted, and one before it never there."""
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(seed)
    actual = generator.integers(0, classes, 200)
    if classes > 2:
        actual[actual == 1] = 0
    noise = generator.integers(0, classes - 1, 200)
    called = np.where(generator.random(200) < 0.7, np.minimum(actual, classes - 2), noise)
    labels = list(range(classes))
    matrix = confusion_matrix(actual.tolist(), called.tolist(), classes)
    assert matrix.tolist() == metrics.confusion_matrix(actual, called, labels=labels).tolist()
    assert accuracy(matrix) == pytest.approx(metrics.accuracy_score(actual, called))
    expected = metrics.precision_recall_fscore_support(
        actual, called, labels=labels, zero_division=0
    )
    found = class_scores(matrix, [f"class {label}" for label in labels])
    assert [score.label for score in found] == [f"class {label}" for label in labels]
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [getattr(score, name) for score in found] == pytest.approx(values.tolist()), name
    assert found[-1].precision == 0 and found[-1].support > 0


def test_rows_are_what_texts_are() -> None:
    matrix = confusion_matrix([0, 0, 0, 1], [0, 1, 1, 1], 2)
    assert matrix.tolist() == [[1, 2], [0, 1]]
    ham, spam = class_scores(matrix, ["ham", "spam"])
    assert (ham.precision, ham.recall, ham.f1, ham.support) == (1, 1 / 3, 0.5, 3)
    assert (spam.precision, spam.recall, spam.f1, spam.support) == (1 / 3, 1, 0.5, 1)
    assert accuracy(matrix) == 0.5


def test_without_texts() -> None:
    matrix = confusion_matrix([], [], 3)
    assert matrix.shape == (3, 3) and math.isnan(accuracy(matrix))
    assert {score.f1 for score in class_scores(matrix, list("abc"))} == {0.0}
