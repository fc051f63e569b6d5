"""``groundup plot``: pictures of a run."""

from __future__ import annotations

from pathlib import Path

from groundup.cli.app import app
from groundup.output import show


@app.command
def plot(run: Path, /, *, out: Path | None = None) -> None:
    """Draw a run's loss, learning rate and gradient norm as PNG files.

    Args:
        run: a model directory.
        out: where the pictures go (RUN/plots).
    """
    from groundup.plots import plot_run

    for path in plot_run(run, out):
        show(path)
