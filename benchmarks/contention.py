"""Training the preset `tiny` alone, and two of them at once, with short and with default spins.

    python benchmarks/contention.py

OpenMP's threads wait for each other by spinning; GOMP_SPINCOUNT says for how long. The command line
sets it to 1000. Prints tokens per second, of the slower one where there are two.
"""

from __future__ import annotations

import os
import subprocess
import sys

from common import report

STEPS = """
import time, torch
from groundup.config import preset
from groundup.model.door import token_loss
from groundup.model.gpt import GPTModel
model = GPTModel(preset("tiny")).init_gpt2()
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
x = torch.randint(0, 2048, (16, 128))
for step in range(23):
    if step == 3:
        begin = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        loss = token_loss(model, x, x) / x.numel()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(20 * x.numel() / (time.perf_counter() - begin))
"""


def speed(processes: int, spins: str | None) -> float:
    """Tokens per second of the slowest of so many processes at once."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    if spins is not None:
        environment["GOMP_SPINCOUNT"] = spins
    command = [sys.executable, "-c", STEPS]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return round(min(float(process.communicate()[0]) for process in running), 0)


def main() -> None:
    results = {}
    for name, spins in (("default", None), ("GOMP_SPINCOUNT=1000", "1000")):
        results[name] = {"alone": speed(1, spins), "two at once": speed(2, spins)}
    report("contention", results)


if __name__ == "__main__":
    main()
