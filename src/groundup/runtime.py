"""Where and how precisely to compute: the one place that resolves ``--device`` and ``--precision``.

Parameters stay fp32 in training. bf16 means that matrix products run in bfloat16 (autocast), which
is chosen by itself only where the hardware is good at it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from groundup import launch
from groundup.errors import UserError

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Runtime:
    """A device and a compute precision, and why they were chosen."""

    device: torch.device
    precision: Precision
    reason: str

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which a forward pass runs."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def __str__(self) -> str:
        return f"{self.device}, {self.precision} ({self.reason})"


def resolve_device(name: str = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` into a device that is there.

    Raises:
        UserError: PyTorch does not know the name or does not see such a device.
    """
    several = launch.world_size() > 1
    if name in ("auto", "cuda") and several and torch.cuda.is_available():
        name = f"cuda:{launch.local_rank()}"  # each process has a GPU of its own
    elif several and name.startswith("cuda:"):
        raise UserError(
            f"device is {name!r}, but {launch.world_size()} processes were started, and each takes "
            "a GPU of its own; use --device cuda, and CUDA_VISIBLE_DEVICES to choose among them"
        )
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device is {name!r}; expected auto, cpu, cuda, cuda:0, mps …") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {name!r} is not there: PyTorch sees {torch.cuda.device_count()} CUDA "
            "devices; use --device auto, or install a CUDA build of PyTorch"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not there (it needs an Apple chip); use --device auto")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device {name!r} is not supported; expected auto, cpu, cuda or mps")
    return device


def resolve_runtime(device: str = "auto", precision: str = "auto") -> Runtime:
    """Resolve both options; ``auto`` precision is bf16 where that is fast, else fp32.

    Raises:
        UserError: the device is not there, or the precision is not one of auto, fp32, bf16.
    """
    where = resolve_device(device)
    if precision not in ("auto", "fp32", "bf16"):
        raise UserError(f"precision is {precision!r}; expected auto, fp32 or bf16")
    fast, reason = _bf16_is_fast(where)
    if precision == "fp32":
        return Runtime(where, "fp32", "as asked")
    if precision == "bf16":
        return Runtime(where, "bf16", "as asked" if fast else f"as asked, but {reason}")
    return Runtime(where, "bf16" if fast else "fp32", reason)


def fast_dtype(device: torch.device) -> torch.dtype:
    """What matrix products are fastest in on a device, where bf16's precision is enough."""
    return torch.bfloat16 if _bf16_is_fast(device)[0] else torch.float32


def _bf16_is_fast(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        fast = major >= 8
        return fast, f"sm{major}{minor} {'has' if fast else 'lacks'} bf16 tensor cores"
    if device.type == "cpu":
        for name, probe in (
            ("AMX", torch.cpu._is_amx_tile_supported),
            ("AVX512-BF16", torch.cpu._is_avx512_bf16_supported),
        ):
            if probe():
                return True, f"this CPU has {name}"
        return False, "this CPU has neither AMX nor AVX512-BF16"
    return False, "bf16 autocast is not known to be faster there"
