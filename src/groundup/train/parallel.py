"""What the training loop asks of the devices it runs on; here there is one, and little to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from groundup.errors import UserError


def check_alone() -> None:
    """Refuse to be one of several processes: each would write the same directory.

    Raises:
        UserError: a launcher has started several.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise UserError(
            f"{processes} processes were started together (WORLD_SIZE, as torchrun sets it), but a "
            "run is one process on one device; start it without torchrun"
        )


class Parallel:
    """One process on one device."""

    is_main = True
    """Whether this process prints and writes."""

    def sum(self, value: int) -> int:
        """A number added up over all processes."""
        return value

    @contextmanager
    def micro_step(self, *, last: bool) -> Iterator[None]:
        """Within it one batch's gradients are computed; processes exchange them after the last."""
        yield

    def clip(self, model: nn.Module, limit: float) -> Tensor:
        """Shorten the gradient to ``limit``, if it is longer; return its norm from before."""
        return clip_grad_norm_(model.parameters(), limit)
