"""Instruction fine-tuning: ``groundup instruct train --data instructions --model gpt2 --out a``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.data.batching import Batch, ShuffledBatches, evaluation_rows
from groundup.data.instruction_files import entries_fingerprint, split_instructions
from groundup.data.instructions import (
    Example,
    collate_examples,
    drop_unlearnable,
    encode_entry,
    encode_prompt,
)
from groundup.data.labelled_tokens import padding_token
from groundup.data.model_style import check_markers, style_of
from groundup.decoding.config import SamplingConfig
from groundup.errors import UserError
from groundup.facts import Data, Facts
from groundup.model.gpt import GPTModel
from groundup.output import show
from groundup.prompts import DEFAULT_STYLE
from groundup.tasks.config import InstructConfig
from groundup.tasks.model import base_facts, check_max_length, fine_tuned, open_base, parameters_of
from groundup.tasks.resume import Given
from groundup.tasks.run import run_task
from groundup.tasks.task import Job, Material, Say, loss_on
from groundup.tokenizers import Tokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.tracking import ProgressBar, SamplePrinter
from groundup.train.trainer import Record

SAMPLE_TOKENS = 60

MOST_LOST, WARNED = 0.5, 0.05
"""Shares of the entries that lose their whole response: above the first there is no training, above
the second a warning."""

Entries = Sequence[Mapping[str, Any]]


def train_assistant(
    entries: Entries,
    out: str | Path,
    config: Given = None,
    model_options: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    verify: bool = True,
    say: Callable[[str], None] = show,
    stop: StopRequest | None = None,
) -> Record:
    """Teach a model to follow instructions and leave a model directory; return the last record.

    Args:
        entries: instructions with their responses, or conversations.
        out: the model directory to write; it keeps the prompt style.
        config: an ``InstructConfig``, or just the options that differ from it; its ``model`` says
            which model learns.
        model_options: what differs from the saved model: ``drop_rate``; for a ``.pth``, also
            ``n_heads``.
        overwrite: replace what an earlier run left in ``out``.
        resume: go on with the run that ``out`` holds, with its options but for those given.
        verify: whether to compare the files that are begun with, or gone on from, with the SHA-256
            that were saved with them.
        say: told what is being done.
        stop: lets a caller end the run early.

    Raises:
        UserError: an option makes no sense, there is nothing to learn, ``out`` exists, ….
        TrainingFailed: the loss is not finite any more.
    """
    how = {"overwrite": overwrite, "resume": resume, "verify": verify, "say": say, "stop": stop}
    return run_task(Instructing(entries), Path(out), config, model_options, **how).record


class Instructing:
    """Next tokens of conversations in a prompt style."""

    Config: type[Any] = InstructConfig

    def __init__(self, entries: Entries) -> None:
        self.entries, self.sha256 = entries, entries_fingerprint(entries)

    def open(self, job: Job[InstructConfig]) -> tuple[GPTModel, Tokenizer]:
        """The model to begin from, which must be a language model."""
        base = job.config.model
        if not base:
            raise UserError(
                "an assistant begins as a language model: name one with --model (a directory, or a "
                "downloaded one such as gpt2), or train one with `groundup pretrain`"
            )
        return fine_tuned(job, lambda shape: open_base(base, shape, verify=job.verify))

    def prepare(self, job: Job[InstructConfig], model: GPTModel, tokenizer: Tokenizer) -> Material:
        """Conversations as tokens, in batches of like length."""
        known = (model.facts or Facts()).prompt_style
        config = replace(
            job.config,
            max_length=check_max_length(job.config.max_length, model),
            style=job.config.style or known or DEFAULT_STYLE,
        )
        job.config = config
        check_markers(style_of(config.style or DEFAULT_STYLE, tokenizer), tokenizer)
        splits = split_instructions(
            self.entries, config.train_ratio, config.test_ratio, seed=config.split_seed
        )
        train_set = _encode("training", splits.train, tokenizer, config, job.say)
        val_set = _encode("validation", splits.validation, tokenizer, config, job.say)
        job.say(
            f"entries: {len(train_set):,} to train on, {len(val_set):,} to validate, "
            f"{len(splits.test):,} to test\n"
            f"model: {parameters_of(model)}; prompt style {config.style}"
        )
        collate = _collation(tokenizer, config)
        lengths, val_lengths = (_lengths(examples, config) for examples in (train_set, val_set))
        rows = evaluation_rows(len(val_set), config.batch_size, job.eval_batches, val_lengths)
        source = f" ({config.data})" if config.data else ""
        description = f"{len(self.entries):,} instructions{source}"
        return Material(
            ShuffledBatches(
                len(train_set),
                config.batch_size,
                config.seed,
                lambda chosen: collate([train_set[row] for row in chosen]),
                lengths=lengths,
            ),
            Facts(
                data=Data(description, sha256=self.sha256, train_examples=len(train_set)),
                prompt_style=config.style,
                base=base_facts(job, model),
            ),
            measure=loss_on(model, [collate([val_set[i] for i in row]) for row in rows], job),
            listeners=lambda bar: _samples(
                model, tokenizer, splits.validation or splits.train, config, bar
            ),
        )


def _collation(
    tokenizer: Tokenizer, config: InstructConfig
) -> Callable[[Sequence[Example]], Batch]:
    def collate(examples: Sequence[Example]) -> Batch:
        return collate_examples(
            examples,
            padding_token(tokenizer),
            train_on=config.train_on,
            max_length=config.max_length,
        )

    return collate


def _encode(
    split: str, entries: Entries, tokenizer: Tokenizer, config: InstructConfig, say: Say
) -> list[Example]:
    """Tokenize entries; those of which nothing could be learned are dropped and counted.

    Raises:
        UserError: all were dropped, or most of those to train on lose their response.
    """
    style, longest = style_of(config.style or DEFAULT_STYLE, tokenizer), config.max_length or 1
    examples = [encode_entry(entry, tokenizer, style) for entry in entries]
    lost = sum(example.loses_response(longest) for example in examples)
    if split == "training" and lost > MOST_LOST * len(examples):
        needed = sorted(len(example.ids) - 1 for example in examples)
        raise UserError(
            f"{lost:,} of {len(examples):,} entries to train on would lose their whole response: "
            f"their prompts alone have more than {longest} tokens (half of all entries have more "
            f"than {needed[len(needed) // 2]:,}, the longest has {needed[-1]:,}); use a larger "
            "--max-length, or a model with a longer context or a vocabulary of longer tokens"
        )
    kept, dropped = drop_unlearnable(examples, config.max_length, config.train_on)
    longer = sum(len(example.ids) - 1 > longest for example in kept)
    if dropped:
        say(
            f"note: {dropped:,} {split} entries are left out: their prompts alone have more than "
            f"{config.max_length} tokens"
        )
    if longer:
        say(f"note: {longer:,} {split} entries have more than {config.max_length} tokens; cut off")
    if lost > WARNED * len(examples):
        say(
            f"warning: {lost:,} of {len(examples):,} {split} entries ({lost / len(examples):.0%}) "
            "lose their whole response; a larger --max-length, or a model with a longer context, "
            "would keep them"
        )
    if examples and not kept:
        raise UserError(
            f"no {split} entry has a response within {config.max_length} tokens; use a larger "
            "--max-length, or a model with a longer context"
        )
    return kept


def _lengths(examples: Sequence[Example], config: InstructConfig) -> list[int]:
    return [min(len(example.ids) - 1, config.max_length or 1) for example in examples]


def _samples(
    model: GPTModel,
    tokenizer: Tokenizer,
    entries: Entries,
    config: InstructConfig,
    bar: ProgressBar,
) -> list[SamplePrinter]:
    """Listeners that answer the first entries greedily."""
    style = style_of(config.style or DEFAULT_STYLE, tokenizer)
    printers = []
    for entry in entries[: config.sample_answers]:
        messages = style.conversation(entry)
        asked = [message["role"] for message in messages].index("user")
        messages = messages[: asked + 1]  # a system message may come before
        printers.append(
            SamplePrinter(
                model,
                tokenizer,
                f"{messages[-1]['content']} -> ",
                SamplingConfig(SAMPLE_TOKENS, temperature=0.0),
                bar,
                prompt_ids=encode_prompt(messages, tokenizer, style),
                stop=style.stop,
            )
        )
    return printers
