"""Train GPT-2 124M, batch 4 x 256, side by side: ours, nanoGPT, transformers, litgpt, the course.

    make bench                        # or: python benchmarks/train.py --turns 10

Tokens per second, tokens per second of all cores' time, and the peak resident memory of a step:
medians over steps, after one to warm up (so that making the model and compiling it don't count).
Everyone has a process of its own and runs as its users run it, some compiled too; a step is
forward, backward and AdamW. They take turns step by step, because a machine is seldom as fast as it
was a minute ago: as many at a time as the memory holds, ours always among them, so that ``speed``
is the median of how many times faster than ours, in fp32 or bf16 as they are, the steps of the same
turns were. bf16 is measured where the CPU is fast at it. litgpt is left out if it isn't installed.
Beside other work, use --threads 1 and the cores' time: threads that wait for each other spend it.

"products alone" is no training: the matrix products of a step, one after the other with nothing
between them, which no step that multiplies can be faster than. ``--before CHECKOUT`` lets an
earlier groundup take part.
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

import psutil
import torch

import peers
from common import kept_results, report
from groundup.runtime import fast_dtype

BATCH, TOKENS, DTYPES = 4, 256, ("fp32", "bf16")
OURS, BEFORE, BOUND = "groundup", "groundup before", "products alone"
LARGEST = 5 << 30
"""Bytes that none of them needs more than."""

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


def products(bf16: bool) -> peers.Train:
    """The products of a step of GPT-2, into memory that is there: forward, and two gradients."""
    cfg, count = peers.CONFIG, BATCH * TOKENS
    dtype = torch.bfloat16 if bf16 else torch.float32
    C, wide = cfg.emb_dim, 4 * cfg.emb_dim
    shapes = [*[(C, C)] * 4, (C, wide), (wide, C)] * cfg.n_layers + [(C, peers.PADDED_VOCAB)]
    weights = [torch.randn(outputs, inputs).to(dtype) for inputs, outputs in shapes]
    room = {size for shape in shapes for size in shape}
    rows = {size: torch.randn(2, count, size).to(dtype) for size in room}
    gradients = {shape: torch.empty(*reversed(shape), dtype=dtype) for shape in shapes}

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        for weight in weights:
            outputs, inputs = weight.shape
            (acts, grad_acts), (grad_out, out) = rows[inputs], rows[outputs]
            torch.mm(acts, weight.T, out=out)
            torch.mm(grad_out, weight, out=grad_acts)
            torch.mm(grad_out.T, acts, out=gradients[inputs, outputs])

    return step


def ways() -> dict[str, Callable[[], peers.Train]]:
    """Everybody, by name."""
    found: dict[str, Callable[[], peers.Train]] = {}
    fast = fast_dtype(torch.device("cpu")) == torch.bfloat16
    both = BOTH | {BEFORE: BOTH[OURS], BOUND: products}  # before: in a process that imports it
    if peers.has_litgpt():
        both["litgpt, compiled"] = partial(peers.litgpt_train, compiled=True)
    for dtype in DTYPES if fast else DTYPES[:1]:
        for name, make in both.items():
            found[f"{name} {dtype}"] = partial(make, bf16=dtype == "bf16")
    if peers.has_course():
        found["course fp32"] = partial(peers.course_train, fast=False)
        found["course, its fast variant, fp32"] = partial(peers.course_train, fast=True)
    return found


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and targets."""
    x, y = torch.randint(0, 50257, (2, BATCH, TOKENS))
    return x, y


def take_turns(make: Callable[[], peers.Train]) -> None:
    """Make it, then take a step for each line that comes; say in JSON what that took.

    A line is the wall's and all cores' seconds; of the first one, which compiles, too. The last
    one is the peak of the others' memory in MiB.
    """
    step = make()
    for number, _ in enumerate(sys.stdin):
        x, y = batch()
        begun, used = time.perf_counter(), time.process_time()
        step(x, y)
        took = {"wall": time.perf_counter() - begun, "cpu": time.process_time() - used}
        print(json.dumps(took), flush=True)
        if not number:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    print(json.dumps({"peak_mib": round(peak)}))


class Way:
    """One of them, in a process of its own."""

    def __init__(self, name: str, threads: int, before: Path | None) -> None:
        self.name = name
        source = {"PYTHONPATH": str(before / "src")} if before and name.startswith(BEFORE) else {}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--way", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)} | source,
            text=True,
        )
        self.first = self.step()
        self.steps: list[dict[str, float]] = []

    def step(self) -> dict[str, float]:
        """What one takes."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._said()

    def end(self) -> float:
        """End it; its peak in MiB."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak = self._said()["peak_mib"]
        self._process.wait()
        return peak

    def _said(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} has failed")
        return json.loads(line)


def together(everyone: list[Way], turns: int) -> dict[str, dict[str, float]]:
    """Medians of steps that these took in turns, the first being ours."""
    for _ in range(turns):
        for way in everyone:
            way.steps.append(way.step())
            print(way.name, way.steps[-1], file=sys.stderr, flush=True)
    ours = [step["wall"] for step in everyone[0].steps]
    found = {}
    for way in everyone:
        wall = [step["wall"] for step in way.steps]
        found[way.name] = {
            "tokens_per_second": round(BATCH * TOKENS / median(wall), 1),
            "tokens_per_cpu_second": round(
                BATCH * TOKENS / median(step["cpu"] for step in way.steps), 1
            ),
            "speed": round(median(a / b for a, b in zip(ours, wall, strict=True)), 3),
            "first_step_cpu_s": round(way.first["cpu"], 1),
            "peak_mib": way.end(),
            "steps": turns,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="training speed and memory side by side")
    parser.add_argument("--turns", type=int, default=10, help="steps that count, of each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an earlier one")
    parser.add_argument("--only", nargs="+", choices=ways(), help="leave the others out")
    parser.add_argument("--way", help="be one of them: a step for each line that is read")
    args = parser.parse_args()

    if any(name.startswith(BEFORE) for name in args.only or ()) and not args.before:
        parser.error(f"{BEFORE}: say where it is, with --before")
    if args.before and not (args.before / "src" / "groundup").is_dir():
        parser.error(f"--before {args.before}: there is no src/groundup")
    if args.way:
        take_turns(ways()[args.way])
        return
    torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    asked = [n for n in args.only or ways() if args.before or not n.startswith(BEFORE)]
    at_a_time = max(1, psutil.virtual_memory().available // LARGEST - 1)
    for dtype in DTYPES:
        ours = f"{OURS} {dtype}"
        others = [name for name in asked if name.endswith(dtype) and name != ours]
        if not others and ours not in asked:
            continue
        for first in range(0, max(1, len(others)), at_a_time):
            names = [ours, *others[first : first + at_a_time]]
            everyone = [Way(name, args.threads, args.before) for name in names]
            found = together(everyone, args.turns)
            # After each group, so that a run that is ended has its figures.
            facts = {"load_before": round(load, 2)}
            report("train", kept_results("train") | found | facts)


if __name__ == "__main__":
    main()
