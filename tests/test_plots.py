from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.plots import plot_losses, plot_run
from groundup.train.tracking import MetricsFile


def test_losses_are_drawn_against_epochs_and_tokens() -> None:
    figure = plot_losses([0, 1, 2], [0, 500, 1000], [3.0, 2.0, 1.0], [3.5, 3.0, 2.9])
    axes = figure.axes[0]
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}  # pyright: ignore
    assert drawn == {"training loss": [3.0, 2.0, 1.0], "validation loss": [3.5, 3.0, 2.9]}
    assert axes.get_xlabel() == "epochs"
    second = axes.child_axes[0]
    assert second.get_xlabel() == "tokens seen"
    figure.draw_without_rendering()
    low, high = axes.get_xlim()
    assert second.get_xlim() == pytest.approx((low * 500, high * 500))


def test_a_run_that_was_never_evaluated_can_be_drawn(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path)
    step = {"step": 1, "epoch": 0.5, "tokens_seen": 10, "loss": 3.0}
    metrics.on_step(step | {"learning_rate": 1e-3, "grad_norm": 1.0})
    assert all(path.exists() for path in plot_run(tmp_path))


def test_no_measurements_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no metrics.jsonl"):
        plot_run(tmp_path)
