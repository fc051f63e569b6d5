"""Classification fine-tuning: ``groundup classify train --data sms-spam --model gpt2 --out spam``.

It assembles a pretrained (or a new) model with another output layer and labelled texts, and calls
the training loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.data.batching import BucketLoader
from groundup.data.classification import (
    LabelledTexts,
    Splits,
    balance,
    class_names,
    class_weights,
    split_labelled,
)
from groundup.data.labelled_tokens import LabelledTokens
from groundup.data.text import fingerprint
from groundup.errors import UserError
from groundup.evaluate.classification_report import (
    Report,
    class_numbers,
    evaluate_classifier,
    write_report,
)
from groundup.evaluate.classifier import Classifier, scores
from groundup.model.classifier import set_trainable, to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.lora import merge_lora
from groundup.runtime import resolve_runtime
from groundup.tasks.config import ClassifyConfig
from groundup.tasks.model import (
    as_saved,
    begin_fine_tuning,
    build_tokenizer,
    check_base,
    check_length,
    frozen_fingerprint,
    new_model,
    open_model,
)
from groundup.tasks.outdir import REPORT, prepare_output
from groundup.tasks.run import Run, check_same_run
from groundup.tokenizers import Tokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.losses import classification_loss
from groundup.train.trainer import Record
from groundup.weights.checkpoint import RunNotes
from groundup.weights.load import load_classifier


@dataclass(frozen=True)
class Trained:
    """What a run of :func:`train_classifier` found.

    Attributes:
        record: the last record of the loop.
        classifier: the classifier as it was saved.
        reports: on the test split, with as many texts of every class and as it is.
    """

    record: Record
    classifier: Classifier
    reports: list[Report]


def train_classifier(
    data: LabelledTexts,
    out: Path,
    config: ClassifyConfig | None = None,
    model_options: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    say: Callable[[str], None] = print,
    stop: StopRequest | None = None,
) -> Trained:
    """Train a classifier on labelled texts and leave a model directory with a report.

    Args:
        data: the texts with their labels.
        out: the model directory to write.
        config: the run's options.
        model_options: a new model's shape where it differs from ``config.preset``; for a saved
            one, only ``drop_rate``.
        overwrite: replace what an earlier run left in ``out``.
        resume: go on with the run that ``out`` holds.
        say: told what is being done.
        stop: lets a caller end the run early.

    Raises:
        UserError: an option makes no sense, a class has too few texts, ``out`` exists, ….
        TrainingFailed: the loss is not finite any more.
    """
    config = config or ClassifyConfig(train="all")
    shape = dict(model_options or {})
    make_ready = prepare_output(out, overwrite=overwrite, resume=resume)
    runtime = resolve_runtime(config.device, config.precision)
    sha256 = labelled_fingerprint(data)
    if resume:
        saved = RunNotes.read(out)
        # Length and dropout as they became, where they were not asked for.
        config = replace(config, max_length=config.max_length or saved.config.get("max_length"))
        check_same_run(saved, ClassifyConfig, asdict(config) | shape, sha256, out)
        shape = as_saved(saved)
    labels = class_names(data.labels)
    splits = split_for(data, config)
    say(describe(splits, data))

    torch.manual_seed(config.seed)
    model, tokenizer = _model(splits.train, len(labels), out, config, shape, say, resume=resume)
    if resume:
        check_base(RunNotes.read(out), model, config)
    config = replace(config, max_length=_max_length(splits.train, tokenizer, model, config))
    train_set = _encode(splits.train, labels, tokenizer, config)
    val_set = _encode(splits.validation, labels, tokenizer, config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    say(
        f"model: {model.num_parameters():,} parameters, of which {trained:,} train\n"
        f"texts: at most {config.max_length} tokens; "
        f"{train_set.truncated:,} of those to train on are longer and cut off\n"
        f"device: {runtime}"
    )
    source = Path(data.source).name  # where it lies is nobody else's business
    facts = {"description": f"{source}, {len(data.texts):,} labelled texts", "sha256": sha256}
    if config.train == "lora":
        facts["frozen_sha256"] = frozen_fingerprint(model)
    facts |= {"train_texts": len(train_set.ids), "truncated": train_set.truncated}
    notes = RunNotes("classify", asdict(config) | dict(model.cfg), facts, labels=labels)
    model = model.to(runtime.device)
    weights = _weights(splits, labels, config, runtime.device)
    loss_fn = partial(classification_loss, class_weights=weights)
    run = Run(model, tokenizer, out, config, runtime, notes, loss_fn=loss_fn)
    thinned = replace(train_set, token_dropout=config.token_dropout)
    loader = BucketLoader(train_set.lengths, config.batch_size, config.seed, thinned.collate)
    if config.eval_iter is not None:
        val_set = _sample(val_set, config.eval_iter * config.batch_size)
    measure = partial(
        _measure,
        model,
        _sample(train_set, len(val_set.ids)),
        val_set,
        None if weights is None else weights.cpu(),
    )
    record = run.fit(loader, measure, make_ready, resume=resume, say=say, stop=stop)

    plain = merge_lora(model.eval())
    read_padded = config.position == "last-padded"
    classifier = Classifier(plain, tokenizer, labels, config.max_length or 1, read_padded)
    reports = report_on(classifier, splits, config)
    if reports:
        write_report(reports, out / REPORT)
    return Trained(record, classifier, reports)


def labelled_fingerprint(data: LabelledTexts) -> str:
    """A SHA-256 of the texts and labels, to tell whether the splits would be the same."""
    return fingerprint([*data.texts, *data.labels])


def split_for(data: LabelledTexts, config: ClassifyConfig) -> Splits:
    """The run's splits: cut first, then each balanced by itself, the test split left whole.

    Raises:
        UserError: a class has too few texts for them.
    """
    splits = split_labelled(
        data,
        fractions=(config.train_ratio, config.val_ratio),
        seed=config.seed,
        stratify=config.stratify,
    )
    if config.balance != "undersample":
        return splits
    validation = splits.validation  # none, if it was given no share
    return replace(
        splits,
        train=balance(splits.train, config.seed),
        validation=balance(validation, config.seed) if validation.texts else validation,
    )


def report_on(classifier: Classifier, splits: Splits, config: ClassifyConfig) -> list[Report]:
    """Reports on the test split: with as many texts of every class, and as it is."""
    if not splits.test.texts:
        return []
    reports = [evaluate_classifier(classifier, splits.test, "test split")]
    if len(set(Counter(splits.test.labels).values())) > 1:
        balanced = balance(splits.test, config.seed)
        reports.insert(0, evaluate_classifier(classifier, balanced, "balanced test split"))
    return reports


def describe(splits: Splits, data: LabelledTexts) -> str:
    """What the splits hold, and what was found on the way, for people."""
    lines = [
        f"texts: {len(data.texts):,} in {data.source}"
        + (f", {splits.duplicates:,} of them repeated" if splits.duplicates else "")
    ]
    if splits.conflicting:
        lines.append(f"note: {splits.conflicting:,} repeated texts have more than one label")
    for name in ("train", "validation", "test"):
        part: LabelledTexts = getattr(splits, name)
        counts = Counter(part.labels)
        shown = ", ".join(f"{counts[label]:,} {label}" for label in class_names(data.labels))
        lines.append(f"  {name:<10} {len(part.texts):>6,}: {shown}")
    return "\n".join(lines)


def _model(
    texts: LabelledTexts,
    num_classes: int,
    out: Path,
    config: ClassifyConfig,
    shape: Mapping[str, Any],
    say: Callable[[str], None],
    *,
    resume: bool,
) -> tuple[GPTModel, Tokenizer]:
    """The classifier to train: the saved one, a pretrained model's, or a new one."""
    if resume and config.train != "lora":
        model, tokenizer, _ = load_classifier(out)
        return set_trainable(model, config.train), tokenizer
    if config.model:
        model, tokenizer = open_model(config.model, shape)
        if "context_length" in shape:
            raise UserError(
                f"{config.model} has a context of its own ({model.cfg.context_length} tokens); "
                "leave context_length out, and give max_length for shorter texts"
            )
        to_classifier(model, num_classes)
    else:
        tokenizer = build_tokenizer(config, shape, texts.texts, say)
        model = to_classifier(new_model(config, shape, tokenizer), num_classes)
    return begin_fine_tuning(model, config, out if resume else None), tokenizer


def _max_length(
    texts: LabelledTexts, tokenizer: Tokenizer, model: GPTModel, config: ClassifyConfig
) -> int:
    """Tokens per text: as asked for, or as the longest one to train on has, within the context."""
    longest = check_length(config.max_length, model)
    if config.max_length is None:
        return min(longest, max(len(tokenizer.encode(text)) for text in texts.texts))
    return longest


def _encode(
    texts: LabelledTexts, labels: list[str], tokenizer: Tokenizer, config: ClassifyConfig
) -> LabelledTokens:
    return LabelledTokens.encode(
        texts.texts,
        class_numbers(texts, labels),
        tokenizer,
        max_length=config.max_length or 1,
        read_padded=config.position == "last-padded",
    )


def _weights(
    splits: Splits, labels: list[str], config: ClassifyConfig, device: torch.device
) -> Tensor | None:
    if config.balance != "weights":
        return None
    return torch.tensor(class_weights(splits.train.labels, labels), device=device)


def _sample(tokens: LabelledTokens, count: int) -> LabelledTokens:
    """As many of the texts, spread over all of them."""
    rows = torch.linspace(0, len(tokens.ids) - 1, min(count, len(tokens.ids))).round().int()
    return replace(
        tokens,
        ids=[tokens.ids[row] for row in rows],
        classes=[tokens.classes[row] for row in rows],
    )


def _measure(
    model: GPTModel,
    train: LabelledTokens,
    validation: LabelledTokens,
    class_weights: Tensor | None,
) -> Record:
    """Loss and accuracy on the validation split, and accuracy on as many training texts."""
    record: Record = {}
    for name, tokens in (("train", train), ("val", validation)):
        if tokens.ids:
            found, classes = scores(model, tokens), torch.tensor(tokens.classes)
            if name == "val":
                # As the training loss: weighted, and divided by the number of texts.
                loss = F.cross_entropy(found, classes, weight=class_weights, reduction="sum")
                record["val_loss"] = loss.item() / len(classes)
            right = found.argmax(dim=-1) == classes
            record[f"{name}_accuracy"] = right.float().mean().item()
    return record
