"""Generate with GPT-2 124M, batch 1, prompt 64, side by side with transformers and the course.

    make bench                        # or: python benchmarks/generate.py --rounds 5

Prints new tokens per second (medians of interleaved rounds, after one warm-up) and ratios to the
course's code, which computes the whole text anew for every token. In fp32, and where the CPU is
fast at it in bf16 too, which ``--precision auto`` then is.
"""

from __future__ import annotations

import argparse

import torch

import peers
from common import report, rounds
from groundup.runtime import fast_dtype

PROMPT, NEW = 64, 64


def main() -> None:
    parser = argparse.ArgumentParser(description="generation speed side by side")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    ways = {
        "groundup": peers.groundup_generate(),
        "transformers": peers.transformers_generate(),
    }
    if fast_dtype(torch.device("cpu")) == torch.bfloat16:
        ways["groundup, bf16"] = peers.groundup_generate(torch.bfloat16)
        ways["transformers, bf16"] = peers.transformers_generate(torch.bfloat16)
    if peers.has_course():
        ways["course"] = peers.course_generate()
    idx = torch.randint(0, 50257, (1, PROMPT))
    times = rounds({name: (lambda w=w: w(idx, NEW)) for name, w in ways.items()}, args.rounds)
    base = times.get("course", times["transformers"])
    report(
        "generate",
        {
            name: {"tokens_per_second": round(NEW / t, 1), "ratio": round(base / t, 2)}
            for name, t in times.items()
        },
    )


if __name__ == "__main__":
    main()
