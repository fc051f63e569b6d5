import numpy as np
import pytest

from groundup.errors import UserError
from groundup.lessons.live import LiveLosses
from groundup.lessons.pictures import plot_lines


def test_a_line_per_name_with_its_numbers() -> None:
    figure = plot_lines([1, 2, 3], {"a b": [1, 10, 100], "c": [3, 2, 1]}, "layer", "size", log=True)
    (axes,) = figure.axes
    assert [np.asarray(line.get_ydata()).tolist() for line in axes.lines] == [
        [1, 10, 100],
        [3, 2, 1],
    ]
    assert axes.get_yscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("layer", "size")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a b", "c"]
    figure.canvas.draw()
    labels = {text.get_text() for text in axes.get_yticklabels()}
    assert {"1", "10", "100"} <= labels  # no formulas
    with pytest.raises(UserError, match="a_b has 2"):
        plot_lines([1], {"a b": [1, 2]}, "", "")


def test_live_losses_collect_and_draw_what_was_measured() -> None:
    live = LiveLosses()
    for step in (1, 2):
        record = {"epoch": step / 2, "tokens_seen": 10 * step, "loss": 5.0 - step}
        live.on_step(record)
        live.on_evaluate(record | {"train_loss": 2.0 / step, "val_loss": 3.0 / step})
    assert len(live.steps) == len(live.evaluations) == 2
    lines = live.figure().axes[0].lines
    drawn = [np.asarray(line.get_ydata()).tolist() for line in lines]
    assert [2.0, 1.0] in drawn and [3.0, 1.5] in drawn  # evaluations
    assert [4.0, 3.0] in drawn  # steps
