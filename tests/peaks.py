"""How much memory tensors take, by PyTorch's own record."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch.profiler import ProfilerActivity


def peak_bytes(do: Callable[[], object]) -> int:
    """Most bytes of tensors at once of those that are made while it runs."""
    with torch.profiler.profile(profile_memory=True, activities=[ProfilerActivity.CPU]) as profile:
        do()
    results: Any = profile.profiler.kineto_results  # pyright: ignore[reportOptionalMemberAccess]
    found = [event for event in results.events() if event.name() == "[memory]"]
    found.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in found))
