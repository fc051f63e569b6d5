"""The spam classifier, on the real SMS Spam Collection.

    python benchmarks/classify.py SMSSpamCollection ratio
    python benchmarks/classify.py SMSSpamCollection random
    python benchmarks/classify.py SMSSpamCollection small
    python benchmarks/classify.py SMSSpamCollection pretrained --model smollm2-135m

``ratio`` measures the time of training beside the course's own code, ``random`` the accuracy of a
GPT-2 124M that was never pretrained, ``small`` that of a small GPT, with scikit-learn beside it.
``ratio`` and ``random`` have the setting of the course's bonus table: all layers of a GPT-2 124M
with random weights, batch 8, learning rate 5e-5, weight decay 0.1, at most 120 tokens.
``pretrained`` is LoRA on a model that has read a lot already: one epoch, the balanced texts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib import import_module
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch

from common import report
from groundup.config import preset
from groundup.data.batching import LoaderBatches, ShuffledBatches
from groundup.data.classification import LabelledTexts, balance, read_labelled, split_labelled
from groundup.data.labelled_tokens import LabelledTokens
from groundup.evaluate.classifier import class_scores
from groundup.model.classifier import to_classifier
from groundup.model.door import evaluating
from groundup.model.gpt import GPTModel
from groundup.options import read_recipe
from groundup.runtime import resolve_runtime
from groundup.tasks.classify import train_classifier
from groundup.tasks.config import ClassifyConfig
from groundup.tokenizers import get_gpt2_tokenizer
from groundup.train.objective import ClassOfText
from groundup.train.optim import build_optimizer
from groundup.train.trainer import Plan, Trainer

RANDOM_GPT2: dict[str, Any] = {
    "preset": "gpt2-small",
    "tokenizer": "gpt2",
    "init": "pytorch",
    "train": "all",
    "batch_size": 8,
    "epochs": 5,
    "learning_rate": 5e-5,
    "lr_schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.1,
    "decay": "all",
    "beta2": 0.999,
    "grad_clip": 0.0,
    "max_length": 120,
}
EPOCH_PARTS = 5
"""Both take turns every fifth of an epoch, so that the machine's moods hit both alike."""


def ratio(data: LabelledTexts) -> None:
    """One epoch of training with its evaluations: ours and the course's, in turns.

    An epoch of the course has an evaluation every 50 steps and one of accuracy at the end, 10
    batches each; with 2 batches each at every fifth of an epoch it comes to about the same.
    """
    import pandas as pd

    ch04, ch06 = (import_module(f"llms_from_scratch.{name}") for name in ("ch04", "ch06"))

    runtime = resolve_runtime("cpu")
    tokenizer = get_gpt2_tokenizer()
    frame = pd.DataFrame({"Label": data.labels, "Text": data.texts})
    frame = ch06.create_balanced_dataset(frame)
    frame["Label"] = (frame["Label"] == "spam").astype(int)
    parts = ch06.random_split(frame, 0.7, 0.1)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{folder}/{name}.csv" for name in ("train", "validation")]
        for part, name in zip(parts, names, strict=False):
            part.to_csv(name, index=False)
        train = ch06.SpamDataset(names[0], tokenizer)
        validation = ch06.SpamDataset(names[1], tokenizer, max_length=train.max_length)
    shape = dict(preset("gpt2-small").replace(drop_rate=0.0, tie_weights=False))

    torch.manual_seed(123)
    theirs = ch04.GPTModel(shape)
    theirs.out_head = torch.nn.Linear(shape["emb_dim"], 2)
    their_optimizer = torch.optim.AdamW(theirs.parameters(), lr=5e-5, weight_decay=0.1)
    loader = torch.utils.data.DataLoader(train, batch_size=8, shuffle=True, drop_last=True)
    val_loader = torch.utils.data.DataLoader(validation, batch_size=8)

    torch.manual_seed(123)
    ours = to_classifier(GPTModel(shape), 2)
    config = ClassifyConfig(**RANDOM_GPT2)
    optimizer = build_optimizer(ours, config)
    tokens, val_tokens = (
        LabelledTokens.encode(part["Text"], part["Label"].tolist(), tokenizer, max_length=120)
        for part in parts[:2]
    )
    buckets = ShuffledBatches(len(tokens.ids), 8, 123, tokens.collate, lengths=tokens.lengths)
    sample = LabelledTokens(
        tokens.ids[: len(val_tokens.ids)],
        tokens.classes[: len(val_tokens.ids)],
        tokens.pad_token,
    )
    their_batches, our_batches = list(loader), buckets.next(len(loader))
    size = len(their_batches) // EPOCH_PARTS
    seconds: dict[str, list[float]] = {"course": [], "groundup": []}
    for part in range(EPOCH_PARTS):
        piece = slice(part * size, (part + 1) * size)
        begin = time.perf_counter()
        ch06.train_classifier_simple(
            theirs, their_batches[piece], val_loader, their_optimizer, "cpu", 1, 10**9, 2
        )
        seconds["course"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        Trainer(
            model=ours,
            optimizer=optimizer,
            data=LoaderBatches(our_batches[piece]),
            runtime=runtime,
            plan=Plan(size),
            objective=ClassOfText(),
        ).fit()
        with evaluating(ours), runtime.autocast():
            class_scores(ours, val_tokens)
            class_scores(ours, sample)
        seconds["groundup"].append(time.perf_counter() - begin)
        print({name: round(found[-1], 1) for name, found in seconds.items()}, flush=True)
    totals = {name: sum(found) for name, found in seconds.items()}
    result = {
        "model": "GPT-2 124M, random weights, all layers",
        "steps": size * EPOCH_PARTS,
        "precision": {"course": "fp32", "groundup": runtime.precision},
        "tokens_per_step": {
            "course": round(mean(x.numel() for x, _ in their_batches), 1),
            "groundup": round(mean(x.numel() for x, *_ in our_batches), 1),
        },
        "seconds_per_part": {k: [round(s, 2) for s in found] for k, found in seconds.items()},
        "seconds": {name: round(total, 1) for name, total in totals.items()},
        "times_faster": round(totals["course"] / totals["groundup"], 2),
    }
    report("classify_ratio", result)


def random_weights(data: LabelledTexts, seeds: list[int]) -> None:
    """Test accuracy of a GPT-2 124M that was never pretrained."""
    runs = [one_run(data, RANDOM_GPT2, {"drop_rate": 0.0}, seed) for seed in seeds]
    median_accuracy = median(run["balanced_test_accuracy"] for run in runs)
    report("classify_random", {"median_balanced_test_accuracy": median_accuracy, "runs": runs})


def small(data: LabelledTexts, seeds: list[int]) -> None:
    """The small classifier that ``classify train`` makes without ``--model``; scikit-learn."""
    recipe = read_recipe("classify", "small", ClassifyConfig, type(preset("tiny")))
    options = {k: v for k, v in recipe.items() if k in ClassifyConfig.__dataclass_fields__}
    shape = {k: v for k, v in recipe.items() if k not in options}
    runs = [one_run(data, options, shape, seed) for seed in seeds]
    theirs = [row for seed in seeds for row in scikit_learn(data, seed)]
    found = [run["balanced_test_accuracy"] for run in runs]
    result: dict[str, Any] = {
        "mean_balanced_test_accuracy": round(mean(found), 4),
        "standard_deviation": round(stdev(found), 4),
        "longest_seconds": max(run["seconds"] for run in runs),
        "test_spam": {
            key: round(mean(run["test"]["spam"][key] for run in runs), 4)
            for key in ("precision", "recall", "f1")
        },
        "scikit_learn": {},
    }
    for name in dict.fromkeys(row["features"] for row in theirs):
        rows = [row for row in theirs if row["features"] == name]
        result["scikit_learn"][name] = {
            "mean_balanced_test_accuracy": round(
                mean(r["balanced_test_accuracy"] for r in rows), 4
            ),
            "test_spam": {
                key: round(mean(row["test_spam"][key] for row in rows), 4)
                for key in ("precision", "recall", "f1")
            },
            "mean_seconds": round(mean(row["seconds"] for row in rows), 2),
        }
    report("classify_small", result | {"runs": runs})


PRETRAINED: dict[str, Any] = {
    "train": "lora",
    "epochs": 1,
    "learning_rate": 5e-4,
    "balance": "undersample",
    "max_length": 120,
    "eval_freq": 1000,
}


def pretrained(data: LabelledTexts, model: str, seeds: list[int]) -> None:
    """A pretrained model's, one epoch of LoRA."""
    runs = [one_run(data, PRETRAINED | {"model": model}, {}, seed) for seed in seeds]
    found = [run["balanced_test_accuracy"] for run in runs]
    result = {"options": PRETRAINED, "model": Path(model).name}
    result |= {"mean_balanced_test_accuracy": round(mean(found), 4), "runs": runs}
    report("classify_pretrained", result)


def one_run(
    data: LabelledTexts, options: dict[str, Any], shape: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Train once, everything counted: splitting, tokenizer, training, evaluations, report."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        config = ClassifyConfig(**{**options, "seed": seed})
        trained = train_classifier(data, Path(folder) / "model", config, shape)
        seconds = time.perf_counter() - begin
    balanced, whole = trained.reports  # both, whatever the training was balanced by
    result = {
        "seed": seed,
        "seconds": round(seconds, 1),
        "parameters": trained.classifier.model.num_parameters(),
        "balanced_test_texts": balanced.count,
        "balanced_test_accuracy": round(balanced.accuracy, 4),
        "test_texts": whole.count,
        "test_accuracy": round(whole.accuracy, 4),
        "test": {
            c.label: {
                "precision": round(c.precision, 4),
                "recall": round(c.recall, 4),
                "f1": round(c.f1, 4),
            }
            for c in whole.classes
        },
    }
    print(result, flush=True)
    return result


def scikit_learn(data: LabelledTexts, seed: int) -> list[dict[str, Any]]:
    """TF-IDF and logistic regression on the same splits: all training texts, classes weighted."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support
    from sklearn.pipeline import make_pipeline

    splits = split_labelled(data, seed=seed)
    train, balanced = splits.train, balance(splits.test, seed)
    ways: dict[str, dict[str, Any]] = {
        "words, 1-2 grams": {"ngram_range": (1, 2)},
        "characters, 2-5 grams": {"analyzer": "char", "ngram_range": (2, 5)},
    }
    found = []
    for name, settings in ways.items():
        begin = time.perf_counter()
        model = make_pipeline(
            TfidfVectorizer(**settings),
            LogisticRegression(C=100, class_weight="balanced", max_iter=1000),
        )
        model.fit(train.texts, train.labels)
        seconds = time.perf_counter() - begin
        per_class: Any = precision_recall_fscore_support(
            splits.test.labels, model.predict(splits.test.texts), labels=["spam"]
        )
        precision, recall, f1, _ = per_class
        found.append(
            {
                "features": name,
                "seconds": seconds,
                "balanced_test_accuracy": accuracy_score(
                    balanced.labels, model.predict(balanced.texts)
                ),
                "test_spam": {
                    "precision": float(precision[0]),
                    "recall": float(recall[0]),
                    "f1": float(f1[0]),
                },
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="the spam classifier")
    parser.add_argument("data", type=Path)
    parser.add_argument("part", choices=["ratio", "random", "small", "pretrained"])
    parser.add_argument("--model", default="smollm2-135m", help="for pretrained")
    parser.add_argument("--seeds", type=int, nargs="+")
    args = parser.parse_args()
    data = read_labelled(args.data)
    if args.part == "ratio":
        ratio(data)
    elif args.part == "random":
        random_weights(data, args.seeds or [123, 124, 125])
    elif args.part == "pretrained":
        pretrained(data, args.model, args.seeds or [1, 2, 3])
    else:
        small(data, args.seeds or [123, 124, 125, 126, 127])


if __name__ == "__main__":
    main()
