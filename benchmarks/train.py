"""Train GPT-2 124M, batch 4 x 256, side by side: ours, nanoGPT, transformers, litgpt, the course.

    make bench                        # or: python benchmarks/train.py --rounds 5

Tokens per second (medians of interleaved steps, after one warm-up, all in one process), their
ratios to the course's code, and the peak resident memory of a step of each in a process of its own
(after one step, so that making the model and compiling it don't count). Everyone runs as its users
run it, some compiled too; a step is forward, backward and AdamW. bf16 is measured where the CPU
has it. litgpt is left out if it isn't installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import peers
from common import machine_kind, report, rounds

BATCH, TOKENS = 4, 256
BOTH: dict[str, Callable[..., peers.Train]] = {
    "groundup": peers.groundup_train,
    "groundup, activation checkpointing": partial(peers.groundup_train, checkpointing=True),
    "groundup, compiled": partial(peers.groundup_train, compiled=True),
    "nanoGPT": peers.nanogpt_train,
    "nanoGPT, compiled": partial(peers.nanogpt_train, compiled=True),
    "transformers": peers.transformers_train,
    "transformers, compiled": partial(peers.transformers_train, compiled=True),
}
"""In fp32, and in bf16 where that is fast."""


def ways() -> dict[str, Callable[[], peers.Train]]:
    """Everybody, by name."""
    found: dict[str, Callable[[], peers.Train]] = {}
    for dtype in ("fp32", "bf16")[: 1 if machine_kind() == "avx2" else 2]:
        for name, make in BOTH.items():
            found[f"{name} {dtype}"] = partial(make, bf16=dtype == "bf16")
    if peers.has_litgpt():
        found["litgpt, compiled fp32"] = partial(peers.litgpt_train, compiled=True)
    if peers.has_course():
        found["course fp32"] = partial(peers.course_train, fast=False)
        found["course, its fast variant, fp32"] = partial(peers.course_train, fast=True)
    return found


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and targets."""
    x, y = torch.randint(0, 50257, (2, BATCH, TOKENS))
    return x, y


def peak(make: Callable[[], peers.Train]) -> int:
    """MiB of this process at most, in its second step."""
    step = make()
    step(*batch())
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak until here
    step(*batch())
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024)


def peak_of(name: str) -> int:
    """That of a process of its own."""
    command = [sys.executable, __file__, "--peak", name]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description="training speed and memory side by side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", metavar="WAY", help="print one's peak memory, in MiB")
    args = parser.parse_args()

    if args.peak:
        print(peak(ways()[args.peak]))
        return
    load = os.getloadavg()[0]
    x, y = batch()
    steps = {name: partial(make(), x, y) for name, make in ways().items()}
    times = rounds(steps, args.rounds)
    base = times.get("course fp32", times["transformers fp32"])
    results: dict[str, dict[str, float]] = {
        name: {
            "tokens_per_second": round(BATCH * TOKENS / t, 1),
            "ratio": round(base / t, 2),
        }
        for name, t in times.items()
    }
    del steps
    for name, found in results.items():
        found["peak_mib"] = peak_of(name)
    report("train", {**results, "rounds": args.rounds, "load_before": round(load, 2)})


if __name__ == "__main__":
    main()
