"""Writing a text beside llama.cpp, on the same weights: full precision and fewer bytes per weight.

    python benchmarks/decode.py                      # GPT-2 124M with random weights
    python benchmarks/decode.py --model smollm2-135m

Batch 1, a prompt of 64 tokens, 128 new ones, greedy; and a prompt of 512 at once. llama.cpp
(``xllamacpp``) reads our own GGUF export; both have two threads, and take turns. Where the CPU is
fast at bf16, so is everything of ours but fp32: that is ``--precision auto``. ``bandwidth`` is
the share of what this machine reads from memory that the weights of a token come to. Of ours alone,
a batch of 16 texts too: tokens per second of all, and how many times batch 1's.

    python benchmarks/decode.py --batch-only         # that alone; the other figures stay
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch

from common import kept_results, report
from groundup import GPTModel, load_model
from groundup.config import Quantization, preset
from groundup.kernels.build import unavailable
from groundup.model.quantized import quantize
from groundup.runtime import fast_dtype
from groundup.tokenizers import get_gpt2_tokenizer
from groundup.weights.gguf import DType, export_gguf

PROMPT, NEW, LONG, BATCH = 64, 128, 512, 16
QUANTIZED: tuple[Quantization, ...] = ("fp16", "int8", "int4")
THEIRS: dict[str, DType] = {
    "fp32": "f32",
    "bf16": "bf16",
    "fp16": "f16",
    "int8": "q8_0",
    "int4": "q4_0",
}


def ways(model: GPTModel) -> dict[str, GPTModel]:
    """The model in full precision and in fewer bytes, by name."""
    fast = fast_dtype(torch.device("cpu"))
    found = {"fp32": model}
    if fast == torch.bfloat16:
        found["bf16"] = copy.deepcopy(model).to(fast)
    for kind in QUANTIZED:
        found[kind] = quantize(copy.deepcopy(model), kind).to(fast)
    return found


def bandwidth() -> float:
    """Bytes per second that this machine reads: the best of adding up 256 MB a few times."""
    numbers = torch.ones(1 << 26)
    found = []
    for _ in range(7):
        begin = time.perf_counter()
        numbers.sum()
        found.append(numbers.numel() * 4 / (time.perf_counter() - begin))
    return max(found)


@torch.no_grad()
def ours(model: GPTModel, ids: torch.Tensor) -> dict[str, float]:
    """Tokens per second of a prompt of LONG, and of NEW tokens after one of PROMPT."""
    cache = model.new_cache(capacity=LONG)
    begin = time.perf_counter()
    model(ids[:, :LONG], cache, at=torch.tensor([-1]))
    prompt = time.perf_counter() - begin
    return {"prompt": LONG / prompt, "new": written(model, ids, 1, NEW)}


@torch.no_grad()
def written(model: GPTModel, ids: torch.Tensor, batch: int, new: int) -> float:
    """Tokens per second of as many texts at a time, of all of them."""
    cache = model.new_cache(batch, capacity=PROMPT + new)
    last = torch.full((batch,), -1)
    token = model(ids[:, :PROMPT].repeat(batch, 1), cache, at=last).argmax(-1)
    begin = time.perf_counter()
    for _ in range(new):
        token = model(token[:, None], cache, at=last).argmax(-1)
    return batch * new / (time.perf_counter() - begin)


def batches(models: dict[str, GPTModel], ids: torch.Tensor, rounds: int) -> dict[str, Any]:
    """A batch beside one text."""
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(rounds + 1):
        for name, model in models.items():
            both = written(model, ids, BATCH, NEW // 4), written(model, ids, 1, NEW // 4)
            found.setdefault(name, []).extend([both] if number else [])
    return {
        f"{name}, batch of {BATCH}": {
            "groundup": round(median(many for many, _ in each), 1),
            "times_alone": round(median(many / one for many, one in each), 2),
        }
        for name, each in found.items()
    }


class LlamaCpp:
    """llama.cpp with one file."""

    def __init__(self, path: Path) -> None:
        llama: Any = import_module("xllamacpp")
        params = llama.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_gpu_layers, params.verbosity = 1024, 0, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
        self.server = llama.Server(params)

    def __call__(self, ids: list[int]) -> dict[str, float]:
        """Tokens per second, as :func:`ours`, by its own clock."""
        asked = {"temperature": 0, "ignore_eos": True, "cache_prompt": False}
        long = self.server.handle_completions({"prompt": ids[:LONG], "n_predict": 1, **asked})
        short = self.server.handle_completions({"prompt": ids[:PROMPT], "n_predict": NEW, **asked})
        return {
            "prompt": long["timings"]["prompt_per_second"],
            "new": short["timings"]["predicted_per_second"],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="writing beside llama.cpp")
    parser.add_argument("--model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-only", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(1)
    if args.model:
        model, tokenizer = load_model(args.model)
    else:
        model, tokenizer = GPTModel(preset("gpt2-small")).init_gpt2().eval(), get_gpt2_tokenizer()
    ids = torch.randint(300, 40_000, (1, LONG))
    print(unavailable() or "the kernel is there", flush=True)
    models = ways(model)
    report_name = "decode-smollm2" if args.model else "decode"
    together = batches(models, ids, args.rounds)
    if args.batch_only:
        report(report_name, kept_results(report_name) | together)
        return
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        others = {}
        for name in models:
            dtype = THEIRS[name]
            path = Path(folder) / f"{dtype}.gguf"
            export_gguf(model, tokenizer, path, dtype, name=dtype)
            others[name] = path
        for number in range(args.rounds + 1):
            for name in models:
                rates = {"groundup": ours(models[name], ids), "llama.cpp": None}
                server = LlamaCpp(others[name])  # one at a time: their threads don't sleep at once
                rates["llama.cpp"] = server(ids[0].tolist())
                del server
                if not number:
                    continue
                for who, rate in rates.items():
                    for what, value in rate.items():
                        found.setdefault(f"{name}, {what}", {}).setdefault(who, []).append(value)
    memory = bandwidth()
    rows: dict[str, Any] = {"read_gb_per_second": round(memory / 1e9, 1)}
    for row, both in found.items():
        mine, theirs = (median(both[who]) for who in ("groundup", "llama.cpp"))
        rows[row] = {
            "groundup": round(mine, 1),
            "llama.cpp": round(theirs, 1),
            "ratio": round(mine / theirs, 2),
        }
        if row.endswith("new"):
            weights = sum(
                tensor.numel() * tensor.element_size()
                for key, tensor in models[row.split(",")[0]].state_dict().items()
                if not key.startswith(("tok_emb", "pos_emb"))
            )
            rows[row]["bandwidth"] = round(weights * mine / memory, 2)
    report(report_name, rows | together)


if __name__ == "__main__":
    main()
