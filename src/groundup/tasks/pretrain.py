"""Pretraining, from raw text to a GPT that writes: ``groundup pretrain book.txt --out my-gpt``.

It assembles tokenizer, windows and model, and calls the training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from groundup.config import preset
from groundup.data.text import fingerprint, split_documents
from groundup.data.windows import ResumableLoader, TokenWindows, evenly_spaced_batches
from groundup.decoding.config import SamplingConfig
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.plots import plot_run
from groundup.runtime import Runtime, resolve_runtime
from groundup.tasks.config import FIXED_ON_RESUME, PretrainConfig
from groundup.tasks.outdir import check_space, prepare_output
from groundup.tasks.tokenizer import train_tokenizer
from groundup.tokenizers import Tokenizer, get_tokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.losses import evaluating, mean_loss
from groundup.train.optim import build_optimizer, build_schedule
from groundup.train.state import load_training_state, save_training_state
from groundup.train.tracking import Latest, MetricsFile, ProgressBar, RunningLoss, SamplePrinter
from groundup.train.trainer import Listener, Progress, Record, Trainer
from groundup.weights.checkpoint import RunNotes, save_model
from groundup.weights.load import load_model


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
        _check_same_run(RunNotes.read(out), asdict(config) | shape, data["sha256"], out)

    train_docs, val_docs = split_documents(documents, config.train_ratio)
    if not resume and not config.init_from:
        preset(config.preset).replace(**shape)  # a wrong shape is told before the tokenizer's work
    torch.manual_seed(config.seed)
    if resume or config.init_from:
        model, tokenizer = _open_model(out if resume else Path(config.init_from or ""), shape)
    else:
        tokenizer = build_tokenizer(config, shape, train_docs, say)
        model = build_model(config, shape, tokenizer)
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
    run = _Run(model.to(runtime.device), tokenizer, out, config, runtime, notes)
    trainer = run.trainer(train_set, val_set, make_ready, resume=resume, say=say)
    trainer.stop = stop or trainer.stop
    try:
        trainer.fit()
        run.bar.close()
        plot_run(out)
    finally:
        run.bar.close()
        run.lock.release()
    return run.latest.record


class _Run:
    """The parts of one run, and what the loop calls back: evaluating and saving."""

    def __init__(
        self,
        model: GPTModel,
        tokenizer: Tokenizer,
        out: Path,
        config: PretrainConfig,
        runtime: Runtime,
        notes: RunNotes,
    ) -> None:
        self.model, self.tokenizer, self.out = model, tokenizer, out
        self.config, self.runtime, self.notes = config, runtime, notes
        self.optimizer = build_optimizer(model, config)

    def trainer(
        self,
        train_set: TokenWindows,
        val_set: TokenWindows,
        make_ready: Callable[[], FileLock],
        *,
        resume: bool,
        say: Callable[[str], None],
    ) -> Trainer:
        """Assemble the loop; ``make_ready`` is called once nothing can be wrong any more."""
        config, out = self.config, self.out
        loader = ResumableLoader(train_set, config.batch_size, config.seed)
        total = config.total_steps(-(-len(loader) // config.grad_accum_steps))
        planned = RunNotes.read(out).config.get("total_steps", total) if resume else total
        if planned != total:
            say(
                f"note: the run was planned for {planned:,} steps and now has {total:,}, so its "
                "learning rate follows another curve from here on"
            )
        warmup = config.warmup_steps if config.warmup_steps is not None else total // 20
        if warmup >= total and not resume:
            raise UserError(
                f"warmup_steps is {warmup}, but the run has only {total} steps; "
                "use a shorter warmup or more --epochs"
            )
        self.notes.config |= {"warmup_steps": warmup, "total_steps": total}
        progress = Progress()
        if resume:
            progress = load_training_state(out, self.optimizer, self.runtime.device)
        if progress.step >= total:
            raise UserError(
                f"{out} has done its {progress.step} steps already; "
                "give more --epochs or --max-steps to go on"
            )
        check_space(out, self.model.num_parameters())
        self.lock = make_ready()
        self.val_batches = evenly_spaced_batches(val_set, config.batch_size, config.eval_iter)
        return Trainer(
            model=self.model,
            optimizer=self.optimizer,
            loader=loader,
            runtime=self.runtime,
            total_steps=total,
            schedule=build_schedule(config, total, warmup),
            grad_accum_steps=config.grad_accum_steps,
            grad_clip=config.grad_clip,
            evaluate=self.evaluate,
            eval_due=lambda step: step == 1 or step % config.eval_freq == 0 or step == total,
            save=self.save,
            save_freq=config.save_freq,
            listeners=self._listeners(total, progress.step),
            progress=progress,
        )

    def _listeners(self, total: int, done: int) -> list[Listener]:
        metrics = MetricsFile(self.out, done)
        self.running = RunningLoss(metrics.records)
        self.latest = Latest(metrics.records)
        self.bar = ProgressBar(total, done)
        listeners = [metrics, self.running, self.latest, self.bar]
        config = self.config
        if config.sample_tokens:
            sampling = SamplingConfig(
                config.sample_tokens, config.sample_temperature, seed=config.seed
            )
            listeners.append(
                SamplePrinter(self.model, self.tokenizer, config.start_context, sampling, self.bar)
            )
        return listeners

    def evaluate(self) -> Record:
        """The losses: of the last training steps, and of the validation split."""
        record = {"train_loss": self.running.mean()}
        if self.val_batches:
            with evaluating(self.model), self.runtime.autocast():
                record["val_loss"] = mean_loss(self.model, self.val_batches, self.runtime.device)
        return record

    def save(self, progress: Progress, record: Record) -> None:
        """Write the model directory with what is needed to go on."""
        self.notes.progress = self.latest.record | record
        state = partial(
            save_training_state,
            optimizer=self.optimizer,
            progress=progress,
            device=self.runtime.device,
        )
        save_model(self.out, self.model, self.tokenizer, self.notes, extra=state)


def build_tokenizer(
    config: PretrainConfig,
    shape: Mapping[str, Any],
    documents: Sequence[str],
    say: Callable[[str], None],
) -> Tokenizer:
    """The tokenizer that ``config.tokenizer`` asks for; ``bpe`` is trained on the documents.

    Raises:
        UserError: it cannot be found, or its size is not the ``vocab_size`` asked for.
    """
    wanted = shape.get("vocab_size")
    if config.tokenizer != "bpe":
        tokenizer = get_tokenizer(config.tokenizer)
        if wanted not in (None, tokenizer.vocab_size):
            raise UserError(
                f"vocab_size is {wanted}, but the tokenizer {config.tokenizer} has "
                f"{tokenizer.vocab_size} tokens; leave vocab_size out, or use --tokenizer bpe"
            )
        return tokenizer
    size = wanted or preset(config.preset).vocab_size
    return train_tokenizer(documents, size, say)


def build_model(config: PretrainConfig, shape: Mapping[str, Any], tokenizer: Tokenizer) -> GPTModel:
    """A new model of the preset's shape with the options' changes, for this tokenizer."""
    changes = {**shape, "vocab_size": tokenizer.vocab_size}
    model = GPTModel(preset(config.preset).replace(**changes))
    return model.init_gpt2() if config.init == "gpt2" else model


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


def _open_model(source: Path, shape: Mapping[str, Any]) -> tuple[GPTModel, Tokenizer]:
    """Open the model to go on from; only its dropout and the windows' length may be changed."""
    n_heads = shape.get("n_heads") if source.is_file() else None  # a .pth cannot say it
    model, tokenizer = load_model(source, drop_rate=shape.get("drop_rate"), n_heads=n_heads)
    problems = [
        f"{name} is {value}, but the model has {model.cfg[name]}"
        for name, value in shape.items()
        if name not in ("drop_rate", "context_length") and value != model.cfg[name]
    ]
    longest = model.cfg.context_length
    if shape.get("context_length", 1) > longest:
        problems.append(f"context_length is {shape['context_length']}, the model's is {longest}")
    if problems:
        raise UserError(
            f"{source} cannot take that shape: {'; '.join(problems)}; leave these options out"
        )
    return model, tokenizer


def _check_same_run(notes: RunNotes, wanted: Mapping[str, Any], sha256: str, out: Path) -> None:
    """Refuse to resume what would not be the same run any more."""
    if notes.data.get("sha256") != sha256:
        raise UserError(
            f"{out} was trained on another text; --resume needs the same files in the same order. "
            f"To go on from its weights on a new text, use --init-from {out} and another --out"
        )
    changed = [
        f"{name} {notes.config[name]!r} to {wanted[name]!r}"
        for name in FIXED_ON_RESUME
        if name in wanted and name in notes.config and wanted[name] != notes.config[name]
    ]
    if changed:
        raise UserError(
            f"--resume goes on with the same run, but this would change {', '.join(changed)}; "
            f"leave these options out, or start a new run with --init-from {out}"
        )
