"""GPT-2's parts against today's (RMSNorm, RoPE, SwiGLU, QK-norm): ``tiny`` and ``modern-tiny``.

    python benchmarks/modern.py tinyshakespeare.txt

On the demo's text and on tinyshakespeare, with the demo's recipe, equally many parameters and, in
a third row, as many CPU seconds: each is trained for a number of steps; then ``modern-tiny`` once
more for as many steps as take the time of ``tiny``. Three seeds each, one thread, a process per
run. The loss is that of the validation split, per token.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

from common import report

STEPS = 200


def train(text: Path | None, shape: str, steps: int, seed: int, out: Path) -> dict[str, float]:
    """Train one, and say its loss, its CPU seconds, and how many parameters it has."""
    what = ["demo"] if text is None else ["pretrain", str(text), "--recipe", "demo"]
    command = [sys.executable, "-m", "groundup", *what, "--preset", shape]
    command += ["--vocab-size", "1024", "--out", str(out), "--overwrite", "--seed", str(seed)]
    command += ["--max-steps", str(steps), "--minutes", "1000"]
    command += ["--eval-freq", str(steps), "--eval-iter", "100"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = [row for row in map(json.loads, lines) if "val_loss" in row][-1]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"val_loss": last["val_loss"], "cpu": cpu, "steps": last["step"]}


def compare(text: Path | None, seeds: list[int], out: Path) -> dict[str, object]:
    """Both shapes for the same steps, and the newer one for the same time."""
    found: dict[str, list[dict[str, float]]] = {"tiny": [], "modern-tiny": [], "same time": []}
    for seed in seeds:
        for shape in ("tiny", "modern-tiny"):
            found[shape].append(train(text, shape, STEPS, seed, out))
        slower = found["modern-tiny"][-1]["cpu"] / found["tiny"][-1]["cpu"]
        found["same time"].append(train(text, "modern-tiny", round(STEPS / slower), seed, out))
        print(text, seed, {name: runs[-1] for name, runs in found.items()}, flush=True)
    return {
        name: {
            "val_loss": round(mean(run["val_loss"] for run in runs), 4),
            "cpu_seconds": round(mean(run["cpu"] for run in runs), 1),
            "steps": round(mean(run["steps"] for run in runs)),
            "each": [round(run["val_loss"], 4) for run in runs],
        }
        for name, runs in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="GPT-2's parts against today's")
    parser.add_argument("text", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        results = {
            "the demo's text": compare(None, args.seeds, out),
            args.text.name: compare(args.text, args.seeds, out),
        }
    report("modern", results)


if __name__ == "__main__":
    main()
