"""How much memory a device has, and how much of it is free."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

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
    found = [n for n in (_meminfo("MemAvailable"), _left_in_container()) if n is not None]
    return min(found) / int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if found else None


def total_memory(device: torch.device) -> float | None:
    """Bytes of a device; None where that can't be told."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[1]
    if device.type != "cpu":
        return None
    limit = _number(CGROUP / "memory.max")
    found = [n for n in (_meminfo("MemTotal"), limit) if n is not None]
    return min(found) if found else None


MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def _meminfo(name: str) -> float | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:  # not Linux
        return None
    found = [line for line in lines if line.startswith(f"{name}:")]
    return 1024 * float(found[0].split()[1]) if found else None


def _left_in_container() -> float | None:
    limit, used = _number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")
    if limit is None or used is None:
        return None
    return max(0.0, limit - used + _cached_files())


def _cached_files() -> float:
    """What a container's files hold in memory counts as used, but gives way."""
    try:
        lines = (CGROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return 0.0
    names = ("active_file ", "inactive_file ")
    return sum(float(line.split()[1]) for line in lines if line.startswith(names))


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # there is none, or it says "max"
        return None
