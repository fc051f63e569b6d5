import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from groundup.errors import UserError
from groundup.plots import plot_directories, plot_run, plot_runs
from groundup.plots.runs import overview, run_figures
from groundup.train.tracking import METRICS, MetricsFile
from tests.conftest import Run
from tests.plots.look import check_texts, lines


def records(
    *, classifies: bool = False, scale: float = 1.0, count: int = 2
) -> list[dict[str, float]]:
    """Steps, each with its evaluation."""
    made: list[dict[str, float]] = []
    for step in range(1, count + 1):
        base = {"step": step, "epoch": step / 2, "tokens_seen": 90 * step, "loss": scale / step}
        base |= {"examples_seen": 4 * step, "learning_rate": 1e-3, "grad_norm": 1.0}
        losses = {"running_loss": scale * 0.5 / step, "val_loss": scale * 0.6 / step}
        shares = {"train_accuracy": step / 3, "val_accuracy": step / 4} if classifies else {}
        made += [base, base | losses | shares]
    return made


def write(folder: Path, rows: Sequence[dict[str, float]]) -> Path:
    folder.mkdir(parents=True)
    text = "".join(json.dumps(record) + "\n" for record in rows)
    (folder / METRICS).write_text(text, "utf-8")
    return folder


def test_a_run_that_was_never_evaluated_can_be_drawn(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path)
    step = {"step": 1, "epoch": 0.5, "tokens_seen": 10, "loss": 3.0}
    metrics.on_step(step | {"learning_rate": 1e-3, "grad_norm": 1.0})
    assert all(path.exists() for path in plot_run(str(tmp_path), str(tmp_path / "elsewhere")))
    with pytest.raises(UserError, match="the run a has no evaluations"):
        plot_runs({"a": [step]})


def test_no_measurements_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no metrics.jsonl"):
        plot_run(tmp_path)


def test_a_classifiers_run_has_its_accuracy_drawn(tmp_path: Path) -> None:
    run = write(tmp_path / "run", records(classifies=True))
    paths = plot_run(run)
    names = ["loss", "accuracy", "learning_rate", "grad_norm"]
    assert paths == [run / "plots" / f"{name}.png" for name in names]
    figures = run_figures(records(classifies=True))
    assert list(figures) == names
    accuracies = lines(figures["accuracy"].axes[0])
    assert accuracies["training accuracy"] == [1 / 3, 2 / 3]
    assert accuracies["validation accuracy"] == [1 / 4, 2 / 4]
    losses = lines(figures["loss"].axes[0])
    assert losses["training loss"] == [0.5, 0.25] and losses["validation loss"] == [0.6, 0.3]
    assert losses["_every step"] == [1.0, 0.5] and losses["_best"] == [0.3]
    for name in ("loss", "accuracy"):
        assert figures[name].axes[0].child_axes[0].get_xlabel() == "examples seen"
    for figure in figures.values():
        check_texts(figure)


@pytest.mark.parametrize("classifies", [False, True])
def test_all_of_a_run_in_one_picture(tmp_path: Path, classifies: bool) -> None:
    texts = check_texts(overview(records(classifies=classifies, count=5)))
    assert {"learning rate", "gradient norm", "loss"} <= set(texts)
    assert ("accuracy" in texts) == classifies
    run = write(tmp_path / "run", records(classifies=classifies))
    assert plot_run(run, tmp_path / "a.svg") == [tmp_path / "a.svg"]
    assert (tmp_path / "a.svg").exists() and not (run / "plots").exists()


def test_several_runs_in_one_picture() -> None:
    runs: dict[str, Any] = {"_a$": records(), "b_1 <b>": records(scale=2.0, count=4)}
    figure = plot_runs(runs)
    (axes,) = figure.axes
    solid = {name: values for name, values in lines(axes).items() if name != "_training"}
    assert list(solid.values()) == [[0.6, 0.3], pytest.approx([1.2, 0.6, 0.4, 0.3])]
    assert len(axes.lines) == 4 and axes.get_xlabel() == "tokens seen"
    styles = {(line.get_color(), str(line.get_linestyle())) for line in axes.lines[::2]}
    assert len(styles) == 2
    assert {"_a$: loss 0.3", "b_1 <b>: loss 0.3"} <= set(check_texts(figure))


def test_several_classifiers_have_their_accuracies_beside() -> None:
    figure = plot_runs({"a": records(classifies=True), "b": records(classifies=True)})
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    assert lines(figure.axes[1])["run 1"] == [1 / 4, 2 / 4]
    check_texts(figure)


def test_twelve_runs_with_long_names_fit_and_a_thirteenth_does_not() -> None:
    runs = {f"a-run-with-a-name-{'x' * 90}{n}": records() for n in range(12)}
    check_texts(plot_runs(runs))
    with pytest.raises(UserError, match="there are 13 runs; expected 1 to 12"):
        plot_runs(runs | {"more": records()})
    with pytest.raises(UserError, match="there are 0 runs"):
        plot_runs({})


def test_directories_are_named_so_that_they_differ(tmp_path: Path, run: Run) -> None:
    first = write(tmp_path / "x" / "run", records())
    second = write(tmp_path / "y" / "run", records(scale=3.0))
    picture = tmp_path / "both.svg"
    result = run("plot", first, second, "--out", picture)
    assert (result.status, result.out) == (0, f"{picture}\n")
    text = picture.read_text("utf-8")
    assert "x/run" in text and "y/run" in text
    with pytest.raises(UserError, match="named twice"):
        plot_directories([first, first], picture)


def test_several_runs_are_drawn_beside_them(tmp_path: Path, fails: Any) -> None:
    runs = [write(tmp_path / name, records()) for name in "ab"]
    (picture,) = plot_directories(runs)
    assert picture == tmp_path / "comparison.png" and picture.read_bytes()[:4] == b"\x89PNG"
    assert "name it, as in --out runs.png" in fails("plot", runs[0], "/dev/shm")  # only / is shared
    assert "ends in .png, .svg, .pdf" in fails("plot", *runs, "--out", tmp_path / "c.txt")
