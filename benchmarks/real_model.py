"""A real pretrained model, SmolLM2-135M-Instruct out of its GGUF file, read, measured, fine-tuned.

    python benchmarks/real_model.py SmolLM2-135M-Instruct.Q4_1.gguf DATA text
    python benchmarks/real_model.py SmolLM2-135M-Instruct.Q4_1.gguf DATA assistant

DATA is a folder with the course's ``instruction-data.json`` and with ``wikitext-2-valid.txt``.
``text`` compares greedy texts with llama.cpp's on the same weights, written out as f32 (from the
file itself llama.cpp quantizes activations too, and the texts part), and the loss of a text with
transformers'. ``assistant`` fine-tunes by LoRA on the course's 935 instructions and counts right
answers to the test entries that have one, before and after. (The spam filter is in
``classify.py``.)
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import re
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from common import kept_results, report
from groundup import load_model
from groundup.cli import main as groundup
from groundup.data.instruction_files import read_instructions, split_instructions
from groundup.kernels.products import FEW
from groundup.train.tracking import read_metrics
from groundup.weights.export import export

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in 1984, there were 12345 dragons who",
    "def fibonacci(n):\n",
    "The three most important inventions of the 20th century are",
    "Dear Sir or Madam,\n\n",
    "To bake a good loaf of bread, you first need",
    "Water boils at",
    "In linear algebra, a matrix is",
    "Q: What is 7 times 8?\nA:",
    "The sun rose over the hills and",
    "List of fruits:\n1. Apple\n2.",
    "Albert Einstein was born in",
    "import torch\n\nclass Attention(",
    "The difference between a virus and a bacterium is",
    "Roses are red,\nviolets are",
    "The stock market fell on Monday because",
    "A photon is",
    "Translate to French: Good morning.",
    "The longest river in South America is",
    "She opened the old wooden box and found",
)
ONE_ANSWER = re.compile(
    r"^(convert \d|convert the following number|correct|translate|classify|categorize|sort|edit"
    r"|calculate|identify the|pick out|provide the plural|name the author"
    r"|what is the (capital|past tense|plural|chemical|molecular|periodic|boiling|opposite|formula"
    r"|abbreviation)|what is an antonym)",
    re.IGNORECASE,
)
"""How instructions begin that have one right answer: conversions, corrections, facts, classes."""


def words(text: str) -> list[str]:
    """A text's words and numbers, whatever stands between them."""
    return re.findall(r"[^\W_]+", text.casefold())


def key(reference: str) -> list[str]:
    """What of a reference is the answer: what it quotes last, or what comes after "is"."""
    quoted = re.findall(r"[\"'](\w[^\"']*)[\"']", reference)
    if quoted:
        return words(quoted[-1])
    return words(re.split(r" (?:is|are|equal to|approximately) ", reference)[-1])


def right(answer: str, reference: str) -> tuple[bool, bool]:
    """Whether an answer is the reference word for word, and whether it has its key in it."""
    ours, theirs, wanted = words(answer), words(reference), key(reference)
    exact = ours == theirs
    inside = any(ours[i : i + len(wanted)] == wanted for i in range(len(ours)))
    return exact, exact or inside or difflib.SequenceMatcher(None, ours, theirs).ratio() >= 0.9


def text(model_file: Path, data: Path) -> dict[str, Any]:
    """Greedy texts beside llama.cpp's, and a text's loss beside that of transformers."""
    llama: Any = import_module("xllamacpp")
    from transformers import AutoModelForCausalLM

    from groundup.decoding.config import SamplingConfig
    from groundup.decoding.texts import TextStream

    model, tokenizer = load_model(model_file)
    config = SamplingConfig(max_new_tokens=64, temperature=0.0)
    begin = time.perf_counter()
    streams = [TextStream(model, tokenizer, tokenizer.encode(prompt), config) for prompt in PROMPTS]
    ours = ["".join(stream) for stream in streams]
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        (weights, *_) = export(model, tokenizer, "gguf", Path(folder) / "smollm2", dtype="f32")
        params = llama.CommonParams()
        params.model.path = str(weights)
        params.n_ctx, params.n_gpu_layers, params.warmup = 256, 0, False
        # By default its cache is f16, which is another text now and then.
        params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        server = llama.Server(params)
        asked = {"max_tokens": 64, "temperature": 0, "top_k": 1}
        theirs = [
            server.handle_completions({"prompt": prompt, **asked})["choices"][0]["text"]
            for prompt in PROMPTS
        ]
        del server
        export(model, tokenizer, "hf", Path(folder) / "hf")
        other = AutoModelForCausalLM.from_pretrained(Path(folder) / "hf", dtype=torch.float32)
        ids = tokenizer.encode((data / "wikitext-2-valid.txt").read_text(encoding="utf-8"))
        losses = window_losses(model, other.eval(), torch.tensor(ids[: 40 * 512 + 1]))
    same = [a.strip() == b.strip() for a, b in zip(ours, theirs, strict=True)]
    return {
        "prompts": len(PROMPTS),
        "same_text_as_llama_cpp": sum(same),
        "others": [
            {"prompt": PROMPTS[i], "ours": ours[i], "theirs": theirs[i]}
            for i, equal in enumerate(same)
            if not equal
        ],
        "seconds": round(seconds, 1),
        "loss": {name: round(value, 6) for name, value in losses.items()},
        "losses_apart": abs(losses["groundup"] / losses["transformers"] - 1),
    }


@torch.no_grad()
def window_losses(ours: Any, theirs: Any, ids: torch.Tensor) -> dict[str, float]:
    """The mean loss of windows of 512 tokens next to each other, by both."""
    x, y = (part[: len(ids) // 512 * 512].view(-1, 512) for part in (ids[:-1], ids[1:]))
    sums = {"groundup": 0.0, "transformers": 0.0}
    for a, b in zip(x.split(4), y.split(4), strict=True):
        sums["groundup"] += ours(a, targets=b).item()
        logits = theirs(a).logits
        sums["transformers"] += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), b.flatten(), reduction="sum"
        ).item()
    return {name: total / y.numel() for name, total in sums.items()}


@torch.no_grad()
def quantized(model_file: Path, data: Path) -> dict[str, Any]:
    """A text's perplexity with fewer bytes per weight, in windows of 512 tokens.

    They are read ``FEW`` tokens at a time, as where texts are written: what is longer is multiplied
    in fp32, and would not show what is lost by rounding activations. ``apart`` is how far the
    losses of single tokens are from those of windows that are read at once, on average.
    """
    found: dict[str, Any] = {}
    for kind in (None, "fp16", "int8", "int4"):
        model, tokenizer = load_model(model_file, quantize=kind)
        words = (data / "wikitext-2-valid.txt").read_text(encoding="utf-8")
        ids = torch.tensor(tokenizer.encode(words)[: 40 * 512 + 1])
        x, y = ids[:-1].view(-1, 512), ids[1:].view(-1, 512)
        losses: list[torch.Tensor] = []
        at_once: list[torch.Tensor] = []
        for window, after in zip(x, y, strict=True):
            cache = model.new_cache(capacity=512)
            for few, targets in zip(window.split(FEW), after.split(FEW), strict=True):
                losses.append(model(few[None], cache, targets=targets[None], reduction="none"))
            at_once.append(model(window[None], targets=after[None], reduction="none"))
        by_token = torch.cat(losses, dim=1)
        loss, apart = by_token.mean().item(), by_token - torch.cat(at_once, dim=1)
        found[kind or "fp32"] = {
            "loss": round(loss, 5),
            "perplexity": round(math.exp(loss), 3),
            "apart": round(apart.abs().mean().item(), 5),
        }
        print(kind, found[kind or "fp32"], flush=True)
    for values in found.values():
        values["more"] = round(values["perplexity"] / found["fp32"]["perplexity"] - 1, 5)
    return found


def assistant(model_file: Path, data: Path, kept: Path) -> dict[str, Any]:
    """LoRA on the course's instructions; right answers and validation loss, before and after."""
    entries, asked = data / "instruction-data.json", kept / "test.json"
    before, after, tuned = kept / "before.json", kept / "after.json", kept / "tuned"
    kept.mkdir(parents=True, exist_ok=True)
    test = split_instructions(read_instructions(entries)).test
    asked.write_text(json.dumps(test, ensure_ascii=False), encoding="utf-8")
    answer = ["--data", str(asked), "--max-new-tokens", "96", "--temperature", "0"]
    run(["instruct", "respond", str(model_file), "--out", str(before)], answer)
    begin = time.perf_counter()
    run(
        ["instruct", "train", "--model", str(model_file), "--data", str(entries)],
        ["--out", str(tuned), "--train", "lora", "--learning-rate", "3e-4", "--epochs", "1"],
        ["--batch-size", "8", "--train-on", "response", "--eval-freq", "1000", "--overwrite"],
    )
    trained = time.perf_counter() - begin
    run(["instruct", "respond", str(tuned), "--out", str(after)], answer)
    curve = [row for row in read_metrics(tuned) if "val_loss" in row]
    return {
        "train_minutes": round(trained / 60, 1),
        "val_loss": [round(curve[0]["val_loss"], 4), round(curve[-1]["val_loss"], 4)],
        "before": counted(before),
        "after": counted(after),
        "examples": [
            {
                "instruction": a["instruction"],
                "input": a["input"],
                "reference": a["output"],
                "before": a["model_response"],
                "after": b["model_response"],
            }
            for a, b in list(zip(*map(answers, (before, after)), strict=True))[:8]
        ],
    }


def answers(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


def counted(path: Path) -> dict[str, Any]:
    """How many of the entries with one right answer were answered right."""
    asked = [a for a in answers(path) if ONE_ANSWER.match(a["instruction"])]
    found = [right(a["model_response"], a["output"]) for a in asked]
    return {
        "with_one_right_answer": len(asked),
        "word_for_word": sum(exact for exact, _ in found),
        "with_its_key": sum(near for _, near in found),
        "all": len(answers(path)),
    }


def run(*parts: list[str]) -> None:
    """A command of groundup's; it must succeed."""
    status = groundup([argument for part in parts for argument in part])
    if status:
        raise SystemExit(status)


def main() -> None:
    parser = argparse.ArgumentParser(description="a real pretrained model")
    parser.add_argument("model", type=Path, help="SmolLM2-135M-Instruct as .gguf, or a directory")
    parser.add_argument("data", type=Path)
    parser.add_argument("part", choices=["text", "quantized", "assistant"])
    parser.add_argument("--keep", type=Path, default=Path("smollm2-assistant"), help="its folder")
    args = parser.parse_args()
    if args.part == "text":
        found = text(args.model, args.data)
    elif args.part == "quantized":
        found = quantized(args.model, args.data)
    else:
        found = assistant(args.model, args.data, args.keep)
    report("real_model", kept_results("real_model") | {args.part: found})


if __name__ == "__main__":
    main()
