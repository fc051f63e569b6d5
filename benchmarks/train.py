"""Train GPT-2 124M, batch 4 x 256, side by side: ours, transformers, the course's code.

    make bench                        # or: python benchmarks/train.py --rounds 5

Prints tokens per second (medians of interleaved steps, after one warm-up) and ratios to the
course's code. Everyone runs as its users run it; a step is forward, backward and AdamW.
"""

from __future__ import annotations

import argparse

import torch

import peers
from common import report, rounds

BATCH, TOKENS = 4, 256


def main() -> None:
    parser = argparse.ArgumentParser(description="training speed side by side")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    steps = {
        "groundup fp32": peers.groundup_train(bf16=False),
        "groundup bf16": peers.groundup_train(bf16=True),
        "transformers fp32": peers.transformers_train(bf16=False),
        "transformers bf16": peers.transformers_train(bf16=True),
    }
    if peers.has_course():
        steps["course fp32"] = peers.course_train(fast=False)
        steps["course, its fast variant, fp32"] = peers.course_train(fast=True)
    x, y = torch.randint(0, 50257, (2, BATCH, TOKENS))
    times = rounds({name: (lambda s=s: s(x, y)) for name, s in steps.items()}, args.rounds)
    base = times.get("course fp32", times["transformers fp32"])
    report(
        "train",
        {
            name: {"tokens_per_second": round(BATCH * TOKENS / t, 1), "ratio": round(base / t, 2)}
            for name, t in times.items()
        },
    )


if __name__ == "__main__":
    main()
