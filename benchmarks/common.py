"""What the benchmarks share: interleaved rounds, medians, and a report with the machine's facts."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch


def rounds(ways: Mapping[str, Callable[[], object]], count: int) -> dict[str, float]:
    """Median seconds of each way: one after the other, ``count`` times, after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(count + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if number:
                times[name].append(time.perf_counter() - begin)
    return {name: round(median(found), 5) for name, found in times.items()}


def machine() -> dict[str, object]:
    """The facts that a figure depends on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line for line in info.read_text("utf-8").splitlines() if line.startswith("model name")
        ]
        cpu = names[0].split(": ", 1)[1] if names else cpu
    return {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "kind": machine_kind(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def machine_kind() -> str:
    """The kind of CPU, as far as speed goes: ``amx``, ``avx512-bf16``, ``avx2``, or another."""
    if torch.cpu._is_amx_tile_supported():
        return "amx"
    if torch.cpu._is_avx512_bf16_supported():
        return "avx512-bf16"
    return torch.backends.cpu.get_cpu_capability().lower()


def report(name: str, results: object, kind: str | None = None) -> None:
    """Print the results as JSON and keep them in ``benchmarks/results``.

    The file is ``NAME.json`` for the kind of machine that the README's table is from, else
    ``NAME-KIND.json``; another ``kind`` than the CPU's may be given.
    """
    text = json.dumps({"machine": machine(), "results": results}, indent=2)
    path = _path(name, kind)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    print(text)


def kept_results(name: str) -> dict[str, Any]:
    """What an earlier run on this kind of machine has left."""
    path = _path(name)
    return json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else {}


def _path(name: str, kind: str | None = None) -> Path:
    kind = kind or machine_kind()
    name = name if kind == "avx512-bf16" else f"{name}-{kind}"
    return Path(__file__).parent / "results" / f"{name}.json"
