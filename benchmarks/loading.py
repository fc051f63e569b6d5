"""Peak memory of opening a model, against the size of its weights: GPT-2 XL's shape by default.

    python benchmarks/loading.py [--preset gpt2-xl]

It saves a model with random weights to a temporary folder (6 GB for gpt2-xl), opens it in a process
of its own, and watches that process's memory. "own" is what the process allocated; "with files"
counts the pages of the weights' file that the system keeps mapped as well, and could drop any time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from common import report
from groundup.config import preset
from groundup.model.gpt import GPTModel
from groundup.tokenizers import get_gpt2_tokenizer
from groundup.weights.checkpoint import save_model

OPEN = """
import sys, torch, safetensors, tiktoken
from groundup.weights.load import load_model
print("ready", flush=True); sys.stdin.readline()
model, tokenizer = load_model(sys.argv[1])
print("done", flush=True)
"""


def memory(pid: int) -> dict[str, int]:
    """Bytes of memory by kind, from Linux's own accounting."""
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line[:3] == "Rss"}


def peak_while_opening(folder: Path) -> dict[str, int]:
    """Peak bytes over those before the weights were opened."""
    process = subprocess.Popen(
        [sys.executable, "-c", OPEN, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout
    process.stdout.readline()
    before, peak = memory(process.pid), {"own": 0, "with files": 0}
    process.stdin.write("\n")
    process.stdin.flush()
    while process.poll() is None:
        try:
            now = memory(process.pid)
            own = now["RssAnon"] - before["RssAnon"]
            files = now["RssFile"] - before["RssFile"]
        except (OSError, KeyError):  # it has just ended
            break
        peak["own"] = max(peak["own"], own)
        peak["with files"] = max(peak["with files"], own + files)
        time.sleep(0.005)
    if process.wait():
        raise SystemExit("opening the model failed")
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description="peak memory of opening a model")
    parser.add_argument("--preset", default="gpt2-xl")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with torch.device("meta"):
            model = GPTModel(preset(args.preset))
        model.to_empty(device="cpu")
        model.out_head.weight = model.tok_emb.weight
        for p in model.parameters():
            p.data.normal_(0, 0.02)
        save_model(folder, model, get_gpt2_tokenizer())
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        del model
        peak = peak_while_opening(Path(folder))
    report(
        f"loading-{args.preset}",
        {
            "weights_bytes": weights,
            "peak_bytes": peak,
            "ratio": {kind: round(size / weights, 3) for kind, size in peak.items()},
        },
    )


if __name__ == "__main__":
    main()
