import numpy as np
import pytest
import torch

from groundup.errors import UserError
from groundup.plots import plot_gradient_norm, plot_learning_rate, plot_losses, plot_values
from tests.plots.look import check_texts, lightness, lines


def test_losses_are_drawn_against_epochs_and_tokens() -> None:
    figure = plot_losses([0, 1, 2], [0, 500, 1000], [3.0, 2.0, 1.0], [3.5, 3.0, 2.9])
    axes = figure.axes[0]
    assert lines(axes) == {"training loss": [3.0, 2.0, 1.0], "validation loss": [3.5, 3.0, 2.9]}
    assert axes.get_xlabel() == "epochs"
    second = axes.child_axes[0]
    assert second.get_xlabel() == "tokens seen"
    figure.draw_without_rendering()
    low, high = axes.get_xlim()
    assert second.get_xlim() == pytest.approx((low * 500, high * 500))


def in_a_notebook(*cells: str) -> list[list[str]]:
    """The kinds of picture or text that each cell shows, in a kernel that is new."""
    import nbclient
    import nbformat.v4 as v4

    given = "[0, 1, 2], [0, 5, 10], [3.0, 2.0, 1.0], [3.0, 2.5, 2.0]"
    code = [cell.replace("GIVEN", given) for cell in cells]
    notebook = v4.new_notebook(cells=[v4.new_code_cell(text) for text in code])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [[output.get("data", {}) for output in cell.outputs] for cell in notebook.cells]
    return [[sorted(data)[0] for data in outputs] for outputs in shown]


def test_a_notebook_shows_each_plot_once_wherever_it_is_called() -> None:
    imports = "import numpy as np\nfrom groundup import plot_confusion, plot_losses, plot_values"
    shown = in_a_notebook(
        imports,
        "plot_losses(GIVEN)",
        "figure = plot_values(GIVEN)\nnothing = 0",
        "figure",
        "figure = plot_losses(GIVEN)\nfigure.axes[0].set_title('changed')\nfigure",
        "for _ in range(2):\n    plot_confusion(np.eye(2, dtype=int), ['a', 'b'])",
        "import matplotlib.pyplot as plt\nplot_losses(GIVEN)",
    )
    assert shown == [[], *([["image/png"] * count for count in (1, 1, 1, 2, 2, 1)])]


@pytest.mark.parametrize("label", ["loss", "accuracy"])
def test_values_are_drawn_against_epochs_and_examples(label: str) -> None:
    figure = plot_values([0, 1, 2], [0, 50, 100], [0.5, 0.7, 0.9], [0.4, 0.6, 0.8], label)
    axes = figure.axes[0]
    assert lines(axes) == {
        f"training {label}": [0.5, 0.7, 0.9],
        f"validation {label}": [0.4, 0.6, 0.8],
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epochs", label)
    second = axes.child_axes[0]
    assert second.get_xlabel() == "examples seen"
    figure.draw_without_rendering()
    low, high = axes.get_xlim()
    assert second.get_xlim() == pytest.approx((low * 50, high * 50))


def test_both_curves_can_be_told_apart_without_colours() -> None:
    figure = plot_losses([0, 1, 2], [0, 5, 10], [3, 2, 1], [3, 2.5, 2.4])
    train, val = figure.axes[0].lines
    assert abs(lightness(train.get_color()) - lightness(val.get_color())) > 20
    assert train.get_linestyle() != val.get_linestyle()
    texts = check_texts(figure)
    assert {"training loss (last 1)", "validation loss (last 2.4)", "epochs"} <= set(texts)


def test_without_validation_there_is_one_curve() -> None:
    figure = plot_losses(torch.tensor([0, 1]), [0, 5], torch.tensor([3.0, 2.0]), [])
    assert lines(figure.axes[0]) == {"training loss": [3.0, 2.0]}


@pytest.mark.parametrize("bad", range(4))
def test_curves_of_unequal_length_are_refused(bad: int) -> None:
    columns = [[0.0, 1.0, 2.0] for _ in range(4)]
    columns[bad].pop()
    with pytest.raises(UserError, match="has 3.* has 2|has 2.* has 3"):
        plot_losses(*columns)


def test_the_learning_rate_and_its_warmup() -> None:
    figure = plot_learning_rate([0.1, 0.2, 0.1], warmup_steps=2)
    axes = figure.axes[0]
    (line,) = axes.lines
    assert np.array_equal(line.get_xdata(), [1, 2, 3]) and lines(axes) == {
        "learning rate": [0.1, 0.2, 0.1]
    }
    assert axes.get_ylim()[0] == 0 and axes.patches[0].get_window_extent().width > 0
    assert {"warmup", "step"} <= set(check_texts(figure))
    with pytest.raises(UserError, match="steps has 1, learning rate has 2"):
        plot_learning_rate([1, 2], [1])


def test_the_gradient_norm_and_where_it_is_clipped() -> None:
    figure = plot_gradient_norm([0.5, 3.0], [10, 20], clip=1.0)
    norm, clip = figure.axes[0].lines
    assert np.array_equal(norm.get_xdata(), [10, 20])
    assert np.array_equal(clip.get_ydata(), [1.0, 1.0])
    assert "clipped at 1" in check_texts(figure)
    assert len(plot_gradient_norm([0.5, 3.0]).axes[0].lines) == 1
