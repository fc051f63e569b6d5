"""Instruction fine-tuning on the course's 1,100 entries, beside the course's own code.

    groundup pretrain TEXT… --preset mini --out base     # any model of yours
    python benchmarks/instruct.py base instruction-data.json ratio
    python benchmarks/instruct.py base instruction-data.json quality

``ratio`` trains the same model on the same entries for the same epochs with both, everything
counted: tokenizing, evaluations (every 50 steps, 5 batches), a sample after each, and for ours the
checkpoint and the plots. ``quality`` trains ours for longer and answers the test entries.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import tempfile
import time
from collections import Counter
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from common import report
from groundup import load_model
from groundup.cli import main as groundup
from groundup.data.instruction_files import read_instructions, split_instructions
from groundup.data.instructions import collate_examples, encode_entry
from groundup.model.door import evaluating
from groundup.prompts import get_style
from groundup.runtime import resolve_runtime
from groundup.tasks.config import InstructConfig
from groundup.tasks.instruct import train_assistant
from groundup.tokenizers import Tokenizer
from groundup.train.objective import mean_loss
from groundup.train.tracking import read_metrics

SETTING: dict[str, Any] = {
    "batch_size": 8,
    "learning_rate": 5e-4,
    "lr_schedule": "constant",
    "warmup_steps": 0,
    "decay": "all",
    "beta2": 0.999,
    "grad_clip": 0.0,
    "eval_freq": 50,
    "eval_iter": 5,
}


def ratio(base: Path, data: Path, rounds: int, epochs: int) -> None:
    """Whole trainings in turns, after a warm-up of one epoch's quarter each."""
    entries = read_instructions(data)
    quarter = entries[: len(entries) // 4]
    ways = {"course": course, "groundup": ours}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    losses: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            loss = way(base, quarter if number == 0 else entries, 1 if number == 0 else epochs)
            if number:
                seconds[name].append(time.perf_counter() - begin)
                losses[name] = round(loss, 4)
        print({name: [round(s, 1) for s in found] for name, found in seconds.items()}, flush=True)
    model, _ = load_model(base)
    times = {name: median(found) for name, found in seconds.items()}
    result = {
        "parameters": model.num_parameters(),
        "entries": len(entries),
        "epochs": epochs,
        "precision": {"course": "fp32", "groundup": resolve_runtime("cpu").precision},
        "seconds": {name: [round(s, 1) for s in found] for name, found in seconds.items()},
        "validation_loss": losses,
        "times_faster": round(times["course"] / times["groundup"], 2),
    }
    report("instruct_ratio", result)


def ours(base: Path, entries: list[dict[str, Any]], epochs: int) -> float:
    """Train with groundup; return the validation loss."""
    config = InstructConfig(model=str(base), epochs=epochs, data="bench", **SETTING)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        train_assistant(entries, out, config, {"drop_rate": 0.0}, say=lambda text: None)
        model, tokenizer = load_model(out)
    return validation_loss(model, tokenizer, entries)


def validation_loss(model: nn.Module, tokenizer: Tokenizer, entries: list[dict[str, Any]]) -> float:
    """The loss per token of the whole validation split, in fp32: the same measure for both."""
    examples = [
        encode_entry(entry, tokenizer, get_style("alpaca"))
        for entry in split_instructions(entries).validation
    ]
    pad = tokenizer.eot_token or 0
    batch = partial(collate_examples, pad_token_id=pad, train_on="all", max_length=256)
    with evaluating(model):
        return mean_loss(
            model, [batch(examples[i : i + 8]) for i in range(0, len(examples), 8)], "cpu"
        )


def course(base: Path, entries: list[dict[str, Any]], epochs: int) -> float:
    """Train with the course's code; return the validation loss."""
    names = ("ch04", "ch05", "ch07")
    ch04, ch05, ch07 = (import_module(f"llms_from_scratch.{name}") for name in names)

    model, tokenizer = load_model(base)
    theirs = ch04.GPTModel(dict(model.cfg.replace(drop_rate=0.0)))
    theirs.load_state_dict(copy.deepcopy(model.state_dict()), strict=False)  # but for its masks
    torch.manual_seed(123)
    split = split_instructions(entries)
    collate = partial(
        ch07.custom_collate_fn,
        pad_token_id=tokenizer.eot_token or 0,
        allowed_max_length=model.cfg.context_length,
    )
    loaders = [
        torch.utils.data.DataLoader(
            ch07.InstructionDataset(part, tokenizer),
            batch_size=8,
            collate_fn=collate,
            shuffle=train,
            drop_last=train,
        )
        for part, train in ((split.train, True), (split.validation, False))
    ]
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=5e-4, weight_decay=0.1)
    start = ch07.format_input(split.validation[0])
    with redirect_stdout(io.StringIO()):
        ch05.train_model_simple(
            theirs, loaders[0], loaders[1], optimizer, "cpu", epochs, 50, 5, start, tokenizer
        )
    return validation_loss(theirs, tokenizer, entries)


def quality(base: Path, data: Path, epochs: int) -> None:
    """Train for longer and answer the test entries: do answers end?"""
    with tempfile.TemporaryDirectory() as folder:
        out, responses = f"{folder}/assistant", Path(folder) / "responses.json"
        begin = time.perf_counter()
        flags = [f"--epochs={epochs}", "--learning-rate=5e-4", "--drop-rate=0.1", "--eval-freq=59"]
        status = groundup(
            ["instruct", "train", f"--model={base}", f"--data={data}", f"--out={out}", *flags]
        )
        trained = time.perf_counter() - begin
        begin = time.perf_counter()
        status = status or groundup(["instruct", "respond", out, f"--out={responses}"])
        answered = time.perf_counter() - begin
        if status:
            raise SystemExit(status)
        found = json.loads(responses.read_text(encoding="utf-8"))
        curve = [r for r in read_metrics(Path(out)) if "val_loss" in r]
        model, _ = load_model(out)
    reasons = Counter(entry["finish_reason"] for entry in found)
    result = {
        "parameters": model.num_parameters(),
        "epochs": epochs,
        "train_seconds": round(trained, 1),
        "respond_seconds": round(answered, 1),
        "val_loss_by_epoch": {round(r["epoch"], 2): round(r["val_loss"], 4) for r in curve},
        "test_entries": len(found),
        "finish_reasons": dict(reasons),
        "ended_by_end_of_text": round(reasons["end_of_text"] / len(found), 4),
        "examples": [
            {key: entry[key] for key in ("instruction", "input", "output", "model_response")}
            for entry in found[:5]
        ],
    }
    report("instruct_quality", result)


def main() -> None:
    parser = argparse.ArgumentParser(description="instruction fine-tuning")
    parser.add_argument("base", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("part", choices=["ratio", "quality"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    if args.part == "ratio":
        ratio(args.base, args.data, args.rounds, args.epochs or 2)
    else:
        quality(args.base, args.data, args.epochs or 10)


if __name__ == "__main__":
    main()
