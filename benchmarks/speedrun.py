"""tinyshakespeare by characters to a validation loss of 1.88: nanoGPT's recipe for a CPU, and ours.

    python benchmarks/speedrun.py tinyshakespeare.txt --seeds 1 2 3
    python benchmarks/speedrun.py tinyshakespeare.txt --seeds 1 2 3 --ladder

Each run is a process of its own on one thread, in turn; its CPU seconds count, from its start to
its end: imports, tokenizing, evaluations and saving included. (CPU seconds, since they suffer less
from what else the machine does.) The loss is that over the whole validation split (the last tenth
of the text), in windows of the model's context, measured afterwards, for both alike.

With --ladder, one choice after the other is taken back from our recipe, so that its gain is seen.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

import nanogpt
from common import kept_results, report
from groundup import load_model
from groundup.model.door import token_loss

GPT2_PARTS = {
    "rope": "false",
    "qk_norm": "false",
    "norm": "layer",
    "norm_eps": 1e-5,
    "feed_forward": "gelu",
    "hidden_dim": 384,  # two matrices instead of three, so as many parameters
    "attn_bias": "true",
    "mlp_bias": "true",
}
LADDER: dict[str, dict[str, object]] = {
    "as it is": {},
    "GPT-2's parts (positions, LayerNorm, GELU)": GPT2_PARTS,
    "without norms of queries and keys": {"qk_norm": "false"},
    "without Muon (AdamW at 5e-3)": {"optimizer": "adamw", "learning_rate": 5e-3},
    "Muon at half the rate": {"learning_rate": 1e-2},
    "cosine instead of linear": {"lr_schedule": "cosine"},
    "4 layers instead of 2": {"n_layers": 4},
    "tied weights": {"tie_weights": "true"},
}
"""What is taken back from the recipe, one at a time, all else and the number of steps kept."""


def seconds_of(command: list[str], env: Mapping[str, str]) -> tuple[float, float]:
    """CPU and wall seconds of a process."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=dict(env), check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - begun


def loss_of(model: Any, ids: Tensor, context: int) -> float:
    """Over all of a split, in windows next to each other."""
    count = (len(ids) - 1) // context
    x, y = (part[: count * context].view(count, context) for part in (ids[:-1], ids[1:]))
    with torch.no_grad():
        pairs = zip(x.split(256), y.split(256), strict=True)
        if isinstance(model, nanogpt.NanoGPT):
            return sum(model(a, b).item() * b.numel() for a, b in pairs) / y.numel()
        return sum(token_loss(model.eval(), a, b).item() for a, b in pairs) / y.numel()


def splits(text: Path) -> tuple[Tensor, Tensor]:
    """The two parts, numbered by the characters that there are, as nanoGPT does."""
    data = text.read_bytes()
    numbers = {byte: number for number, byte in enumerate(sorted(set(data)))}
    ids = torch.tensor([numbers[byte] for byte in data])
    cut = int(0.9 * len(ids))
    return ids[:cut], ids[cut:]


def run_nanogpt(text: Path, seed: int, folder: Path) -> dict[str, float]:
    """Its recipe."""
    saved = folder / "nanogpt.pt"
    command = [sys.executable, __file__, str(text), "--nanogpt", str(saved), "--seeds", str(seed)]
    cpu, wall = seconds_of(command, os.environ | {"OMP_NUM_THREADS": "1"})
    r = nanogpt.Recipe()
    train_ids, val_ids = splits(text)
    size = int(train_ids.max()) + 1
    model = nanogpt.NanoGPT(size, r.layers, r.heads, r.width, r.context)
    model.load_state_dict(torch.load(saved, weights_only=True))
    return {"val_loss": loss_of(model, val_ids, r.context), "cpu": cpu, "wall": wall}


def run_groundup(
    text: Path, seed: int, folder: Path, changes: Mapping[str, object]
) -> dict[str, float]:
    """``groundup pretrain --recipe speedrun``, with changes."""
    out = folder / "run"
    command = [sys.executable, "-m", "groundup", "pretrain", str(text), "--recipe", "speedrun"]
    command += ["--out", str(out), "--overwrite", "--seed", str(seed)]
    for name, value in changes.items():
        flag = name.replace("_", "-")
        bare = {"true": [f"--{flag}"], "false": [f"--no-{flag}"]}
        command += bare.get(str(value), [f"--{flag}", str(value)])
    cpu, wall = seconds_of(command, os.environ | {"OMP_NUM_THREADS": "1"})
    model, tokenizer = load_model(out)
    part = text.read_text(encoding="utf-8")
    ids = torch.tensor(tokenizer.encode(part[int(0.9 * len(part)) :]))
    loss = loss_of(model, ids, model.cfg.context_length)
    return {"val_loss": loss, "cpu": cpu, "wall": wall}


def summed_up(found: list[dict[str, float]]) -> dict[str, object]:
    """Means over the seeds, and each of them."""
    return {
        "val_loss": round(mean(each["val_loss"] for each in found), 4),
        "cpu_seconds": round(mean(each["cpu"] for each in found), 1),
        "each": [{name: round(value, 4) for name, value in each.items()} for each in found],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="tinyshakespeare to a loss of 1.88")
    parser.add_argument("text", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--ladder", action="store_true")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="of the ladder, only these")
    parser.add_argument("--nanogpt", type=Path, help="train nanoGPT's model, and save it there")
    args = parser.parse_args()

    if args.nanogpt is not None:
        train_ids, val_ids = splits(args.text)
        size = int(train_ids.max()) + 1
        model = nanogpt.train(train_ids, val_ids, size, args.seeds[0])
        torch.save(model.state_dict(), args.nanogpt)
        return
    ways: dict[str, Mapping[str, object]] = {"groundup, the recipe": {}}
    if args.ladder:
        ways = {name: LADDER[name] for name in args.rows or LADDER}
    found: dict[str, list[dict[str, float]]] = {} if args.ladder else {"nanoGPT": []}
    found |= {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for seed in args.seeds:
            if not args.ladder:
                found["nanoGPT"].append(run_nanogpt(args.text, seed, folder))
            for name, row in ways.items():
                found[name].append(run_groundup(args.text, seed, folder, row))
                print(seed, name, found[name][-1], flush=True)
            # After each seed, so that a run that is ended has its figures.
            summed = {name: summed_up(each) for name, each in found.items()}
            report("speedrun", kept_results("speedrun") | summed)


if __name__ == "__main__":
    main()
