from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

from groundup.errors import UserError
from groundup.model.layers import GELU
from groundup.plots import plot_activations, plot_temperatures
from tests.plots.look import check_texts, lightness, lines

WORDS = "every effort moves you forward".split()


def test_activations_and_their_derivatives() -> None:
    figure = plot_activations()
    value, slope = figure.axes
    x = torch.tensor(value.lines[0].get_xdata())
    assert x[0] == -4 and x[-1] == 4
    drawn = lines(value), lines(slope)
    for part in drawn:
        assert {"GELU", "ReLU", "SiLU"} <= part.keys()
    np.testing.assert_allclose(drawn[0]["GELU"], torch.nn.functional.gelu(x), atol=1e-6)
    np.testing.assert_allclose(drawn[0]["SiLU"], x * torch.sigmoid(x), atol=1e-6)
    assert set(drawn[1]["ReLU"]) == {0.0, 1.0}
    s = torch.sigmoid(x)
    np.testing.assert_allclose(drawn[1]["SiLU"], s * (1 + x * (1 - s)), atol=1e-6)
    assert {"GELU", "ReLU", "SiLU", "the function", "its derivative"} <= set(check_texts(figure))
    colors = [lightness(line.get_color()) for line in value.lines[:3]]
    assert min(np.diff(sorted(colors))) > 10


@torch.no_grad()
def test_a_function_of_ones_own() -> None:
    figure = plot_activations({"_$ours$": GELU(), "square": torch.square}, low=0, high=2)
    assert lines(figure.axes[1])["square"][-1] == pytest.approx(4.0)
    assert "_$ours$" in check_texts(figure)


def test_functions_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(UserError, match="low is 2 and high is 1"):
        plot_activations(low=2, high=1)
    with pytest.raises(UserError, match="there are 0 functions"):
        plot_activations({})
    with pytest.raises(UserError, match=r"total made \(\) of \(400,\); expected an elementwise"):
        plot_activations({"total": torch.sum})


def test_bars_are_softmax_at_each_temperature() -> None:
    logits = torch.tensor([4.51, 0.89, -1.90, 6.75, -torch.inf])
    figure = plot_temperatures(logits, WORDS, (1, 0.1, 5, 0))
    heights = [[bar.get_height() for bar in group] for group in figure.axes[0].containers]
    for temperature, drawn in zip((1, 0.1, 5), heights, strict=False):
        np.testing.assert_allclose(drawn, torch.softmax(logits / temperature, -1), atol=1e-6)
    assert heights[3] == [0, 0, 0, 1, 0]
    bars: Any = [group[0] for group in figure.axes[0].containers]
    assert all(isinstance(bar, Rectangle) for bar in bars)
    assert len({bar.get_hatch() or "" for bar in bars}) == 4
    texts = check_texts(figure)
    assert {"temperature 0.1", *WORDS} <= set(texts)


@pytest.mark.parametrize("count", [1, 12, 40])
def test_the_names_of_the_bars_do_not_overlap(count: int) -> None:
    check_texts(plot_temperatures([0.0] * count, [f" a_token${i}" for i in range(count)]))


@pytest.mark.parametrize(
    ("logits", "temperatures", "said"),
    [
        ([1.0] * 4, (1.0,), "logits has 4, tokens has 5"),
        ([1.0] * 5, (-1.0,), "temperature is -1.0; expected 0 or more"),
        ([1.0] * 5, (), "there are 0 temperatures"),
        ([float("nan")] * 5, (1.0,), "no finite maximum"),
        ([-float("inf")] * 5, (1.0,), "no finite maximum"),
    ],
)
def test_scores_that_make_no_sense_are_refused(logits: Any, temperatures: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        plot_temperatures(logits, WORDS, temperatures)
