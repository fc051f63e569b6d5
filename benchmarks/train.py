"""Train GPT-2 124M, batch 4 x 256, side by side: ours, nanoGPT, transformers, litgpt, the course.

    make bench                        # or: python benchmarks/train.py --rounds 5

Tokens per second, tokens per second of all cores' time, and the peak resident memory of a step:
medians over rounds in which everyone has a process of its own in turn, after one step to warm up
(so that making the model and compiling it don't count). Everyone runs as its users run it, some
compiled too; a step is forward, backward and AdamW. bf16 is measured where the CPU is fast at it.
litgpt is left out if it isn't installed. Beside other work, use --threads 1 and the cores' time:
threads that wait for each other spend it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch

import peers
from common import kept_results, report
from groundup.runtime import fast_dtype

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
    fast = fast_dtype(torch.device("cpu")) == torch.bfloat16
    for dtype in ("fp32", "bf16") if fast else ("fp32",):
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


def measure(make: Callable[[], peers.Train], steps: int) -> dict[str, float]:
    """Of steps after the first one: the wall's and all cores' seconds (medians), MiB at most.

    Of the first one, all cores' seconds.
    """
    step, begun = make(), time.process_time()
    step(*batch())  # compiles
    first = time.process_time() - begun
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak until here
    wall, cpu = [], []
    for _ in range(steps):
        x, y = batch()
        begun, used = time.perf_counter(), time.process_time()
        step(x, y)
        wall.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - used)
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return {"first": first, "wall": median(wall), "cpu": median(cpu), "peak_mib": round(peak)}


def measured(name: str, steps: int, threads: int) -> dict[str, float]:
    """That of a process of its own."""
    command = [sys.executable, __file__, "--way", name, "--steps", str(steps)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(process.stdout)


def summed_up(found: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds, and ratios to the course's code, or transformers."""
    middle = {
        name: {key: median(one[key] for one in each) for key in each[0]}
        for name, each in found.items()
        if each
    }
    base = middle.get("course fp32", middle.get("transformers fp32", {}))
    return {
        name: {
            "tokens_per_second": round(BATCH * TOKENS / each["wall"], 1),
            "tokens_per_cpu_second": round(BATCH * TOKENS / each["cpu"], 1),
            "first_step_cpu_s": round(each["first"], 1),
            "peak_mib": round(each["peak_mib"]),
            "rounds": len(found[name]),
        }
        | ({"ratio": round(base["wall"] / each["wall"], 2)} if base else {})
        for name, each in middle.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="training speed and memory side by side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="that count, per process")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", metavar="WAY", help="leave the others out")
    parser.add_argument("--way", help="print what one of them takes, as JSON")
    args = parser.parse_args()

    if args.way:
        print(json.dumps(measure(ways()[args.way], args.steps)))
        return
    torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in args.only or ways()}
    for _ in range(args.rounds):
        for name, each in found.items():
            each.append(measured(name, args.steps, args.threads))
            print(name, each[-1], file=sys.stderr, flush=True)
            # After each, so that a run that is ended has its figures.
            facts = {"load_before": round(load, 2)}
            report("train", kept_results("train") | summed_up(found) | facts)


if __name__ == "__main__":
    main()
