"""The output layer with its loss, forward and backward: ours, the plain way, PyTorch's own fusion.

    python benchmarks/loss.py

Prints JSON: median seconds over interleaved rounds, and ratios to the plain way.
"""

from __future__ import annotations

import torch
from common import report, rounds
from torch.nn import functional as F

from groundup.train.fused_loss import linear_cross_entropy


def main() -> None:
    results = {}
    for n, c, v in ((1024, 768, 50257), (2048, 192, 1024)):
        torch.manual_seed(0)
        features = torch.randn(n, c, requires_grad=True)
        weight = (0.02 * torch.randn(v, c)).requires_grad_()
        targets = torch.randint(0, v, (n,))

        def plain() -> torch.Tensor:
            logits = F.linear(features, weight).float()
            return F.cross_entropy(logits, targets, reduction="sum")

        ways = {"plain": plain, "groundup": lambda: linear_cross_entropy(features, weight, targets)}
        if hasattr(F, "linear_cross_entropy"):  # PyTorch 2.13
            options = torch.nn.LinearCrossEntropyOptions()
            ways["torch, chunked"] = lambda: F.linear_cross_entropy(
                features, weight, targets, reduction="sum", options=options
            )
        for bf16 in (False, True):

            def step(way) -> None:
                features.grad = weight.grad = None
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = way()
                loss.backward()

            name = f"{n} tokens, width {c}, {v} tokens known, {'bf16' if bf16 else 'fp32'}"
            times = rounds({k: (lambda w=w: step(w)) for k, w in ways.items()}, 7)
            results[name] = {
                way: {"seconds": t, "ratio": round(t / times["plain"], 3)}
                for way, t in times.items()
            }
    report("loss", results)


if __name__ == "__main__":
    main()
