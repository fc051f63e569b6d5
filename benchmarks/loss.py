"""The output layer with its loss, forward and backward: ours, the plain way, PyTorch's own fusion.

    python benchmarks/loss.py [--rounds 7]

"per token" is for objectives that weigh each token's loss themselves, which is measured with random
weights; the others sum.

"rows of logits" is the first product alone, and where each row of its result begins.

Prints JSON: median seconds over interleaved rounds, and ratios to the plain way (of the same kind).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from common import machine_kind, report, rounds
from groundup.model.logits import MULTIPLE, spaced
from groundup.model.loss import linear_cross_entropy


def measure(n: int, c: int, v: int, bf16: bool, count: int) -> dict[str, dict[str, float]]:
    """Time every way on ``n`` tokens of width ``c`` and a vocabulary of ``v``."""
    torch.manual_seed(0)
    features = torch.randn(n, c, requires_grad=True)
    weight = (0.02 * torch.randn(v, c)).requires_grad_()
    targets = torch.randint(0, v, (n,))
    factors = torch.randn(n)

    def plain(reduction: str) -> torch.Tensor:
        logits = F.linear(features, weight).float()
        return F.cross_entropy(logits, targets, reduction=reduction)

    ways = {
        "plain": lambda: plain("sum"),
        "groundup": lambda: linear_cross_entropy(features, weight, targets),
        "plain, per token": lambda: (plain("none") * factors).sum(),
        "groundup, per token": lambda: (
            linear_cross_entropy(features, weight, targets, "none") * factors
        ).sum(),
    }
    if hasattr(F, "linear_cross_entropy"):  # PyTorch 2.13
        options = torch.nn.LinearCrossEntropyOptions()
        ways["torch, chunked"] = lambda: F.linear_cross_entropy(
            features, weight, targets, reduction="sum", options=options
        )

    def step(way: Callable[[], torch.Tensor]) -> None:
        features.grad = weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = way()
        loss.backward()

    times = rounds({name: partial(step, way) for name, way in ways.items()}, count)
    found = {}
    for name, seconds in times.items():
        base = times["plain, per token" if "per token" in name else "plain"]
        found[name] = {"seconds": seconds, "ratio": round(seconds / base, 3)}
    return found


@torch.no_grad()
def layouts(n: int, c: int, v: int, count: int) -> dict[str, float]:
    """The logits' product alone, in fp32 into memory that is there, by how rows of it lie."""
    x, weight = torch.randn(n, c), 0.02 * torch.randn(v, c)
    close, apart = torch.empty(n, v), torch.empty(n, spaced(v))[:, :v]
    ways = {
        "one after another": lambda: torch.mm(x, weight.T, out=close),
        f"{MULTIPLE} apart": lambda: torch.mm(x, weight.T, out=apart),
    }
    return rounds(ways, count)


def main() -> None:
    parser = argparse.ArgumentParser(description="the output layer with its loss")
    parser.add_argument("--rounds", type=int, default=7)
    count = parser.parse_args().rounds
    results = {}
    for n, c, v in ((1024, 768, 50257), (2048, 192, 1024)):
        for bf16 in (False, True) if machine_kind() != "avx2" else (False,):  # slow there
            name = f"{n} tokens, width {c}, {v} tokens known, {'bf16' if bf16 else 'fp32'}"
            results[name] = measure(n, c, v, bf16, count)
        if v > n:
            results[f"rows of logits, {n} by {v}"] = layouts(n, c, v, count)
    report("loss", results)


if __name__ == "__main__":
    main()
