"""This checkout against an earlier one, in turns: what must not get worse when the core changes.

    git worktree add ../before 2d488b9
    python benchmarks/before_after.py --before ../before --rounds 5

Every measurement is a process of its own, one of each checkout after the other and in turns who is
first, so that a machine whose speed drifts slows both alike. Prints medians, and the ratio after /
before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from common import kept_results, report

PEAK = """
import resource
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
"""

TRAIN = (
    PEAK
    + """
import json, sys, time, torch
from groundup.config import preset
from groundup.model.gpt import GPTModel
name, batch, tokens, steps = sys.argv[1], *map(int, sys.argv[2:5])
cfg = preset("tiny").replace(vocab_size=1024, drop_rate=0.0) if name == "demo" else preset(name)
model = GPTModel(cfg.replace(drop_rate=0.0)).init_gpt2()
try:
    from groundup.train.losses import next_token_loss as loss
except ImportError:
    loss = lambda model, x, y: model(x, targets=y)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
x, y = torch.randint(0, cfg.vocab_size, (2, batch, tokens))
times = []
for _ in range(steps + 1):
    begun = time.perf_counter()
    (loss(model, x, y) / y.numel()).backward()
    optimizer.step()
    optimizer.zero_grad()
    times.append(time.perf_counter() - begun)
times = sorted(times[1:])
print(json.dumps({"tokens_per_second": y.numel() / times[len(times) // 2], "peak_mib": peak()}))
"""
)

GENERATE = (
    PEAK
    + """
import json, sys, time, torch
from groundup.config import preset
from groundup.decoding.engine import generate_text_simple
from groundup.model.gpt import GPTModel
torch.manual_seed(0)
name, new = sys.argv[1], int(sys.argv[2])
cfg = preset("tiny").replace(vocab_size=1024) if name == "demo" else preset(name)
model = GPTModel(cfg).init_gpt2().eval()
idx = torch.randint(0, cfg.vocab_size, (1, 64))
generate_text_simple(model, idx, 4, cfg.context_length)
begun = time.perf_counter()
out = generate_text_simple(model, idx, new, cfg.context_length)
print(json.dumps({"tokens_per_second": new / (time.perf_counter() - begun), "peak_mib": peak(),
                  "text": out[0].tolist()}))
"""
)

OPEN = (
    PEAK
    + """
import json, sys, time, torch
from groundup.weights.load import load_model
before, begun = peak(), time.perf_counter()
load_model(sys.argv[1])
print(json.dumps({"seconds": time.perf_counter() - begun, "peak_mib": peak() - before}))
"""
)

HELP = """
import json, subprocess, sys, time
begun = time.perf_counter()
subprocess.run([sys.executable, "-m", "groundup", "--help"], stdout=subprocess.DEVNULL, check=True)
print(json.dumps({"seconds": time.perf_counter() - begun}))
"""

SAVE = """
import sys, torch
from groundup.config import preset
from groundup.model.gpt import GPTModel
from groundup.tokenizers import get_gpt2_tokenizer
from groundup.weights.checkpoint import save_model
with torch.device("meta"):
    model = GPTModel(preset("gpt2-xl"))
model.to_empty(device="cpu")
model.out_head.weight = model.tok_emb.weight
for p in model.parameters():
    p.data.normal_(0, 0.02)
save_model(sys.argv[1], model, get_gpt2_tokenizer())
"""


def run(source: Path, code: str, *arguments: object) -> dict[str, object]:
    """One measurement with the package of this checkout."""
    environment = os.environ | {"PYTHONPATH": str(source / "src"), "GOMP_SPINCOUNT": "1000"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(found.stdout or "{}")


def main() -> None:
    parser = argparse.ArgumentParser(description="what must not get worse")
    parser.add_argument("--before", type=Path, required=True, help="the earlier checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only what has this in its name; others stay")
    parser.add_argument("--xl", action="store_true", help="open a GPT-2 XL too (6 GB of disk)")
    args = parser.parse_args()
    after = Path(__file__).parents[1]
    measurements: dict[str, tuple[object, ...]] = {
        "training 124M, batch 2 x 256": (TRAIN, "gpt2-small", 2, 256, 3),
        "training the demo's model, batch 16 x 128": (TRAIN, "demo", 16, 128, 15),
        "generation 124M, 64 + 64 tokens": (GENERATE, "gpt2-small", 64),
        "generation, the demo's model, 64 + 200 tokens": (GENERATE, "demo", 200),
        "groundup --help": (HELP,),
    }
    with tempfile.TemporaryDirectory() as folder:
        if args.xl:
            run(after, SAVE, folder)
            measurements["opening GPT-2 XL"] = (OPEN, folder)
        results = kept_results("before_after") if args.only else {}
        for name, (code, *arguments) in measurements.items():
            if args.only not in name:
                continue
            found: dict[str, list[dict[str, object]]] = {"before": [], "after": []}
            pair = [("before", args.before), ("after", after)]
            for number in range(args.rounds):
                for which, source in pair if number % 2 else reversed(pair):
                    found[which].append(run(source, str(code), *arguments))
                    time.sleep(0.5)
            results[name] = _summary(found)
            print(name, results[name], file=sys.stderr, flush=True)
    report("before_after", results)


def _summary(found: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    """Medians of every figure, and whether the texts are the same."""
    summary: dict[str, object] = {}
    for figure in found["before"][0]:
        if figure == "text":
            texts = [row["text"] for rows in found.values() for row in rows]
            summary["the same text"] = all(text == texts[0] for text in texts)
            continue
        values = {
            which: median(float(str(row[figure])) for row in rows) for which, rows in found.items()
        }
        ratio = round(values["after"] / values["before"], 3)
        summary[figure] = {which: round(v, 3) for which, v in values.items()} | {"ratio": ratio}
    return summary


if __name__ == "__main__":
    main()
