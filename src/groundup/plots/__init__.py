"""Pictures: of runs, of what a model does, of how its data are made.

Each function takes plain data (lists, arrays, tensors) and returns a figure. In a notebook it shows
it too, as those of the course do, also where the call isn't the cell's last line; in a script,
call the figure's ``savefig``. Matplotlib is loaded when something is drawn.
"""

from groundup.plots.curves import (
    plot_gradient_norm,
    plot_learning_rate,
    plot_losses,
    plot_values,
)
from groundup.plots.functions import plot_activations, plot_temperatures
from groundup.plots.grids import plot_attention, plot_confusion, plot_counts
from groundup.plots.merges import plot_merges
from groundup.plots.runs import PLOTS, plot_directories, plot_run, plot_runs
from groundup.plots.style import save_figure, svg
from groundup.plots.tokens import plot_collate, plot_tokens, plot_windows

__all__ = [
    "PLOTS",
    "plot_activations",
    "plot_attention",
    "plot_collate",
    "plot_confusion",
    "plot_counts",
    "plot_directories",
    "plot_gradient_norm",
    "plot_learning_rate",
    "plot_losses",
    "plot_merges",
    "plot_run",
    "plot_runs",
    "plot_temperatures",
    "plot_tokens",
    "plot_values",
    "plot_windows",
    "save_figure",
    "svg",
]
