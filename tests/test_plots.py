import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.errors import UserError
from groundup.plots import plot_confusion, plot_losses, plot_run, plot_values
from groundup.train.tracking import METRICS, MetricsFile


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
    assert all(path.exists() for path in plot_run(str(tmp_path), str(tmp_path / "elsewhere")))


def test_no_measurements_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no metrics.jsonl"):
        plot_run(tmp_path)


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


def drawn(axes: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


@pytest.mark.parametrize("label", ["loss", "accuracy"])
def test_values_are_drawn_against_epochs_and_examples(label: str) -> None:
    figure = plot_values([0, 1, 2], [0, 50, 100], [0.5, 0.7, 0.9], [0.4, 0.6, 0.8], label)
    axes = figure.axes[0]
    assert drawn(axes) == {
        f"training {label}": [0.5, 0.7, 0.9],
        f"validation {label}": [0.4, 0.6, 0.8],
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epochs", label)
    second = axes.child_axes[0]
    assert second.get_xlabel() == "examples seen"
    figure.draw_without_rendering()
    low, high = axes.get_xlim()
    assert second.get_xlim() == pytest.approx((low * 50, high * 50))


def test_a_classifiers_run_has_its_accuracy_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = []
    for step in (1, 2):
        base = {"step": step, "epoch": step / 2, "tokens_seen": 90 * step, "loss": 1 / step}
        base |= {"examples_seen": 4 * step, "learning_rate": 1e-3, "grad_norm": 1.0}
        losses = {"running_loss": 0.5 / step, "val_loss": 0.6 / step}
        shares = {"train_accuracy": step / 3, "val_accuracy": step / 4}
        records += [base, base | losses | shares]
    (tmp_path / METRICS).write_text("".join(json.dumps(record) + "\n" for record in records))
    figures: dict[str, Any] = {}
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig",
        lambda figure, path, dpi: figures.update({path.name: figure}),
    )
    paths = plot_run(tmp_path)
    assert [path.name for path in paths] == list(figures)
    assert set(figures) == {"loss.png", "accuracy.png", "learning_rate.png", "grad_norm.png"}
    assert drawn(figures["accuracy.png"].axes[0]) == {
        "training accuracy": [1 / 3, 2 / 3],
        "validation accuracy": [1 / 4, 2 / 4],
    }
    losses = drawn(figures["loss.png"].axes[0])
    assert losses["training loss"] == [0.5, 0.25] and losses["validation loss"] == [0.6, 0.3]
    for name in ("loss.png", "accuracy.png"):
        assert figures[name].axes[0].child_axes[0].get_xlabel() == "examples seen"


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
