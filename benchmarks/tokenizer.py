"""Measure our BPE against Rust: training against tokenizers, encoding against tiktoken.

    python benchmarks/tokenizer.py tinyshakespeare.txt

Training learns the same merges with both (checked); encoding uses one vocabulary, the trained one,
for both (the ids are checked too). "cold" is the first text that a tokenizer sees, "warm" the same
text again, when its pieces are cached. Rounds are interleaved, so that a busy machine is busy for
both; a ratio above 1 means that ours takes longer.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import tiktoken

from common import report
from groundup.tokenizers import BPETokenizer, train_with_library
from groundup.tokenizers.byte_level import SPLIT_PATTERN


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(ours: list[float], theirs: list[float]) -> dict[str, float]:
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return {
        "ours_s": round(statistics.median(ours), 4),
        "theirs_s": round(statistics.median(theirs), 4),
        "ratio": round(ratio, 2),
    }


def as_tiktoken(tokenizer: BPETokenizer) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        "trained",
        pat_str=SPLIT_PATTERN,
        mergeable_ranks=tokenizer.vocabulary.ids,
        special_tokens=tokenizer.special_tokens,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="our BPE against tokenizers and tiktoken")
    parser.add_argument("text", type=Path, help="a text file")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    text = args.text.read_text(encoding="utf-8")

    trained = BPETokenizer.train(text, args.vocab_size)
    if trained.merges != train_with_library(text, args.vocab_size).merges:
        raise SystemExit("the merges differ from those of the tokenizers library")
    peer = as_tiktoken(trained)
    ids = trained.encode(text)
    if ids != peer.encode_ordinary(text):
        raise SystemExit("the ids differ from tiktoken's")

    names = ["train", "train_library", "cold", "warm", "tiktoken", "decode", "tiktoken_decode"]
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(args.rounds):
        fresh = BPETokenizer(trained.vocabulary)
        work: list[Callable[[], object]] = [
            lambda: BPETokenizer.train(text, args.vocab_size),
            lambda: train_with_library(text, args.vocab_size),
            lambda fresh=fresh: fresh.encode(text),
            lambda fresh=fresh: fresh.encode(text),
            lambda: peer.encode_ordinary(text),
            lambda: trained.decode(ids),
            lambda: peer.decode(ids),
        ]
        for name, function in zip(names, work, strict=True):
            times[name].append(seconds(function))

    results = {
        "text": args.text.name,
        "megabytes": round(len(text.encode()) / 1e6, 2),
        "tokens": len(ids),
        "vocab_size": trained.vocab_size,
        "rounds": args.rounds,
        "train_vs_tokenizers": compare(times["train"], times["train_library"]),
        "encode_cold_vs_tiktoken": compare(times["cold"], times["tiktoken"]),
        "encode_warm_vs_tiktoken": compare(times["warm"], times["tiktoken"]),
        "decode_vs_tiktoken": compare(times["decode"], times["tiktoken_decode"]),
    }
    report("tokenizer", results)


if __name__ == "__main__":
    main()
