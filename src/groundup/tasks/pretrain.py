"""Pretraining, from raw text to a GPT that writes: ``groundup pretrain book.txt --out my-gpt``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from groundup.config import preset
from groundup.data.batching import ShuffledBatches, evaluation_rows
from groundup.data.text import fingerprint, split_documents
from groundup.data.tokens import encode_documents
from groundup.data.windows import TokenWindows
from groundup.decoding.config import SamplingConfig
from groundup.errors import UserError
from groundup.facts import Base, Data, Facts
from groundup.model.gpt import GPTModel
from groundup.output import show
from groundup.tasks.config import PretrainConfig
from groundup.tasks.model import build_tokenizer, new_model, open_model
from groundup.tasks.resume import Given
from groundup.tasks.run import run_task
from groundup.tasks.task import Job, Material, loss_on
from groundup.tokenizers import Tokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.tracking import SamplePrinter
from groundup.train.trainer import Record


def pretrain(
    documents: Sequence[str],
    out: str | Path,
    config: Given = None,
    model_options: Mapping[str, Any] | None = None,
    *,
    description: str = "",
    files: Sequence[str] = (),
    validation: Sequence[str] = (),
    overwrite: bool = False,
    resume: bool = False,
    verify: bool = True,
    say: Callable[[str], None] = show,
    stop: StopRequest | None = None,
) -> Record:
    """Train a GPT on documents and leave a model directory; return the last record.

    Args:
        documents: the text.
        out: the model directory to write.
        config: a ``PretrainConfig``, or just the options that differ from it.
        model_options: the model's shape where it differs from ``config.preset``.
        description: what the text is, for the model card.
        files: where it came from, so that a resumed run finds it.
        validation: documents to validate on; without any, a part of the text is set aside for it.
        overwrite: replace what an earlier run left in ``out``.
        resume: go on with the run that ``out`` holds, with its options but for those given.
        verify: whether to compare the files that are begun with, or gone on from, with the SHA-256
            that were saved with them.
        say: told what is being done.
        stop: lets a caller end the run early.

    Raises:
        UserError: an option makes no sense, the text is too short, ``out`` exists, ….
        TrainingFailed: the loss is not finite any more.
    """
    task = Pretraining(documents, description, files, validation)
    how = {"overwrite": overwrite, "resume": resume, "verify": verify, "say": say, "stop": stop}
    return run_task(task, Path(out), config, model_options, **how).record


NOTED = 0.05
"""Share of the tokens to train on; if more are not read, it is said."""


class Pretraining:
    """Next tokens, in windows over documents."""

    Config: type[Any] = PretrainConfig

    def __init__(
        self,
        documents: Sequence[str],
        description: str,
        files: Sequence[str],
        validation: Sequence[str],
    ) -> None:
        self.documents, self.validation = documents, validation
        texts = [fingerprint(validation)] if validation else []
        self.sha256 = fingerprint(chain(documents, texts))
        self.description, self.files = description, list(files)

    def open(self, job: Job[PretrainConfig]) -> tuple[GPTModel, Tokenizer]:
        """A new model, or one that exists, which brings its tokenizer."""
        source = job.checkpoint or job.config.init_from
        if source is not None:
            return open_model(source, job.shape, verify=job.verify)
        preset(job.config.preset).replace(**job.shape)  # a wrong shape is told before the work
        train, _ = self._split(job.config)
        tokenizer = build_tokenizer(job.config, job.shape, train, job.say)
        return new_model(job.config, job.shape, tokenizer), tokenizer

    def prepare(self, job: Job[PretrainConfig], model: GPTModel, tokenizer: Tokenizer) -> Material:
        """Windows over the documents' tokens."""
        config = job.config
        window = job.shape.get("context_length", model.cfg.context_length)
        train, val = self._split(config)
        train_set = _windows("training", train, tokenizer, window, job)
        val_set = _windows("validation", val, tokenizer, window, job)
        job.say(
            f"text: {train_set.num_tokens:,} tokens to train on, "
            f"{val_set.num_tokens:,} to validate\n"
            f"model: {model.num_parameters():,} parameters, windows of {window} tokens"
        )
        if note := _unread(train_set, config.stride or window, window):
            job.say(note)
        size, batch_size = len(train_set), config.batch_size
        rows = evaluation_rows(len(val_set), batch_size, job.eval_batches)
        counts = {"train_tokens": train_set.num_tokens, "val_tokens": val_set.num_tokens}
        sampling = SamplingConfig(config.sample_tokens, config.sample_temperature, seed=config.seed)
        return Material(
            ShuffledBatches(size, batch_size, config.seed, train_set.collate, drop_last=True),
            Facts(
                shape={"context_length": window},
                data=Data(self.description, self.files, self.sha256, **counts),
                base=Base(config.init_from or ""),
            ),
            measure=loss_on(model, [val_set.collate(row) for row in rows], job),
            listeners=lambda bar: [
                SamplePrinter(model, tokenizer, config.start_context, sampling, bar)
                for _ in range(config.sample_tokens > 0)
            ],
        )

    def _split(self, config: PretrainConfig) -> tuple[Sequence[str], Sequence[str]]:
        """What trains and what validates.

        Raises:
            UserError: a text to validate on is named, but not here; or nothing is left to train on.
        """
        if self.validation:
            return self.documents, self.validation
        if config.validation:
            raise UserError(
                f"the run validates on {config.validation}, which was not read: pass its documents "
                "as validation=, too"
            )
        train, val = split_documents(self.documents, config.train_ratio)
        if val and not train:
            raise UserError(
                f"the text is too short: train_ratio {config.train_ratio} leaves nothing of it to "
                "train on; use a longer one"
            )
        return train, val


def _windows(
    split: str,
    documents: Sequence[str],
    tokenizer: Tokenizer,
    window: int,
    job: Job[PretrainConfig],
) -> TokenWindows:
    ids = encode_documents(documents, tokenizer, job.say)
    config = job.config
    if len(ids) <= window and (documents or config.train_ratio < 1.0):
        cut_off = split == "validation" and not job.config.validation
        advice = ", or train without validation (--train-ratio 1)" if cut_off else ""
        raise UserError(
            f"the {split} split has {len(ids)} tokens; one window needs context_length + 1 = "
            f"{window + 1}: use a longer text or a smaller --context-length{advice}"
        )
    return TokenWindows(ids, window, config.stride or window)


def _unread(windows: TokenWindows, stride: int, window: int) -> str:
    """A note where many tokens are in no window: between two, or behind the last one."""
    read = len(windows) * min(stride, window) + max(0, window - stride) + 1
    unread = windows.num_tokens - read
    if unread <= NOTED * windows.num_tokens:
        return ""
    return (
        f"note: {unread:,} of {windows.num_tokens:,} tokens to train on "
        f"({unread / windows.num_tokens:.0%}) are in no window (there is one of {window} tokens "
        f"every {stride}); a smaller --stride or --context-length reads them"
    )
