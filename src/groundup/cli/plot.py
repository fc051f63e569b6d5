"""``groundup plot``: pictures of runs."""

from __future__ import annotations

from pathlib import Path

from groundup.cli.app import app
from groundup.output import show


@app.command
def plot(run: Path, /, *runs: Path, out: Path | None = None) -> None:
    """Draw a run's loss, learning rate and gradient norm as PNG files; or compare several runs.

    Args:
        run: a model directory.
        runs: more of them, to be drawn into one picture.
        out: the folder for the pictures (RUN/plots); or a name that ends in .png, .svg or .pdf, for
            all in one picture (of several runs: comparison.png in the folder that they share).
    """
    from groundup.plots import plot_directories

    for path in plot_directories([run, *runs], out):
        show(path)
