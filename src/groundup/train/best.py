"""The best evaluation of a run so far, and whether it is worth while to wait for a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class Best:
    """The best evaluation so far.

    A classifier's is that of the highest validation accuracy (of those, the lowest loss), any other
    model's that of the lowest validation loss. A loss that is no number is never the best: the run
    has diverged, or no target was valid.

    Attributes:
        step: the step after which it was made; 0 if there was none.
        score: higher is better.
        waited: evaluations since then.
    """

    step: int = 0
    score: list[float] | None = None
    waited: int = 0

    def update(self, record: Mapping[str, float]) -> bool:
        """Look at an evaluation; return whether it is the best one so far."""
        if "val_loss" not in record:
            return False
        score = [-record["val_loss"]]
        if "val_accuracy" in record:
            score.insert(0, record["val_accuracy"])
        if math.isnan(record["val_loss"]) or (self.score is not None and score <= self.score):
            self.waited += 1
            return False
        self.step, self.score, self.waited = int(record["step"]), score, 0
        return True

    def is_stale(self, patience: int | None) -> bool:
        """Whether so many evaluations have brought nothing better."""
        return patience is not None and self.waited >= patience
