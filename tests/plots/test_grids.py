from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from groundup.errors import UserError
from groundup.plots import plot_attention, plot_confusion
from tests.plots.look import check_texts

WORDS = ["Your", " journey", " starts", " with", " one", " step"]


def causal(*shape: int) -> torch.Tensor:
    future = torch.ones(shape[-2:], dtype=torch.bool).triu(1)
    return torch.softmax(torch.randn(shape).masked_fill(future, -torch.inf), dim=-1)


def hatched(figure: Figure) -> set[tuple[int, int]]:
    """The cells of the first head that are hatched, by row and column."""
    paths = [patch.get_path() for patch in figure.axes[0].patches if patch.get_hatch()]
    middles = [path.vertices.reshape(-1, 5, 2)[:, :4].mean(1) for path in paths]  # pyright: ignore
    assert len(paths) <= 1
    return {(round(y), round(x)) for part in middles for x, y in part.tolist()}


def test_attention_of_one_head() -> None:
    weights = causal(6, 6)
    figure = plot_attention(weights, WORDS, title="layer $0_")
    axes = figure.axes[0]
    drawn = axes.images[0].get_array()
    assert drawn is not None
    future = np.triu(np.ones((6, 6), dtype=bool), 1)
    assert (np.ma.getmaskarray(drawn) == future).all()
    np.testing.assert_allclose(drawn[~future], weights.numpy()[~future])
    texts = check_texts(figure)
    assert texts.count("·journey") == 2 and "layer $0_" in texts and "1.00" in texts
    assert hatched(figure) == {(i, j) for i in range(6) for j in range(i + 1, 6)}
    assert "masked: not allowed to look" in texts


def test_attention_without_a_mask_has_no_hatches() -> None:
    figure = plot_attention(torch.full((2, 2), 0.5), ["a", "b"])
    assert not hatched(figure) and "masked: not allowed to look" not in check_texts(figure)


def test_a_weight_of_zero_is_not_masked() -> None:
    weights = causal(4, 4)
    weights[3, 0] = 0  # as dropout leaves it
    assert len(hatched(plot_attention(weights, WORDS[:4]))) == 6
    given = np.eye(4, dtype=bool)
    assert hatched(plot_attention(weights, WORDS[:4], mask=given)) == {(i, i) for i in range(4)}


def test_masked_scores_and_a_cache() -> None:
    scores = torch.randn(2, 5).masked_fill(torch.ones(2, 5, dtype=torch.bool).triu(4), -torch.inf)
    figure = plot_attention(scores, WORDS[:2], seen=WORDS[:5])
    assert hatched(figure) == {(0, 4)}
    assert check_texts(figure).count("·journey") == 2


@pytest.mark.parametrize(("heads", "count"), [(1, 1), (2, 9), (5, 16), (12, 3), (3, 64)])
def test_several_heads(heads: int, count: int) -> None:
    figure = plot_attention(causal(heads, count, count), [f" t_{i}$" for i in range(count)])
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(drawn) == heads
    for axes in drawn:  # the same shade means the same everywhere
        assert axes.images[0].get_clim() == (0.0, pytest.approx(1.0))
    check_texts(figure)


@pytest.mark.parametrize(
    ("shape", "tokens", "said"),
    [
        ((3,), 3, r"of shape \(3,\); expected"),
        ((1, 2, 3, 3), 3, "expected"),
        ((3, 3), 2, "there are 2 tokens"),
        ((2, 3), 2, "3|2 that are looked at"),
        ((129, 129), 129, "choose some"),
        ((40, 2, 2), 2, "choose some"),
        ((0, 0), 0, "choose some"),
    ],
)
def test_attention_of_another_shape_is_refused(shape: Any, tokens: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        plot_attention(torch.zeros(shape), ["x"] * tokens)
    with pytest.raises(UserError, match=r"mask is of shape \(1, 2\); expected \(2, 2\)"):
        plot_attention(torch.zeros(2, 2), ["a", "b"], mask=[[True, False]])


def test_a_confusion_matrix() -> None:
    matrix = np.array([[1234, 2, 0], [0, 0, 0], [1, 1, 8]])
    figure = plot_confusion(matrix, ["ham", "eggs", "spam"], "test split")
    axes = figure.axes[0]
    texts = {tuple(map(int, t.get_position()))[::-1]: t.get_text() for t in axes.texts}
    assert texts == {(i, j): f"{matrix[i, j]:,}" for i in range(3) for j in range(3)}
    assert axes.get_ylabel() == "is" and axes.get_xlabel() == "called"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["ham", "eggs", "spam"]
    shares = axes.images[0].get_array()
    assert shares is not None and shares[0, 0] == pytest.approx(1234 / 1236)
    assert not shares[1].any()  # a class without texts
    assert axes.get_title() == "test split"


def test_a_confusion_matrix_of_many_classes_is_no_bigger_than_a_page(tmp_path: Path) -> None:
    size = 60
    figure = plot_confusion(np.eye(size, dtype=int), [f"${number}_{{$" for number in range(size)])
    assert max(figure.get_size_inches()) < 30 and not figure.axes[0].texts
    figure.savefig(tmp_path / "a.png", dpi=50)  # a label is no formula
    small = plot_confusion(np.eye(30, dtype=int), [str(number) for number in range(30)])
    assert len(small.axes[0].texts) == 900
    check_texts(small)


def test_a_confusion_matrix_of_another_shape_is_refused() -> None:
    with pytest.raises(UserError, match=r"shape \(2, 2\), but there are 3 labels"):
        plot_confusion(np.eye(2, dtype=int), ["a", "b", "c"])


@pytest.mark.parametrize("labels", [["ham", "spam"], ["a label that is rather long"] * 3])
def test_the_labels_of_a_confusion_matrix_do_not_overlap(labels: list[str]) -> None:
    size = len(labels)
    check_texts(plot_confusion(np.full((size, size), 12345), labels, "test"))
