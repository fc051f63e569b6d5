"""Our server beside llama.cpp's, on the same weights: tokens per second, and time to the first.

    python benchmarks/serve.py                       # GPT-2 124M with random weights
    python benchmarks/serve.py --preset nano --new 8 --requests 1 --rounds 1   # does it run?

1, 4, 16 and 64 clients at once stream completions of prompts of 64 tokens, each its own, and 64 new
tokens, drawn from the likeliest 40 (greedy texts of random weights go in circles, which groundup
guesses), in fp32; each client asks several times, one after the other. Both servers are
processes of their own with two threads, as many slots as clients, and take turns; llama.cpp
(``xllamacpp``) reads our own GGUF export. The client is the same, and shares the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import httpx
import torch

from common import report
from groundup import GPTModel
from groundup.config import preset
from groundup.tokenizers import get_gpt2_tokenizer
from groundup.weights.checkpoint import save_model
from groundup.weights.gguf import export_gguf

CLIENTS = (1, 4, 16, 64)
NAME = "model"


class Took(NamedTuple):
    """One request: seconds to its first token, and how many tokens there were."""

    first: float
    tokens: int


@contextmanager
def server(who: str, model: Path, gguf: Path, threads: int, context: int) -> Iterator[str]:
    """One of the two, in a process of its own; yield its address."""
    slots = str(max(CLIENTS))
    ours = ["-m", "groundup", "serve", f"{NAME}={model}", "--port", "0", "--precision", "fp32"]
    ours += ["--max-batch", slots, "--queue", slots]
    theirs = [__file__, "--serve", str(gguf), "--slots", slots, "--context", str(context)]
    theirs += ["--threads", str(threads)]
    command = [sys.executable, *(ours if who == "groundup" else theirs)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        url = None
        while url is None and (line := process.stderr.readline()):
            url = re.search(r" at (http://\S+)", line)
        assert url is not None, f"{who} did not start"
        yield url[1]
    finally:
        process.terminate()
        process.wait(timeout=60)


def be_llama(path: Path, threads: int, slots: int, context: int) -> None:
    """What the process of llama.cpp does."""
    from llama_server import serve

    with serve(path, threads, slots=slots, context=context) as url:
        print("serving at", url.removesuffix("/v1"), file=sys.stderr, flush=True)
        while True:
            time.sleep(60)


async def ask(client: httpx.AsyncClient, name: str, prompt: list[int], new: int) -> Took:
    asked: dict[str, Any] = {"model": name, "prompt": prompt, "max_tokens": new, "seed": prompt[0]}
    asked |= {"temperature": 1, "top_k": 40, "top_p": 1, "min_p": 0}
    asked |= {"stream": True, "stream_options": {"include_usage": True}}
    begin, first, tokens = time.perf_counter(), None, 0
    async with client.stream("POST", "/v1/completions", json=asked) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if chunk.get("choices") and first is None:
                first = time.perf_counter() - begin
            if chunk.get("usage"):
                tokens = chunk["usage"]["completion_tokens"]
    assert first is not None and tokens, "nothing was written"
    return Took(first, tokens)


async def load(
    url: str, clients: int, requests: int, prompt: int, new: int, vocab_size: int, seed: int
) -> dict[str, float]:
    """So many clients at once, each with so many requests one after the other."""
    draw = random.Random(seed)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)  # some close them
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        name = (await client.get("/v1/models")).json()["data"][0]["id"]

        def prompts(count: int) -> list[list[int]]:
            return [[draw.randrange(vocab_size) for _ in range(prompt)] for _ in range(count)]

        async def one(own: list[list[int]]) -> list[Took]:
            return [await ask(client, name, ids, new) for ids in own]

        await one(prompts(1))  # warm
        begin = time.perf_counter()
        took = await asyncio.gather(*(one(prompts(requests)) for _ in range(clients)))
        seconds = time.perf_counter() - begin
    each = [request for own in took for request in own]
    firsts = sorted(request.first for request in each)
    p95 = quantiles(firsts, n=20)[-1] if len(firsts) > 1 else firsts[0]
    tokens = sum(request.tokens for request in each)
    return {"tokens_per_second": tokens / seconds, "first_p50": median(firsts), "first_p95": p95}


def main() -> None:
    parser = argparse.ArgumentParser(description="our server beside llama.cpp's")
    parser.add_argument("--preset", default="gpt2-small")
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--requests", type=int, default=3, help="of each client")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default="serve")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--slots", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--context", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        be_llama(args.serve, args.threads, args.slots, args.context)
    torch.manual_seed(1)
    tokenizer = get_gpt2_tokenizer()
    shape = preset(args.preset).replace(vocab_size=tokenizer.vocab_size, drop_rate=0.0)
    if shape.context_length < args.prompt + args.new:
        shape = shape.replace(context_length=args.prompt + args.new)
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        directory, gguf = Path(folder) / NAME, Path(folder) / "model.gguf"
        model = GPTModel(shape).init_gpt2().eval()
        save_model(directory, model, tokenizer)
        export_gguf(model, tokenizer, gguf, "f32", name=NAME)
        del model
        for number in range(args.rounds):
            for who in ("groundup", "llama.cpp"):
                with server(who, directory, gguf, args.threads, args.prompt + args.new + 8) as url:
                    for clients in args.clients:
                        how = (clients, args.requests, args.prompt, args.new)
                        run = asyncio.run(load(url, *how, shape.vocab_size - 300, number))
                        found.setdefault((clients, who), []).append(run)
                        print(who, clients, run, flush=True)
    rows: dict[str, Any] = {"settings": {k: v for k, v in vars(args).items() if v is not None}}
    for clients in args.clients:
        rows[f"{clients} clients"] = {
            who: {
                name: round(median(run[name] for run in found[clients, who]), 4)
                for name in ("tokens_per_second", "first_p50", "first_p95")
            }
            for who in ("groundup", "llama.cpp")
        }
        ours, theirs = (
            rows[f"{clients} clients"][who]["tokens_per_second"]
            for who in ("groundup", "llama.cpp")
        )
        rows[f"{clients} clients"]["ratio"] = round(ours / theirs, 2)
    report(args.out, rows)


if __name__ == "__main__":
    main()
