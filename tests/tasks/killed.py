"""A training that may be killed: what the test's children run, each a process of its own."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import torch

from groundup.data.classification import LabelledTexts
from groundup.facts import NAME
from groundup.tasks import classify, instruct, pretrain, run
from groundup.train.checkpoints import can_resume

OPTIONS: dict[str, Any] = {
    "max_steps": 12,
    "batch_size": 4,
    "eval_freq": 4,
    "save_freq": 3,
    "save_minutes": 0.01,  # by the clock, too: when, differs from run to run
    "keep": 2,
    "keep_history": 5,
    "threads": 1,
    "precision": "fp32",
    "device": "cpu",
}
SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "context_length": 32,
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "drop_rate": 0.1,
}
TEXT = "The quick brown fox jumps over the lazy dog. A model learns what follows what.\n" * 60


def train(task: str, out: Path, base: Path, *, restarted: bool = False) -> None:
    """Begin a run, or go on with it, whatever a killed one has left; it may know so itself."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in ("plot_run", "write_page"):  # which take longer than the training
        setattr(run, name, lambda *args: None)
    how: dict[str, Any] = {"say": lambda text: None}
    if not restarted:
        how["resume"] = can_resume(out)
        how["overwrite"] = not how["resume"] and (out / NAME).exists()
    if task == "pretrain":
        pretrain.pretrain([TEXT], out, OPTIONS | {"sample_tokens": 3}, SHAPE, **how)
    elif task == "classify":
        words = random.Random(5)
        texts = [" ".join(words.choices(TEXT.split(), k=9)) for _ in range(60)]
        data = LabelledTexts(texts, list("ab" * 30), list(range(1, 61)), "killed.csv")
        classify.train_classifier(data, out, OPTIONS | {"epochs": 9, "train": "all"}, SHAPE, **how)
    else:
        entries = [
            {"instruction": f"Say {word}.", "input": "", "output": word} for word in TEXT.split()
        ]
        given = OPTIONS | {"model": str(base), "train": "lora", "lora_dropout": 0.1, "epochs": 9}
        given |= {"style": "plain"}
        instruct.train_assistant(entries[:80], out, given, **how)


def train_together(rank: int, port: int, task: str, out: Path, base: Path) -> None:
    """The same as one of two processes, which meet at a launcher's store as torchrun has it."""
    said = {"WORLD_SIZE": 2, "RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in said.items()}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    train(task, out, base, restarted=True)


TIMED = ("seconds", "tokens_per_second")


def remains(out: Path) -> dict[str, Any]:
    """All that a run has come to, but for the times: weights, optimizer, position, records."""

    def untimed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: untimed(v) for name, v in value.items() if name not in TIMED}
        return value

    last = out / "checkpoints" / "last"
    found: dict[str, Any] = {
        str(path.relative_to(out)): path.read_bytes()
        for folder in (out, last)
        for path in sorted(folder.rglob("*.safetensors"))
        if folder == last or "checkpoints" not in path.parts
    }
    assert len(list((out / "history").glob("step-*/model.safetensors"))) == 5
    found["state"] = untimed(
        json.loads((last / "training_state" / "state.json").read_text(encoding="utf-8"))
    )
    for name in ("metrics.jsonl", "samples.jsonl"):
        lines = (out / name).read_text("utf-8").splitlines() if (out / name).exists() else []
        found[name] = [untimed(json.loads(line)) for line in lines]
    for folder in (out, last):
        facts = json.loads((folder / NAME).read_text("utf-8"))
        found[f"{folder.name} progress"] = untimed(facts["progress"])
    return found
