"""A GPU's steps of writing, recorded once and then played again (CUDA graphs).

To write one token a GPU does some 200 small things, each sooner than Python asks for the next: with
a GPT-2 124M it waits nine tenths of the time. Recorded, all of them are asked for at once. What is
recorded is the model's own ``forward``, with the same kernels; only numbers in the same places of
memory can change from step to step. So how much of the cache belongs to a row is such a number, and
the rest of what is looked at is masked.

Shapes: ``B`` rows, ``V`` vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from groundup.decoding.rows import Batch
from groundup.errors import is_out_of_memory, note
from groundup.model.cache import KVCache
from groundup.model.door import runs_as_written, scores

SPAN = 256
"""A recorded step looks at a multiple of so many tokens of the cache, so that few are recorded."""

MOST = 64
"""So many shapes are kept at most: each recorded step takes some of the GPU's memory."""

Play = Callable[[], Tensor]
"""Do what was recorded, with what its inputs hold now; the result is always in the same place."""


def spanned(tokens: int) -> int:
    """As many tokens, or a few more, as a recorded step can look at."""
    return -(-tokens // SPAN) * SPAN


class Replays:
    """The steps of an engine that have been recorded, by their shape.

    Only ``GPTModel`` itself is recorded: Python that runs beside it (hooks, a subclass's
    ``forward``) would not run again. A hook that comes once a step was recorded isn't called.

    Args:
        model: the engine's.
        cache: the engine's.
        record: takes what computes scores; what it gives computes them again.
    """

    def __init__(
        self, model: nn.Module, cache: KVCache, record: Callable[[Play], Play] | None = None
    ) -> None:
        self.model, self.cache = model, cache
        self._record: Callable[[Play], Play] | None = record or Recorder(cache.device)
        self.steps: dict[tuple[object, ...], Step | None] = {}
        self._memory: Tensor | None = None

    def forget(self) -> None:
        """Record anew: the model is another now."""
        self.steps.clear()

    def scores(self, batch: Batch) -> Tensor | None:
        """What follows one more token of each row, ``(B, V)``; it is so until the next call.

        None if this is to be computed as usual. So is the first step of any shape: it may be the
        only one, and kernels are loaded then, which can't be recorded.
        """
        if self._record is None or torch.is_autocast_enabled(self.cache.device.type):
            return None  # autocast's copies of weights don't outlive it
        if self._memory is not (memory := self.cache.layers[0].keys):
            self._memory = memory
            self.forget()
        rows, capacity = slice(batch.first, batch.first + len(batch.rows)), self.cache.shape[1]
        span = min(capacity, spanned(max(batch.lengths) + 1))
        shape = rows.start, rows.stop, span, batch.adapter
        if shape not in self.steps:
            if len(self.steps) == MOST:
                self.steps.pop(next(iter(self.steps)))
            self.steps[shape] = None
            return None
        step = self.steps[shape]
        if step is None:
            if not runs_as_written(self.model):
                self._record = None
                return None
            step = self.steps[shape] = Step(self.model, self.cache, rows, span)
        try:
            return step(batch, self._record)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            note(f"steps can't be recorded ({str(error).splitlines()[0]:.200}), only computed")
            self._record = None
            return None


class Step:
    """One token for each of some rows, which look at ``span`` tokens of the cache."""

    def __init__(self, model: nn.Module, cache: KVCache, rows: slice, span: int) -> None:
        self._model, self._cache, self._rows, self._span = model, cache, rows, span
        count = rows.stop - rows.start
        self._inputs = torch.zeros(2, count, 1, dtype=torch.long, device=cache.device)
        self._at = torch.zeros(count, dtype=torch.long, device=cache.device)
        self.play: Play | None = None

    def __call__(self, batch: Batch, record: Callable[[Play], Play]) -> Tensor:
        """The scores ``(B, V)``."""
        inputs = [[ids[0] for ids in batch.ids], batch.lengths]
        self._inputs.copy_(torch.tensor(inputs)[..., None])
        if self.play is None:
            self.play = record(self._compute)
        return self.play()

    def _compute(self) -> Tensor:
        idx, places = self._inputs  # (B, 1) each
        cache = self._cache.view(self._rows, self._span - 1, places)
        return scores(self._model, idx, at=self._at, cache=cache)


class Recorder:
    """Records what a function has a GPU do.

    All that is recorded computes in the same memory, so a result is good until the next one comes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._pool = device, None

    def __call__(self, compute: Play) -> Play:
        """Nothing is computed yet."""
        with torch.cuda.device(self._device):
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
            try:
                # Other threads may go on: a server's next model may be loading.
                with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                    result = compute()
            finally:  # which PyTorch doesn't bring back if something went wrong
                torch.cuda.set_stream(stream)

        def play() -> Tensor:
            graph.replay()
            return result

        return play
