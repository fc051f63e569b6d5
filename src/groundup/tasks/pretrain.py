"""Pretraining, from raw text to a GPT that writes: ``groundup pretrain book.txt --out my-gpt``.

It assembles tokenizer, windows and model, and calls the training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from groundup.config import preset
from groundup.data.text import fingerprint, split_documents
from groundup.data.windows import ResumableLoader, TokenWindows, evenly_spaced_batches
from groundup.decoding.config import SamplingConfig
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.runtime import resolve_runtime
from groundup.tasks.config import PretrainConfig
from groundup.tasks.model import build_tokenizer, new_model, open_model
from groundup.tasks.outdir import prepare_output
from groundup.tasks.run import Run, check_same_run
from groundup.tokenizers import Tokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.losses import mean_loss
from groundup.train.tracking import ProgressBar, SamplePrinter
from groundup.train.trainer import Record
from groundup.weights.checkpoint import RunNotes


def pretrain(
    documents: Sequence[str],
    out: Path,
    config: PretrainConfig | None = None,
    model_options: Mapping[str, Any] | None = None,
    *,
    description: str = "",
    files: Sequence[str] = (),
    overwrite: bool = False,
    resume: bool = False,
    say: Callable[[str], None] = print,
    stop: StopRequest | None = None,
) -> Record:
    """Train a GPT on documents and leave a model directory; return the last record.

    Args:
        documents: the text.
        out: the model directory to write.
        config: the run's options.
        model_options: the model's shape where it differs from ``config.preset``.
        description: what the text is, for the model card.
        files: where it came from, so that a resumed run finds it.
        overwrite: replace what an earlier run left in ``out``.
        resume: go on with the run that ``out`` holds.
        say: told what is being done.
        stop: lets a caller end the run early.

    Raises:
        UserError: an option makes no sense, the text is too short, ``out`` exists, ….
        TrainingFailed: the loss is not finite any more.
    """
    config = config or PretrainConfig()
    shape = dict(model_options or {})
    make_ready = prepare_output(out, overwrite=overwrite, resume=resume)
    runtime = resolve_runtime(config.device, config.precision)
    data = {"description": description, "files": list(files), "sha256": fingerprint(documents)}
    if resume:
        wanted = asdict(config) | shape
        check_same_run(RunNotes.read(out), PretrainConfig, wanted, data["sha256"], out)

    train_docs, val_docs = split_documents(documents, config.train_ratio)
    if not resume and not config.init_from:
        preset(config.preset).replace(**shape)  # a wrong shape is told before the tokenizer's work
    torch.manual_seed(config.seed)
    if resume or config.init_from:
        model, tokenizer = open_model(out if resume else Path(config.init_from or ""), shape)
    else:
        tokenizer = build_tokenizer(config, shape, train_docs, say)
        model = new_model(config, shape, tokenizer)
    window = shape.get("context_length", model.cfg.context_length)
    train_set = _windows("training", train_docs, tokenizer, window, config)
    val_set = _windows("validation", val_docs, tokenizer, window, config)
    data |= {"train_tokens": train_set.num_tokens, "val_tokens": val_set.num_tokens}
    say(
        f"text: {train_set.num_tokens:,} tokens to train on, {val_set.num_tokens:,} to validate\n"
        f"model: {model.num_parameters():,} parameters, windows of {window} tokens\n"
        f"device: {runtime}"
    )

    shape = dict(model.cfg) | {"context_length": window}  # as it became, not as it was asked for
    notes = RunNotes("pretrain", asdict(config) | shape, data)
    run = Run(model.to(runtime.device), tokenizer, out, config, runtime, notes)
    val_batches = evenly_spaced_batches(val_set, config.batch_size, config.eval_iter)

    def measure() -> Record:
        return {"val_loss": mean_loss(model, val_batches, runtime.device)} if val_batches else {}

    return run.fit(
        ResumableLoader(train_set, config.batch_size, config.seed),
        measure,
        make_ready,
        resume=resume,
        say=say,
        stop=stop,
        listeners=lambda bar: _samples(model, tokenizer, config, bar),
    )


def _samples(
    model: GPTModel, tokenizer: Tokenizer, config: PretrainConfig, bar: ProgressBar
) -> list[SamplePrinter]:
    if not config.sample_tokens:
        return []
    sampling = SamplingConfig(config.sample_tokens, config.sample_temperature, seed=config.seed)
    return [SamplePrinter(model, tokenizer, config.start_context, sampling, bar)]


def encode_documents(documents: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    """Token ids of all documents, with the end-of-text token between them."""
    ids: list[int] = []
    for document in documents:
        if ids and tokenizer.eot_token is not None:
            ids.append(tokenizer.eot_token)
        ids += tokenizer.encode(document)
    return ids


def _windows(
    split: str,
    documents: Sequence[str],
    tokenizer: Tokenizer,
    window: int,
    config: PretrainConfig,
) -> TokenWindows:
    ids = encode_documents(documents, tokenizer)
    if len(ids) <= window and not (split == "validation" and config.train_ratio == 1.0):
        advice = ", or train without validation (--train-ratio 1)" * (split == "validation")
        raise UserError(
            f"the {split} split has {len(ids)} tokens; one window needs context_length + 1 = "
            f"{window + 1}: use a longer text or a smaller --context-length{advice}"
        )
    return TokenWindows(ids, window, config.stride or window)
