"""Pretraining, from raw text to a GPT that writes: ``groundup pretrain book.txt --out my-gpt``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from groundup.config import preset
from groundup.data.batching import ShuffledBatches
from groundup.data.corpus import Corpus
from groundup.decoding.config import SamplingConfig
from groundup.errors import UserError
from groundup.facts import Base, Data, Facts
from groundup.model.gpt import GPTModel
from groundup.output import show
from groundup.tasks.config import PretrainConfig
from groundup.tasks.mixture import EvaluationBatches, Mixture, mixed_batches, mixed_loss
from groundup.tasks.model import build_tokenizer, new_model, open_model
from groundup.tasks.resume import Given
from groundup.tasks.run import run_task
from groundup.tasks.task import Job, Material, loss_on
from groundup.tasks.texts import OneText, Row, Texts, Windows, texts_of
from groundup.tokenizers import Tokenizer, get_tokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.tracking import SamplePrinter
from groundup.train.trainer import Record


def pretrain(
    documents: Sequence[str] | Corpus | Texts,
    out: str | Path,
    config: Given = None,
    model_options: Mapping[str, Any] | None = None,
    *,
    description: str = "",
    files: Sequence[str] = (),
    validation: Sequence[str] | Corpus | Texts = (),
    overwrite: bool = False,
    resume: bool = False,
    verify: bool = True,
    say: Callable[[str], None] = show,
    stop: StopRequest | None = None,
) -> Record:
    """Train a GPT on documents and leave a model directory; return the last record.

    Args:
        documents: the text, or a prepared corpus.
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
        documents: Sequence[str] | Corpus | Texts,
        description: str,
        files: Sequence[str],
        validation: Sequence[str] | Corpus | Texts,
    ) -> None:
        self.texts = texts_of(documents, description)
        self.validation = None if _is_nothing(validation) else texts_of(validation)
        self.sha256 = self.texts.sha256([self.validation.sha256()] if self.validation else ())
        self.description, self.files = description or self.texts.description, list(files)

    def open(self, job: Job[PretrainConfig]) -> tuple[GPTModel, Tokenizer]:
        """A new model, or one that exists, which brings its tokenizer."""
        source = job.checkpoint or job.config.init_from
        if source is not None:
            model, tokenizer = open_model(source, job.shape, verify=job.verify)
            self._expect(tokenizer, f"the model {source}")
            if job.saved is None:
                self._check_ratio(job.config)
            return model, tokenizer
        preset(job.config.preset).replace(**job.shape)  # a wrong shape is told before the work
        tokenizer = self._tokenizer(job)
        self._expect(tokenizer, f"the tokenizer {job.config.tokenizer}")
        self._check_ratio(job.config)
        return new_model(job.config, job.shape, tokenizer), tokenizer

    def _tokenizer(self, job: Job[PretrainConfig]) -> Tokenizer:
        """That of a new model: asked for, brought by the text, or trained on it."""
        config, brought = job.config, self.texts.tokenizer
        if brought is None:
            ratio = 1.0 if self._validates_on_its_own(config) else config.train_ratio
            return build_tokenizer(
                config, job.shape, lambda size: self.texts.train_tokenizer(ratio, size, job.say)
            )
        if "tokenizer" in config.given and config.tokenizer == "bpe":
            raise UserError(
                f"a prepared corpus brings its tokenizer ({brought.vocab_size} tokens), so none is "
                "trained; leave out --tokenizer"
            )
        if "tokenizer" in config.given:
            self._expect(get_tokenizer(config.tokenizer), f"the tokenizer {config.tokenizer}")
        if job.shape.get("vocab_size") not in (None, brought.vocab_size):
            raise UserError(
                f"vocab_size is {job.shape['vocab_size']}, but the corpus was prepared with a "
                f"tokenizer of {brought.vocab_size} tokens; leave vocab_size out"
            )
        return brought

    def _check_ratio(self, config: PretrainConfig) -> None:
        texts = self.texts.corpora if isinstance(self.texts, Mixture) else [self.texts]
        for decided in [text.decided_ratio for text in texts if "train_ratio" in config.given]:
            if decided not in (None, config.train_ratio):
                raise UserError(
                    f"train_ratio is {config.train_ratio}, but the corpus was prepared with "
                    f"--train-ratio {decided}; leave it out, or prepare the corpus without one"
                )

    def _expect(self, tokenizer: Tokenizer, whose: str) -> None:
        for texts in (self.texts, self.validation):
            if texts is not None:
                texts.expect_tokenizer(tokenizer, whose)

    def prepare(self, job: Job[PretrainConfig], model: GPTModel, tokenizer: Tokenizer) -> Material:
        """Windows over the documents' tokens."""
        config = job.config
        window = job.shape.get("context_length", model.cfg.context_length)
        mix = self.texts if isinstance(self.texts, Mixture) else None
        texts = mix.corpora if mix else [self.texts]
        train_sets, val_sets = self._sets(cast("list[OneText]", texts), tokenizer, window, job)
        if job.verify:
            self.texts.watch()
        counts = [sum(one.num_tokens for one in sets) for sets in (train_sets, val_sets)]
        job.say(
            f"text: {counts[0]:,} tokens to train on, {counts[1]:,} to validate\n"
            f"model: {model.num_parameters():,} parameters, windows of {window} tokens"
        )
        for windows in train_sets:
            if note := _unread(windows, config.stride or window, window):
                job.say(note)
        evaluations = [
            EvaluationBatches(windows, config.batch_size, job.eval_batches) for windows in val_sets
        ]
        sampling = SamplingConfig(config.sample_tokens, config.sample_temperature, seed=config.seed)
        data = Data(self.description, self.files, self.sha256)
        data.train_tokens, data.val_tokens = counts
        if mix is None:
            batches = _shuffled(train_sets[0], config)
        else:
            data.mix = {
                str(corpus.corpus.directory): weight
                for corpus, weight in zip(mix.corpora, mix.weights, strict=True)
            }
            batches = mixed_batches(mix, train_sets, config)
        if mix is None or len(evaluations) == 1:
            measure = loss_on(model, evaluations[0], job)
        else:
            measure = mixed_loss(model, mix, evaluations, job)
        return Material(
            batches,
            Facts(
                shape={"context_length": window},
                data=data,
                base=Base(config.init_from or ""),
            ),
            measure=measure,
            listeners=lambda bar: [
                SamplePrinter(model, tokenizer, config.start_context, sampling, bar)
                for _ in range(config.sample_tokens > 0)
            ],
        )

    def _sets(
        self,
        texts: Sequence[OneText],
        tokenizer: Tokenizer,
        window: int,
        job: Job[PretrainConfig],
    ) -> tuple[list[Windows], list[Windows]]:
        """What of each text trains, and what validates."""
        config = job.config
        train: list[Row] = []
        val: list[tuple[Row, float]] = []
        if self._validates_on_its_own(config):
            train = [text.whole(tokenizer, job.say) for text in texts]
            val = [(cast(OneText, self.validation).whole(tokenizer, job.say), config.train_ratio)]
        else:
            for text in texts:
                trains, validates = text.split(tokenizer, config.train_ratio, job.say)
                train.append(trains)
                val.append((validates, text.decided_ratio or config.train_ratio))
        return (
            [_windows("training", row, window, config, 1.0) for row in train],
            [_windows("validation", row, window, config, ratio) for row, ratio in val],
        )

    def _validates_on_its_own(self, config: PretrainConfig) -> bool:
        """Whether there is a text to validate on, so that all of the other one trains.

        Raises:
            UserError: one is named, but not here.
        """
        if self.validation is None and config.validation:
            raise UserError(
                f"the run validates on {config.validation}, which was not read: pass its documents "
                "as validation=, too"
            )
        return self.validation is not None


def _windows(
    split: str, row: Row, window: int, config: PretrainConfig, train_ratio: float
) -> Windows:
    if len(row) <= window and (split == "training" or len(row) or train_ratio < 1.0):
        cut_off = split == "validation" and not config.validation
        advice = ", or train without validation (--train-ratio 1)" if cut_off else ""
        raise UserError(
            f"the {split} split has {len(row)} tokens; one window needs context_length + 1 = "
            f"{window + 1}: use a longer text or a smaller --context-length{advice}"
        )
    return row.windows(window, config.stride or window, documents=config.pack == "documents")


def _shuffled(windows: Windows, config: PretrainConfig) -> ShuffledBatches:
    size, batch_size = len(windows), config.batch_size
    return ShuffledBatches(size, batch_size, config.seed, windows.collate, drop_last=True)


def _is_nothing(validation: Sequence[str] | Corpus | Texts) -> bool:
    return isinstance(validation, Sequence) and not validation


def _unread(windows: Windows, stride: int, window: int) -> str:
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
