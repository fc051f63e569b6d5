import math

import pytest

from groundup.train.best import Best


def test_the_lowest_loss_is_the_best() -> None:
    best = Best()
    found = [
        best.update({"step": step, "val_loss": loss})
        for step, loss in enumerate([3.0, 2.0, 2.0, 2.5, 1.5], 1)
    ]
    assert found == [True, True, False, False, True]
    assert (best.step, best.score, best.waited) == (5, [-1.5], 0)


def test_a_classifiers_accuracy_counts_first_and_its_loss_where_that_is_equal() -> None:
    best = Best()
    measured = [(0.8, 1.0), (0.7, 0.1), (0.8, 1.1), (0.8, 0.9), (0.9, 5.0), (0.9, 5.0)]
    found = [
        best.update({"step": step, "val_accuracy": accuracy, "val_loss": loss})
        for step, (accuracy, loss) in enumerate(measured, 1)
    ]
    assert found == [True, False, False, True, True, False]
    assert (best.step, best.score) == (5, [0.9, -5.0])


def test_without_validation_nothing_is_best_and_nothing_waited_for() -> None:
    best = Best()
    assert not best.update({"step": 1, "running_loss": 3.0})
    assert best == Best() and not best.is_stale(1)


@pytest.mark.parametrize("accuracy", [{}, {"val_accuracy": 1.0}])
def test_what_is_no_number_is_never_the_best(accuracy: dict[str, float]) -> None:
    """A run that diverges must not put its last model in the place of its best one."""
    broken = {"val_loss": math.nan} | accuracy
    best = Best()
    assert not best.update({"step": 1} | broken)
    assert best.score is None and best.waited == 1
    assert best.update({"step": 2, "val_loss": 3.0} | accuracy)
    assert not best.update({"step": 3} | broken)
    assert best.update({"step": 4, "val_loss": 2.0} | accuracy)
    assert best.step == 4


def test_patience_counts_evaluations_since_the_best_one() -> None:
    best = Best()
    stale = []
    for step, loss in enumerate([3.0, 3.5, 2.0, 2.1, 2.2, 2.3], 1):
        best.update({"step": step, "val_loss": loss})
        stale.append(best.is_stale(2))
    assert stale == [False, False, False, False, True, True]
    assert not best.is_stale(None) and best.is_stale(3) and not best.is_stale(4)
