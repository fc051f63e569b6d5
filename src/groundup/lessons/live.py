"""A training's curves while it runs: one picture in the notebook, drawn anew as it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.output import notebook
from groundup.plots.curves import draw_values
from groundup.plots.style import finish, new_figure, notebook_image
from groundup.train.trainer import Listener, Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LiveLosses(Listener):
    """Draws both losses at every evaluation, in the place of the picture before.

    Outside of a notebook it draws nothing and just collects; :meth:`figure` draws then.

    Attributes:
        steps: the records of all steps.
        evaluations: those of the evaluations, which have ``train_loss`` and ``val_loss``.
    """

    def __init__(self) -> None:
        self.steps: list[Record] = []
        self.evaluations: list[Record] = []
        self._handle: Any = None

    def on_step(self, record: Record) -> None:
        """Collect."""
        self.steps.append(record)

    def on_evaluate(self, record: Record) -> None:
        """Collect, and draw anew."""
        self.evaluations.append(record)
        if notebook() is None:
            return
        from IPython.display import display

        picture = notebook_image(self.figure(), "the losses until now")
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)

    def figure(self) -> Figure:
        """The curves until now; every step's loss is drawn faintly behind them."""
        steps, found = self.steps, self.evaluations
        figure = new_figure()
        draw_values(
            figure,
            ([r["epoch"] for r in found], [r["tokens_seen"] for r in found]),
            ([r["train_loss"] for r in found], [r["val_loss"] for r in found]),
            "loss",
            "tokens seen",
            steps=([r["epoch"] for r in steps], [r["loss"] for r in steps]),
        )
        return finish(figure)
