"""Causal attention on a CPU, forward and backward: PyTorch's kernel, and spelled out.

    python benchmarks/attention.py

Shapes are (batch, heads, tokens, columns per head); milliseconds, medians of interleaved rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from common import report, rounds
from groundup.model.attention import attend_explicitly

SHAPES = [(8, 4, 128, 64), (8, 12, 64, 64), (16, 6, 128, 32), (4, 12, 256, 64), (4, 12, 512, 64)]


def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The kernel as the model calls it."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def step(way: Callable[..., Tensor], qkv: list[Tensor]) -> None:
    """Forward and backward."""
    way(*qkv).sum().backward()


def main() -> None:
    results = []
    for shape in SHAPES:
        for dtype in (torch.bfloat16, torch.float32):
            qkv = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]
            ways = {"kernel": partial(step, kernel, qkv)}
            ways["spelled out"] = partial(step, attend_explicitly, qkv)
            times = rounds(ways, 9)
            milliseconds = {name: round(1000 * seconds, 1) for name, seconds in times.items()}
            results.append({"shape": shape, "dtype": str(dtype)[6:], **milliseconds})
    report("attention", results)


if __name__ == "__main__":
    main()
