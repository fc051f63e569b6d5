"""Instruction fine-tuning: ``groundup instruct train --data instructions --model gpt2 --out bot``.

It assembles a trained model and conversations in a prompt style, and calls the training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from groundup.data.batching import BucketLoader, evaluation_batches
from groundup.data.instruction_files import entries_fingerprint, split_instructions
from groundup.data.instructions import (
    Example,
    collate_examples,
    drop_unlearnable,
    encode_entry,
    encode_prompt,
)
from groundup.data.labelled_tokens import padding_token
from groundup.decoding.config import SamplingConfig
from groundup.errors import UserError
from groundup.model.classifier import set_trainable
from groundup.model.gpt import GPTModel
from groundup.prompts import get_style
from groundup.runtime import resolve_runtime
from groundup.tasks.config import InstructConfig
from groundup.tasks.model import (
    as_saved,
    begin_fine_tuning,
    check_base,
    check_length,
    frozen_fingerprint,
    open_model,
)
from groundup.tasks.outdir import prepare_output
from groundup.tasks.run import Run, check_same_run
from groundup.tokenizers import Tokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.losses import mean_loss
from groundup.train.tracking import ProgressBar, SamplePrinter
from groundup.train.trainer import Record
from groundup.weights.checkpoint import RunNotes

SAMPLE_TOKENS = 60


def train_assistant(
    entries: Sequence[Mapping[str, Any]],
    out: Path,
    config: InstructConfig | None = None,
    model_options: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    say: Callable[[str], None] = print,
    stop: StopRequest | None = None,
) -> Record:
    """Teach a model to follow instructions and leave a model directory; return the last record.

    Args:
        entries: instructions with their responses, or conversations.
        out: the model directory to write; it keeps the prompt style.
        config: the run's options; ``config.model`` says which model learns.
        model_options: what differs from the saved model: ``drop_rate``; for a ``.pth``, also
            ``n_heads``.
        overwrite: replace what an earlier run left in ``out``.
        resume: go on with the run that ``out`` holds.
        say: told what is being done.
        stop: lets a caller end the run early.

    Raises:
        UserError: an option makes no sense, there is nothing to learn, ``out`` exists, ….
        TrainingFailed: the loss is not finite any more.
    """
    config = config or InstructConfig()
    shape = dict(model_options or {})
    make_ready = prepare_output(out, overwrite=overwrite, resume=resume)
    runtime = resolve_runtime(config.device, config.precision)
    sha256 = entries_fingerprint(entries)
    if resume:
        saved = RunNotes.read(out)
        # Length and dropout as they became, where they were not asked for.
        config = replace(config, max_length=config.max_length or saved.config.get("max_length"))
        check_same_run(saved, InstructConfig, asdict(config) | shape, sha256, out)
        shape = as_saved(saved)
    splits = split_instructions(
        entries, config.train_ratio, config.test_ratio, seed=config.split_seed
    )

    torch.manual_seed(config.seed)
    model, tokenizer = _model(out, config, shape, resume=resume)
    if resume:
        check_base(RunNotes.read(out), model, config)
    config = replace(config, max_length=check_length(config.max_length, model))
    train_set = _encode("training", splits.train, tokenizer, config, say)
    val_set = _encode("validation", splits.validation, tokenizer, config, say)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    say(
        f"entries: {len(train_set):,} to train on, {len(val_set):,} to validate, "
        f"{len(splits.test):,} to test\n"
        f"model: {model.num_parameters():,} parameters, of which {trained:,} train; "
        f"prompt style {config.style}\n"
        f"device: {runtime}"
    )
    source = f" ({config.data})" if config.data else ""
    facts = {"description": f"{len(entries):,} instructions{source}", "sha256": sha256}
    facts |= {"train_entries": len(train_set)}
    if config.train == "lora":
        facts["frozen_sha256"] = frozen_fingerprint(model)
    options = asdict(config) | dict(model.cfg)
    notes = RunNotes("instruct", options, facts, prompt_style=config.style)
    run = Run(model.to(runtime.device), tokenizer, out, config, runtime, notes)

    def batch(
        examples: Sequence[Example], rows: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return collate_examples(
            [examples[row] for row in rows],
            padding_token(tokenizer),
            train_on=config.train_on,
            max_length=config.max_length,
        )

    lengths = [_lengths(examples, config) for examples in (train_set, val_set)]
    loader = BucketLoader(lengths[0], config.batch_size, config.seed, partial(batch, train_set))
    chosen = evaluation_batches(lengths[1], config.batch_size, config.eval_iter)
    val_batches = [batch(val_set, rows) for rows in chosen]

    def measure() -> Record:
        return {"val_loss": mean_loss(model, val_batches, runtime.device)} if val_batches else {}

    return run.fit(
        loader,
        measure,
        make_ready,
        resume=resume,
        say=say,
        stop=stop,
        listeners=lambda bar: _samples(
            model, tokenizer, splits.validation or splits.train, config, bar
        ),
    )


def _model(
    out: Path, config: InstructConfig, shape: Mapping[str, Any], *, resume: bool
) -> tuple[GPTModel, Tokenizer]:
    """The model to train: the saved one, or the one to begin from."""
    if resume and config.train != "lora":
        model, tokenizer = open_model(out, shape)
        return set_trainable(model, config.train), tokenizer
    if not config.model:
        raise UserError(
            "an assistant begins as a language model: name one with --model (a directory, or a "
            "downloaded one such as gpt2), or train one with `groundup pretrain`"
        )
    model, tokenizer = open_model(config.model, shape)
    if "context_length" in shape:
        raise UserError(
            f"{config.model} has a context of its own ({model.cfg.context_length} tokens); leave "
            "context_length out, and give max_length for shorter conversations"
        )
    return begin_fine_tuning(model, config, out if resume else None), tokenizer


def _encode(
    split: str,
    entries: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    config: InstructConfig,
    say: Callable[[str], None],
) -> list[Example]:
    """Tokenize entries; those of which nothing could be learned are dropped and counted.

    Raises:
        UserError: all were dropped.
    """
    style = get_style(config.style)
    examples = [encode_entry(entry, tokenizer, style) for entry in entries]
    kept, dropped = drop_unlearnable(examples, config.max_length, config.train_on)
    longer = sum(len(example.ids) - 1 > (config.max_length or 0) for example in kept)
    if dropped:
        say(
            f"note: {dropped:,} {split} entries are left out: their prompts alone have more than "
            f"{config.max_length} tokens"
        )
    if longer:
        say(f"note: {longer:,} {split} entries have more than {config.max_length} tokens; cut off")
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
    entries: Sequence[Mapping[str, Any]],
    config: InstructConfig,
    bar: ProgressBar,
) -> list[SamplePrinter]:
    """Listeners that answer the first entries greedily."""
    style = get_style(config.style)
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
