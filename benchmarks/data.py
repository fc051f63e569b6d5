"""Big corpora: the rate of `groundup data prepare`, and what a training takes until its first step.

    bash make_corpus.sh texts && cat texts/*.txt > corpus.txt
    python benchmarks/data.py corpus.txt

The rate is that of the whole preparation, from file to shards, against raw
``tiktoken.encode_batch`` on the same cores, of documents that lie in memory already, by turns.
Peak resident MiB (of the process that trains, without those that encode, which are there only
while it waits) and seconds until the first step is done are measured for beginnings of the text,
repeated where it is too short: with the text in memory as before, from the file as it is now, and
from a corpus that was prepared. Every process is one of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from common import kept_results, report
from groundup.data.prepare import cores, prepare
from groundup.tokenizers import get_gpt2_tokenizer

ROOT = Path(__file__).parents[1]
SEPARATOR = "<|endoftext|>"
MAIN = """
import resource, sys, groundup.tasks.texts as texts
peak, texts.BIG = sys.argv.pop(1), int(sys.argv.pop(1))
from groundup.cli import main
status = main(sys.argv[1:])
lines = open("/proc/self/status").read().splitlines()
own = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
of_one_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
open(peak, "w").write(f"{own} {of_one_child}")
sys.exit(status)
"""
"""It notes its own peak: what the system tells of a child begins with its parent's."""
FEW_STEPS = "--preset nano --max-steps 3 --threads 1 --eval-iter 1 --sample-tokens 0".split()
SIZES = (1, 10, 30, 100)


def quiet(text: str) -> None:
    """Say nothing."""


def first_step(source: Path, big: int, options: list[str], folder: Path) -> dict[str, float]:
    """Peak MiB of a short training, and the seconds until its first step was done."""
    out = Path(tempfile.mkdtemp(dir=folder)) / "out"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    environment["GROUNDUP_CACHE"] = str(out.parent / "cache")
    command = ["pretrain", str(source), "--out", str(out), *FEW_STEPS, *options]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, str(out.parent / "peak"), str(big), *command],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    metrics, seconds = out / "metrics.jsonl", 0.0
    while process.poll() is None:
        if not seconds and metrics.exists() and metrics.stat().st_size:
            seconds = time.perf_counter() - begin
        time.sleep(0.02)
    if process.returncode or not seconds:
        raise SystemExit(f"{' '.join(command)} has failed")
    peak = int((out.parent / "peak").read_text("utf-8").split()[0]) / 1024
    return {"peak_mib": round(peak), "first_step_s": round(seconds, 1)}


def whole(source: Path, out: Path, folder: Path) -> dict[str, object]:
    """`groundup data prepare` of a file: seconds, and MiB of its process and of the largest child.

    The load is that of other work before it began.
    """
    peak, load = folder / f"{out.name}-peak", os.getloadavg()[0]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", MAIN, str(peak), "0", "data", "prepare", str(source)]
    command += ["--document-separator", SEPARATOR, "--tokenizer", "gpt2", "--out", str(out)]
    begin, used = time.perf_counter(), cpu_seconds()
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
    seconds, cpu = time.perf_counter() - begin, cpu_seconds() - used
    own, of_one_child = (int(part) / 1024 for part in peak.read_text("utf-8").split())
    size = source.stat().st_size / 1e6
    return {
        "megabytes": round(size),
        "seconds": round(seconds),
        "cpu_s": round(cpu),
        "mb_per_s": round(size / seconds, 2),
        "mb_per_cpu_s": round(size / cpu, 2),
        "peak_mib": round(own),
        "peak_mib_of_a_worker": round(of_one_child),
        "load_before": round(load, 2),
    }


def large(data: bytes, folder: Path) -> dict[str, object]:
    """100 MB and 1,000 MB of text, prepared and then trained on."""
    found: dict[str, object] = {}
    for size in (100, 1000):
        path, corpus, length = folder / f"{size}.txt", folder / f"large-{size}", size * 10**6
        with path.open("wb") as file:
            for _ in range(length // len(data)):
                file.write(data)
            file.write(data[: length % len(data)].decode("utf-8", "ignore").encode())
        prepared = whole(path, corpus, folder)
        path.unlink()
        found[str(size)] = {"prepare": prepared, "train": first_step(corpus, 0, [], folder)}
        print(size, found[str(size)], flush=True)
    return found


def rate(text: Path, count: int, folder: Path) -> dict[str, object]:
    """Megabytes per second of a preparation, and of tiktoken alone."""
    tokenizer, workers = get_gpt2_tokenizer(), cores()
    documents = text.read_text("utf-8").split(SEPARATOR)
    encode = tokenizer.encoding.encode_batch

    def prepared() -> None:
        how = {"separator": SEPARATOR, "workers": workers, "overwrite": True, "say": quiet}
        prepare([str(text)], folder / "rate", tokenizer, **how)

    def raw() -> None:
        encode(documents, num_threads=workers, disallowed_special=())

    size, load = text.stat().st_size / 1e6, os.getloadavg()[0]
    wall: dict[str, list[float]] = {"tiktoken": [], "prepare": []}
    cpu: dict[str, list[float]] = {"tiktoken": [], "prepare": []}
    for _ in range(count):
        for name, way in (("tiktoken", raw), ("prepare", prepared)):
            begin, used = time.perf_counter(), cpu_seconds()
            way()
            wall[name].append(time.perf_counter() - begin)
            cpu[name].append(cpu_seconds() - used)
    ratios = sorted(a / b for a, b in zip(wall["tiktoken"], wall["prepare"], strict=True))
    return {
        "megabytes": round(size, 1),
        "documents": len(documents),
        "cores": workers,
        "mb_per_s": {name: round(size / median(found), 2) for name, found in wall.items()},
        "cpu_s": {name: round(median(found), 2) for name, found in cpu.items()},
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ratio": round(median(ratios), 3),
        "load_before": round(load, 2),  # of other work: a rate beside it says little
    }


def cpu_seconds() -> float:
    """What this process and those it has started and ended have used of all cores."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Measure all and keep the report."""
    parser = argparse.ArgumentParser(description="big corpora")
    parser.add_argument("text", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate-megabytes", type=int, default=27)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--rate-only", action="store_true", help="keep the other figures")
    only.add_argument("--large-only", action="store_true", help="only 100 MB and 1,000 MB of text")
    options = parser.parse_args()
    data = options.text.read_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.large_only:
            report("data", kept_results("data") | {"large": large(data, folder)})
            return
        sample = folder / "sample.txt"
        sample.write_text(data[: options.rate_megabytes * 10**6].decode("utf-8", "ignore"), "utf-8")
        report("data", kept_results("data") | {"rate": rate(sample, options.rounds, folder)})
        if options.rate_only:
            return
        steps: dict[str, object] = {}
        separated = ["--document-separator", SEPARATOR, "--tokenizer", "gpt2"]
        for size in SIZES:
            path, corpus = folder / f"{size}.txt", folder / f"corpus-{size}"
            length = size * 10**6
            long = data * (1 + length // len(data))
            path.write_text(long[:length].decode("utf-8", "ignore"), "utf-8")
            found = {"in memory": first_step(path, 10**15, separated, folder)}
            found["automatic"] = first_step(path, 20_000_000, separated, folder)
            prepare([str(path)], corpus, get_gpt2_tokenizer(), separator=SEPARATOR, say=quiet)
            found["prepared"] = first_step(corpus, 0, [], folder)
            steps[str(size)] = found
        report("data", kept_results("data") | {"first step by megabytes": steps})
        report("data", kept_results("data") | {"large": large(data, folder)})


if __name__ == "__main__":
    main()
