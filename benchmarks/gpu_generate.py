"""Write texts on one GPU in bf16: ours beside transformers, and how near the memory's limit.

    python benchmarks/gpu_generate.py [--rounds 3] [--model gpt2-small --model llama3.2-1b]

Random weights, prompts of 64 tokens, 128 new ones, greedy, one text and 64 at a time: new tokens
per second of all of them from beginning to end (medians of interleaved rounds after one to warm
up; an engine is new each time, so it records its steps again). "as written" is ours without
recorded steps (``decoding/replay.py``). ``step_ms`` is what the GPU takes for a recorded step, and
``bandwidth`` the share of what this GPU copies per second that the weights of a step come to.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch

import peers
from common import report, rounds
from groundup.config import ModelConfig, preset
from groundup.decoding.config import SamplingConfig
from groundup.decoding.engine import Engine
from groundup.decoding.sequence import Sequence
from groundup.model.gpt import GPTModel

PROMPT, NEW, BATCHES = 64, 128, (1, 64)


def started(model: GPTModel, texts: int, recorded: bool = True, **how: Any) -> Engine:
    """An engine with so many prompts."""
    engine = Engine(model, max_batch=texts)
    if not recorded:
        engine.replays = None
    config = SamplingConfig(max_new_tokens=NEW, **how)
    for index in range(texts):
        prompt = [(7 * index + place) % model.cfg.vocab_size for place in range(PROMPT)]
        engine.add(Sequence(prompt, config, index=index))
    return engine


def write(model: GPTModel, texts: int, **how: Any) -> None:
    """All of them."""
    for _ in started(model, texts, **how).run():
        pass


def transformers_ways(shape: ModelConfig, texts: int) -> dict[str, Callable[[], object]]:
    """``model.generate``, for models of GPT-2's kind; no token ends a text."""
    if shape.rope:
        return {}
    model: Any = peers._transformers(shape).to("cuda", torch.bfloat16).eval()
    model.generation_config.eos_token_id = None
    idx = torch.randint(0, shape.vocab_size, (texts, PROMPT), device="cuda")
    asked = {"attention_mask": torch.ones_like(idx), "max_new_tokens": NEW, "do_sample": False}
    return {"transformers": partial(model.generate, idx, pad_token_id=0, **asked)}


def step_ms(model: GPTModel, texts: int, count: int = 50) -> float:
    """What the GPU takes for a recorded step with a text of some 100 tokens."""
    engine = started(model, texts)
    for _ in range(40):
        engine.step()
    assert engine.replays is not None
    (play,) = (step.play for step in engine.replays.steps.values() if step and step.play)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(count):
        play()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / count


def copy_bytes_per_second() -> float:
    """Bytes read and written per second by a copy of 2 GiB, the median of a few."""
    source = torch.empty(2**29, device="cuda").normal_()
    target, found = torch.empty_like(source), []
    for _ in range(10):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        found.append(2 * source.nbytes / begin.elapsed_time(end) * 1000)
    return median(found)


def measure(name: str, texts: int, count: int, memory: float) -> dict[str, Any]:
    """One model, so many texts at a time."""
    shape = preset(name).replace(drop_rate=0.0)
    with torch.device("cuda"):
        model = GPTModel(shape).to(torch.bfloat16).eval()
    ways: dict[str, Callable[[], object]] = {
        "groundup": partial(write, model, texts),
        "groundup, drawn with a temperature": partial(write, model, texts, temperature=0.8),
        "groundup, as written": partial(write, model, texts, recorded=False),
        **transformers_ways(shape, texts),
    }
    times = rounds(ways, count)
    found: dict[str, Any] = {name: round(texts * NEW / took) for name, took in times.items()}
    found["step_ms"] = round(step_ms(model, texts), 3)
    read = [weight for weight in (model.out_head.weight, *model.trf_blocks.parameters())]
    bytes_read = sum(weight.nbytes for weight in read)
    found["bandwidth"] = round(bytes_read / (found["step_ms"] / 1000) / memory, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="writing texts on a GPU side by side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", action="append", help="a preset; may be repeated")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu_generate.py measures on a GPU, and PyTorch sees none here")

    card, memory = torch.cuda.get_device_name(), copy_bytes_per_second()
    found: dict[str, Any] = {"card": card, "copy_tb_per_second": round(memory / 1e12, 2)}
    for name in args.model or ["gpt2-small", "llama3.2-1b"]:
        for texts in BATCHES:
            found[f"{name}, {texts} at a time"] = each = measure(name, texts, args.rounds, memory)
            print(name, texts, each, flush=True)
    report("gpu_generate", found, kind=card.replace(" ", "-").lower())


if __name__ == "__main__":
    main()
