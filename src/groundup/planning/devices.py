"""How much memory a device has, and how much of it is free."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from groundup import launch

if TYPE_CHECKING:
    import torch


def free_memory(device: torch.device) -> float | None:
    """Bytes that this process may still take on a device; None where that can't be told.

    On a CPU: what the system has available, or what is left of the container's limit; processes
    that torchrun has started on this machine take equal parts.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    import psutil

    found = psutil.virtual_memory().available, _left_in_container()
    return min(n for n in found if n is not None) / launch.local_world_size()


def total_memory(device: torch.device) -> float | None:
    """Bytes of a device; None where that can't be told."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[1]
    if device.type != "cpu":
        return None
    import psutil

    found = psutil.virtual_memory().total, _number(CGROUP / "memory.max")
    return min(n for n in found if n is not None)


CGROUP = Path("/sys/fs/cgroup")


def _left_in_container() -> float | None:
    limit, used = _number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")
    if limit is None or used is None:
        return None
    return max(0.0, limit - used + _cached_files())


def _cached_files() -> float:
    """What a container's files hold in memory counts as used, but gives way."""
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    names = ("active_file ", "inactive_file ")
    return sum(float(line.split()[1]) for line in lines if line.startswith(names))


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # there is none, or it says "max"
        return None
