"""Training the preset `tiny` alone, beside a busy process, beside a second training; how it spins.

    python benchmarks/contention.py --rounds 3

OpenMP's threads wait for each other by spinning; GOMP_SPINCOUNT says for how long. The command line
chooses it by a measurement (src/groundup/spinning.py). Prints tokens per second, medians of
interleaved rounds, of the slower training where there are two, and what waking a thread takes here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from common import report
from groundup.spinning import waking_microseconds

STEPS = """
import os, sys
if sys.argv[1] == "chosen":
    from groundup.spinning import choose_spins
    choose_spins()
import time, torch
from groundup.config import preset
from groundup.model.gpt import GPTModel
from groundup.runtime import resolve_runtime
model = GPTModel(preset("tiny").replace(vocab_size=1024, drop_rate=0.0)).init_gpt2()
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
x = torch.randint(0, 1024, (16, 128))
runtime = resolve_runtime()
for step in range(18):
    if step == 3:
        begin = time.perf_counter()
    with runtime.autocast():
        loss = model(x, targets=x) / x.numel()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(15 * x.numel() / (time.perf_counter() - begin), os.environ.get("GOMP_SPINCOUNT"))
"""

WAYS: dict[str, dict[str, str]] = {
    "libgomp's default": {},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "chosen by measurement": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


@contextmanager
def busy() -> Iterator[None]:
    """Beside a process that computes."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def speed(way: str, processes: int) -> tuple[float, str]:
    """Tokens per second of the slowest of so many processes at once, and how it spun."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    chosen = "chosen" if way == "chosen by measurement" else "given"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", STEPS, chosen],
            env=environment | WAYS[way],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    printed = [process.communicate()[0].split() for process in running]
    return min(float(line[0]) for line in printed), printed[0][1]


def main() -> None:
    parser = argparse.ArgumentParser(description="how threads wait, alone and beside others")
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    found: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    spins: set[str] = set()
    waking = round(waking_microseconds(), 1)
    for _ in range(rounds):
        for way, results in found.items():
            for where, processes in (("alone", 1), ("beside a second training", 2)):
                tokens, spun = speed(way, processes)
                results.setdefault(where, []).append(tokens)
                if way == "chosen by measurement":
                    spins.add(spun)
            with busy():
                results.setdefault("beside a busy process", []).append(speed(way, 1)[0])
    report(
        "contention",
        {
            "waking a thread, microseconds": waking,
            "spins chosen": sorted(spins, key=int),
            "tokens per second": {
                way: {where: round(median(values)) for where, values in results.items()}
                for way, results in found.items()
            },
        },
    )


if __name__ == "__main__":
    main()
