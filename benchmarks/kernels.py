"""Our kernel beside PyTorch's product, for a few rows: ``python benchmarks/kernels.py``.

A matrix of 3,072 x 768, several of them, so that they come from memory; milliseconds for each, the
best of many interleaved rounds (a busy machine only ever makes it slower). PyTorch's own is fp32.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common import report
from groundup.kernels.build import unavailable
from groundup.kernels.products import product, quantized_int4, quantized_int8

ROWS, SHAPE, ROUNDS = (1, 2, 4, 8, 16), (3072, 768), 40
KINDS = {
    "fp32": lambda w: (w, None),
    "fp16": lambda w: (w.half(), None),
    "int8": quantized_int8,
    "int4": quantized_int4,
}


def best(ways: dict[str, Any]) -> dict[str, float]:
    """The least milliseconds that each took."""
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            found[name] = min(found[name], 1000 * (time.perf_counter() - begin))
    return found


@torch.no_grad()
def main() -> None:
    print(unavailable() or "the kernel is there")
    matrices: dict[str, list[tuple[Tensor, Tensor | None]]] = {
        kind: [make(torch.randn(SHAPE)) for _ in range(12)] for kind, make in KINDS.items()
    }
    plain = [weight for weight, _ in matrices["fp32"]]
    rows = {}
    for count in ROWS:
        x = torch.randn(count, SHAPE[1])
        ways: dict[str, Any] = {
            kind: lambda many=many, x=x: [product(x, *one) for one in many]
            for kind, many in matrices.items()
        }
        ways["PyTorch, fp32"] = lambda x=x: [F.linear(x, weight) for weight in plain]
        rows[str(count)] = {name: round(ms / len(plain), 4) for name, ms in best(ways).items()}
        print(count, rows[str(count)], flush=True)
    report("kernels", rows)


if __name__ == "__main__":
    main()
