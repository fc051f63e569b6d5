"""Our kernel beside PyTorch's product, for a few rows: ``python benchmarks/kernels.py``.

A matrix of 3,072 x 768, several of them, so that they come from memory; milliseconds for each, the
best of many interleaved rounds (a busy machine only ever makes it slower). Activations are fp32,
beside a matrix in bf16 bf16.
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

ROWS, SHAPE, MANY, ROUNDS = (1, 2, 4, 8, 16), (3072, 768), 24, 40
KINDS = {
    "fp32": lambda w: (w, None),
    "fp16": lambda w: (w.half(), None),
    "bf16": lambda w: (w.bfloat16(), None),
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
        kind: [make(torch.randn(SHAPE)) for _ in range(MANY)] for kind, make in KINDS.items()
    }
    rows = {}
    for count in ROWS:
        x = torch.randn(count, SHAPE[1])
        ways: dict[str, Any] = {}
        for kind, many in matrices.items():
            of = x.bfloat16() if kind == "bf16" else x
            ways[kind] = lambda many=many, x=of: [product(x, *one) for one in many]
            if kind in ("fp32", "bf16"):
                ways[f"PyTorch, {kind}"] = lambda many=many, x=of: [F.linear(x, w) for w, _ in many]
        rows[str(count)] = {name: round(ms / MANY, 4) for name, ms in best(ways).items()}
        print(count, rows[str(count)], flush=True)
    report("kernels", rows)


if __name__ == "__main__":
    main()
