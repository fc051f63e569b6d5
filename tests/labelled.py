"""Labelled texts that a tiny model can learn, and tiny classifiers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from groundup.data.classification import LabelledTexts
from groundup.evaluate.classifier import Classifier
from groundup.facts import Facts, Reading
from groundup.model.classifier import to_classifier
from groundup.model.gpt import GPTModel
from groundup.tasks.config import ClassifyConfig
from groundup.tokenizers import BPETokenizer
from groundup.weights.checkpoint import save_model
from tests.conftest import tiny_config

WORDS = {
    "ham": "home dinner later mother bus class sleep sorry tonight",
    "spam": "prize free call win cash urgent claim offer mobile",
    "news": "minister election market rain court report city vote",
}

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "context_length": 32,
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "drop_rate": 0.0,
}
"""Of a model that trains in a moment."""

TEXTS = [
    "call now",
    "The quick brown fox",
    "A model learns what follows what: after the quick comes the brown",
    "日本語",
    "x",
]
"""Of different lengths, one longer than 16 tokens."""


def labelled(count: int = 40, labels: Sequence[str] = ("ham", "spam")) -> LabelledTexts:
    """So many different texts of each class, in turns."""
    generator = random.Random(0)
    texts, names = [], []
    for number in range(count):
        for label in labels:
            words = generator.choices(WORDS[label].split(), k=generator.randint(1, 6))
            texts.append(" ".join([str(number), *words]))
            names.append(label)
    return LabelledTexts(texts, names, list(range(1, len(texts) + 1)), "toy")


def write_csv(path: Path, data: LabelledTexts) -> Path:
    """The texts as a file."""
    rows = [f"{label},{text}" for label, text in zip(data.labels, data.texts, strict=True)]
    path.write_text("\n".join(["label,text", *rows]) + "\n", encoding="utf-8")
    return path


def options(**changes: Any) -> ClassifyConfig:
    """Of a short run that trains a new model."""
    base: dict[str, Any] = {"batch_size": 4, "epochs": 1, "train": "all", "precision": "fp32"}
    return ClassifyConfig(**base | {"learning_rate": 1e-2, "save_freq": 1000} | changes)


def perturbed(model: GPTModel) -> GPTModel:
    """In eval mode, so changed that biases and norms matter."""
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model.eval()


def make_classifier(tokenizer: BPETokenizer, classes: int = 2, **shape: object) -> GPTModel:
    """A classifier with random weights that is sure of nothing, but calls texts differently."""
    model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size, **shape)).init_gpt2()
    return perturbed(to_classifier(model, classes))


def save_classifier(
    directory: Path,
    tokenizer: BPETokenizer,
    labels: Sequence[str] = ("ham", "spam"),
    *,
    max_length: int | None = 16,
    padded: bool = False,
) -> Path:
    """A saved classifier with random weights."""
    model = make_classifier(tokenizer, len(labels))
    reading = Reading(max_length, padded)
    save_model(
        directory, model, tokenizer, Facts(task="classify", labels=list(labels), reading=reading)
    )
    return directory


def probabilities_of(source: Path, texts: Sequence[str] = TEXTS) -> torch.Tensor:
    """What a saved classifier says, ``(texts, classes)``."""
    found = Classifier.load(source).predict(texts)
    return torch.tensor([list(prediction.probabilities.values()) for prediction in found])
