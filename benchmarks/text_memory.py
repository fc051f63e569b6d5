"""Peak memory and time of a long text: this checkout against an earlier one, one after the other.

    git worktree add ../before 9d16b0b
    python benchmarks/text_memory.py --before ../before book.txt

The text is one document. Measured are a pretraining's beginning (tokens, windows, one step of a
small model) and the training of a tokenizer, each a process of its own; peak resident MiB, over
those of the same process with next to no text.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import report

ROOT = Path(__file__).parents[1]
MAIN = "import sys; from groundup.cli import main; sys.exit(main(sys.argv[1:]))"
FEW_STEPS = "--preset nano --max-steps 1 --threads 1 --eval-iter 1 --sample-tokens 0".split()
WAYS = {
    "pretrain, tokens of GPT-2": ["pretrain", *FEW_STEPS, "--tokenizer", "gpt2"],
    "pretrain, tokens of its own": ["pretrain", *FEW_STEPS],
    "tokenizer train, 4,096 tokens": ["tokenizer", "train", "--vocab-size", "4096"],
}


def run(checkout: Path, command: list[str], text: Path) -> tuple[float, float]:
    """Peak MiB and seconds of a command on a text."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
        arguments = [*command, str(text), "--out", f"{folder}/out"]
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, *arguments], env=environment, stderr=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(arguments)} has failed in {checkout}")
        return used.ru_maxrss / 1024, time.perf_counter() - begin


def main() -> None:
    """Measure both checkouts in turns and keep the report."""
    parser = argparse.ArgumentParser(description="peak memory of a long text")
    parser.add_argument("text", type=Path)
    parser.add_argument("--before", type=Path, required=True, help="the earlier checkout")
    options = parser.parse_args()
    results: dict[str, object] = {"megabytes": round(options.text.stat().st_size / 1e6, 1)}
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as short:
        short.write(options.text.read_text("utf-8")[:20_000])
        short.flush()
        for name, command in WAYS.items():
            found = {}
            for which, checkout in (("before", options.before), ("after", ROOT)):
                without, _ = run(checkout, command, Path(short.name))
                peak, seconds = run(checkout, command, options.text)
                found[which] = {
                    "peak_mib": round(peak),
                    "for_the_text_mib": round(peak - without),
                    "seconds": round(seconds, 1),
                }
            ratio = found["after"]["for_the_text_mib"] / found["before"]["for_the_text_mib"]
            results[name] = found | {"ratio": round(ratio, 3)}
    report("text_memory", results)


if __name__ == "__main__":
    main()
