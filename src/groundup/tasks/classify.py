"""Classification fine-tuning: ``groundup classify train --data sms-spam --model gpt2 --out s``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.data.batching import ShuffledBatches
from groundup.data.classification import (
    LabelledTexts,
    class_names,
    class_weights,
)
from groundup.data.labelled_tokens import LabelledTokens
from groundup.errors import UserError
from groundup.evaluate.classification_report import Report, class_numbers, write_report
from groundup.evaluate.classifier import Classifier, class_scores
from groundup.facts import Data, Facts, Reading
from groundup.launch import is_main
from groundup.model.classifier import to_classifier
from groundup.model.gpt import GPTModel
from groundup.output import show
from groundup.tasks.config import ClassifyConfig
from groundup.tasks.model import (
    base_facts,
    build_tokenizer,
    check_max_length,
    fine_tuned,
    new_model,
    open_base,
    parameters_of,
)
from groundup.tasks.outdir import REPORT
from groundup.tasks.resume import Given
from groundup.tasks.run import run_task
from groundup.tasks.splits import describe, labelled_fingerprint, report_on, split_for
from groundup.tasks.task import Job, Material
from groundup.tasks.tokenizer import train_tokenizer
from groundup.tokenizers import Tokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.objective import ClassOfText
from groundup.train.trainer import Record
from groundup.train.world import World

MOST_LOST, WARNED = 0.5, 0.05
"""Shares of the texts: of those that can't be told from another class's any more, above which there
is no training; and of those that are cut off, above which there is a warning."""


@dataclass(frozen=True)
class Trained:
    """What a run of :func:`train_classifier` found.

    Attributes:
        record: the last record of the loop.
        classifier: the best classifier, as it was saved.
        reports: on the test split, with as many texts of every class and as it is.
    """

    record: Record
    classifier: Classifier
    reports: list[Report]


def train_classifier(
    data: LabelledTexts,
    out: str | Path,
    config: Given = None,
    model_options: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    verify: bool = True,
    say: Callable[[str], None] = show,
    stop: StopRequest | None = None,
) -> Trained:
    """Train a classifier on labelled texts and leave a model directory with a report.

    Args:
        data: the texts with their labels.
        out: the model directory to write.
        config: a ``ClassifyConfig``, or just the options that differ from it.
        model_options: a new model's shape where it differs from ``config.preset``; for a saved
            one, only ``drop_rate``.
        overwrite: replace what an earlier run left in ``out``.
        resume: go on with the run that ``out`` holds, with its options but for those given.
        verify: whether to compare the files that are begun with, or gone on from, with the SHA-256
            that were saved with them.
        say: told what is being done.
        stop: lets a caller end the run early.

    Raises:
        UserError: an option makes no sense, a class has too few texts, ``out`` exists, ….
        TrainingFailed: the loss is not finite any more.
    """
    out, task = Path(out), Classifying(data)
    if config is None and not resume:
        config = ClassifyConfig(train="all")
    how = {"overwrite": overwrite, "resume": resume, "verify": verify, "say": say, "stop": stop}
    done = run_task(task, out, config, model_options, **how)
    classifier = Classifier.load(out)
    reports = report_on(classifier, task.splits, done.config)
    if reports and is_main():
        write_report(reports, out / REPORT)
    return Trained(done.record, classifier, reports)


class Classifying:
    """The class of each text, read at its last token."""

    Config: type[Any] = ClassifyConfig

    def __init__(self, data: LabelledTexts) -> None:
        self.texts, self.sha256 = data, labelled_fingerprint(data)
        self.labels = class_names(data.labels)

    def open(self, job: Job[ClassifyConfig]) -> tuple[GPTModel, Tokenizer]:
        """A pretrained model's blocks, or a new model's, with an output layer for the classes."""
        self.splits = split_for(self.texts, job.config)
        job.say(describe(self.splits, self.texts))
        torch.manual_seed(job.config.seed)

        def make(shape: Mapping[str, Any]) -> tuple[GPTModel, Tokenizer]:
            if job.config.model:
                model, tokenizer = open_base(job.config.model, shape, verify=job.verify)
            else:
                texts = self.splits.train.texts
                tokenizer = build_tokenizer(
                    job.config, shape, lambda size: train_tokenizer(texts, size, job.say)
                )
                model = new_model(job.config, shape, tokenizer)
            return to_classifier(model, len(self.labels)), tokenizer

        return fine_tuned(job, make)

    def prepare(self, job: Job[ClassifyConfig], model: GPTModel, tokenizer: Tokenizer) -> Material:
        """Texts as tokens, in batches of like length."""
        job.config = config = self._with_length(job.config, model, tokenizer)
        train_set, val_set = (
            LabelledTokens.encode(
                part.texts,
                class_numbers(part, self.labels),
                tokenizer,
                max_length=config.max_length or 1,
                read_padded=config.position == "last-padded",
            )
            for part in (self.splits.train, self.splits.validation)
        )
        job.say(
            f"model: {parameters_of(model)}\n"
            f"texts: at most {config.max_length} tokens; "
            f"{train_set.truncated:,} of those to train on are longer and cut off"
        )
        for note in _cut_notes(train_set, config.max_length or 1):
            job.say(note)
        if job.eval_batches is not None:
            val_set = val_set.sample(job.eval_batches * config.batch_size)
        weights = None
        if config.balance == "weights":
            weights = torch.tensor(class_weights(self.splits.train.labels, self.labels))
        thinned = replace(train_set, token_dropout=config.token_dropout)
        size, source = (
            len(train_set.ids),
            Path(self.texts.source).name,
        )  # where is nobody's business
        return Material(
            ShuffledBatches(
                size, config.batch_size, config.seed, thinned.collate, lengths=train_set.lengths
            ),
            Facts(
                data=Data(
                    f"{source}, {len(self.texts.texts):,} labelled texts",
                    sha256=self.sha256,
                    train_examples=size,
                    truncated=train_set.truncated,
                ),
                labels=self.labels,
                reading=Reading(config.max_length, config.position == "last-padded"),
                base=base_facts(job, model),
            ),
            ClassOfText(None if weights is None else weights.to(job.runtime.device)),
            measure=lambda: _measure(
                model, train_set.sample(len(val_set.ids)), val_set, weights, job.world
            ),
        )

    def _with_length(
        self, config: ClassifyConfig, model: GPTModel, tokenizer: Tokenizer
    ) -> ClassifyConfig:
        """Tokens per text: as asked for, or as the longest one to train on has, in the context."""
        longest = check_max_length(config.max_length, model)
        if config.max_length is None:
            texts = self.splits.train.texts
            longest = min(longest, max(len(tokenizer.encode_alone(text)) for text in texts))
        return replace(config, max_length=longest)


def _cut_notes(train: LabelledTokens, max_length: int) -> Iterator[str]:
    """Warnings about what is lost where texts are cut.

    Raises:
        UserError: more than half of the texts cannot be told from one of another class any more.
    """
    count, confused = len(train.ids), train.confused if train.truncated else 0
    longer = "a larger --max-length, or a model with a longer context,"
    if confused > MOST_LOST * count:
        raise UserError(
            f"{confused:,} of {count:,} texts to train on are the same as one of another class, as "
            f"far as they are read ({max_length} tokens; {train.truncated:,} are longer): nothing "
            f"could be learned of them; {longer} reads more"
        )
    if train.truncated > WARNED * count:
        same = f"; {confused:,} are then the same as one of another class" if confused else ""
        yield (
            f"warning: {train.truncated / count:.0%} of the texts to train on are cut off after "
            f"{max_length} tokens{same}; {longer} would read more"
        )


def _measure(
    model: GPTModel,
    train: LabelledTokens,
    validation: LabelledTokens,
    weights: Tensor | None,
    world: World,
) -> Record:
    """Loss and accuracy on the validation split, and accuracy on as many training texts."""
    record: Record = {}
    for name, tokens in (("train", train), ("val", validation)):
        if tokens.ids:
            found = class_scores(model, tokens, world=world)
            classes = torch.tensor(tokens.classes)
            if name == "val":
                # As the training loss: weighted, and divided by the number of texts.
                loss = F.cross_entropy(found, classes, weight=weights, reduction="sum")
                record["val_loss"] = loss.item() / len(classes)
            right = found.argmax(dim=-1) == classes
            record[f"{name}_accuracy"] = right.float().mean().item()
    return record
