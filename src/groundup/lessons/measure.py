"""What a step costs: its time, and the memory that it keeps for the backward pass."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn


def seconds(step: Callable[[], object], repeat: int = 3) -> float:
    """The shortest of several runs, in seconds; a first one, which is not counted, warms up."""
    step()
    times = []
    for _ in range(repeat):
        _finish()
        begun = time.perf_counter()
        step()
        _finish()
        times.append(time.perf_counter() - begun)
    return min(times)


def kept_for_backward(module: nn.Module, x: Tensor) -> int:
    """Bytes that ``module(x)`` keeps until the gradient comes back, its parameters not counted.

    It is what fills the memory while a model trains: the same on every device, each tensor counted
    once however many steps need it.
    """
    storages = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept: list[Tensor] = []  # held, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in storages:
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = module(x)
    del output
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    return sum(sizes.values())


def _finish() -> None:
    """Wait for a device that works while Python goes on."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()
