"""The plan's memory beside what a training step really takes: GPT-2 124M, batch 4 x 256, in fp32.

    python benchmarks/planned_memory.py

Each case is a process of its own: peak resident memory over that of the same process before it has
a model. Measured as it is, and with glibc giving back each tensor's memory when it is freed
(``MALLOC_MMAP_THRESHOLD_``), which is what the plan counts; the rest is glibc's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from common import report
from groundup.config import ModelConfig, preset
from groundup.model.activations import activations
from groundup.model.gpt import GPTModel
from groundup.model.report import costs
from groundup.planning.memory import Need
from groundup.train.config import TrainConfig
from groundup.train.objective import NextToken
from groundup.train.optim import build_optimizer

CFG = preset("gpt2-small").replace(context_length=256)
CASES = {
    "one batch of 4": (0.0, 4, 1),
    "2 batches of 2 per step": (0.0, 2, 2),
    "one batch of 4, dropout 0.1": (0.1, 4, 1),
}
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def status(name: str) -> int:
    """Bytes that Linux says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def train(cfg: ModelConfig, texts: int, micro_batches: int, steps: int) -> None:
    """Some steps of AdamW."""
    model = GPTModel(cfg)
    optimizer = build_optimizer(model, TrainConfig())
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        for _ in range(micro_batches):
            ids = torch.randint(0, cfg.vocab_size, (texts, cfg.context_length))
            NextToken().loss(model, (ids, ids)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def measure(case: str) -> None:
    """In a process of its own: print the peak."""
    drop_rate, texts, micro_batches = CASES[case]
    small = CFG.replace(n_layers=1, emb_dim=32, n_heads=2, vocab_size=99, context_length=16)
    train(small, 1, 1, 1)  # libraries
    before = status("VmRSS")
    train(CFG.replace(drop_rate=drop_rate), texts, micro_batches, 2)
    print(json.dumps(status("VmHWM") - before))


def main() -> None:
    """Measure all cases and keep the report."""
    parser = argparse.ArgumentParser(description="planned memory beside measured memory")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        return measure(options.case)
    results = {}
    for case, (drop_rate, texts, micro_batches) in CASES.items():
        cfg = CFG.replace(drop_rate=drop_rate)
        found = costs(cfg)
        need = Need(cfg, found.unique_parameters, found.block_parameters, activations(cfg))
        planned = need.at(texts, accumulating=micro_batches > 1).peak
        command = [sys.executable, __file__, "--case", case]
        tensors, process = (
            int(subprocess.check_output(command, env=os.environ | more))
            for more in (GIVES_BACK, {})
        )
        results[case] = {
            "planned_mib": round(planned / 2**20),
            "tensors_mib": round(tensors / 2**20),
            "process_mib": round(process / 2**20),
            "planned_to_tensors": round(planned / tensors, 3),
            "planned_to_process": round(planned / process, 3),
        }
    report("planned_memory", results)


if __name__ == "__main__":
    main()
