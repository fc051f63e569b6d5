"""Train GPT-2 124M on one GPU, batch 32 x 1024, bf16: ours, nanoGPT's model, transformers.

    python benchmarks/gpu.py [--flops 989T] [--rounds 10]

Tokens per second (median step of each after five to warm up, eager and compiled), MFU (nanoGPT's
count of operations per token, against the card's dense bf16 peak, which is known for a few cards),
and the peak of what PyTorch has allocated in a step. One after the other in one process, each with
the GPU to itself. Everyone runs as its users run it: fused AdamW, and nanoGPT's vocabulary padded.

No GPU was there when this was written: the same code ran on a CPU with a small shape, in a test.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import torch

import peers
from common import report
from groundup.config import ModelConfig
from groundup.model.gpt import GPTModel
from groundup.planning.sizes import parse_flops

BATCH = 32
WARM_UP = 5
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
}
"""Dense bf16 operations per second of tensor cores, from NVIDIA's data sheets; the first that is
part of the card's name counts."""


def ways(shape: ModelConfig, **how: Any) -> dict[str, Callable[[], peers.Train]]:
    """Everybody, by name."""
    made: dict[str, Callable[..., peers.Train]] = {
        "groundup": partial(peers.groundup_train, shape),
        "groundup, activation checkpointing": partial(
            peers.groundup_train, shape, checkpointing=True
        ),
        "nanoGPT": partial(peers.nanogpt_train, shape, fused=True),
        "transformers": partial(peers.transformers_train, shape, fused=True),
    }
    found: dict[str, Callable[[], peers.Train]] = {}
    for name, make in made.items():
        found[name] = partial(make, bf16=True, **how)
        found[f"{name}, compiled"] = partial(make, bf16=True, compiled=True, **how)
    return found


def flops_per_token(shape: ModelConfig, parameters: int) -> float:
    """``6 N + 12 L C T`` (PaLM's appendix B, as nanoGPT counts), without the positions' vectors."""
    counted = parameters - shape.context_length * shape.emb_dim
    return 6 * counted + 12 * shape.n_layers * shape.emb_dim * shape.context_length


def measure(
    make: Callable[[], peers.Train], shape: ModelConfig, batch: int, rounds: int, device: str
) -> dict[str, float]:
    """Tokens per second and, on a GPU, MiB at most."""
    step = make()
    x, y = torch.randint(0, shape.vocab_size, (2, batch, shape.context_length), device=device)
    on_gpu = device == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    for _ in range(WARM_UP):
        step(x, y)
    wait()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        step(x, y)
        wait()
        times.append(time.perf_counter() - begin)
    found = {"tokens_per_second": round(x.numel() / median(times), 1)}
    if on_gpu:
        found["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return found


def measure_all(
    shape: ModelConfig,
    batch: int,
    rounds: int,
    flops: float | None,
    device: str = "cuda",
    only: Callable[[str], bool] = lambda name: True,
) -> Mapping[str, dict[str, float]]:
    """Each in turn, with MFU where the card's peak is known."""
    with torch.device("meta"):
        per_token = flops_per_token(shape, GPTModel(shape).num_parameters())
    results: dict[str, dict[str, float]] = {}
    for name, make in ways(shape, device=device).items():
        if not only(name):
            continue
        found = results[name] = measure(make, shape, batch, rounds, device)
        if flops:
            found["mfu"] = round(found["tokens_per_second"] * per_token / flops, 3)
        print(name, found, flush=True)
        torch.compiler.reset()
        if device == "cuda":
            torch.cuda.empty_cache()
    return results


def peak_flops(card: str) -> float | None:
    """Of a card by its name, if it is known."""
    return next((flops for name, flops in PEAKS.items() if name in card), None)


def main() -> None:
    parser = argparse.ArgumentParser(description="training on a GPU side by side")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--flops", help="the card's dense bf16 peak, such as 989T")
    parser.add_argument("--only", action="append", help="one of the ways; may be repeated")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py measures on a GPU, and PyTorch sees none here")

    card = torch.cuda.get_device_name()
    flops = parse_flops("--flops", args.flops) if args.flops else peak_flops(card)
    wanted = (lambda name: name in args.only) if args.only else (lambda name: True)
    results = measure_all(peers.CONFIG, BATCH, args.rounds, flops, only=wanted)
    report(
        "gpu",
        {"card": card, "peak_flops": flops, "ways": results},
        kind=card.replace(" ", "-").lower(),
    )


if __name__ == "__main__":
    main()
