"""Training on several corpora at once: ``--mix books=0.7 --mix code=0.3``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

from groundup.data.batching import Batch, evaluation_rows
from groundup.data.corpus import Corpus, is_corpus
from groundup.data.mixture import MixedBatches, Share, short_names
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.tasks.config import PretrainConfig
from groundup.tasks.task import Job, Say, loss_on
from groundup.tasks.texts import Prepared, Windows
from groundup.tokenizers import Tokenizer
from groundup.train.trainer import Record


class Mixture:
    """Prepared corpora and their shares, all of one tokenizer.

    Args:
        shares: as :func:`~groundup.data.mixture.parse_shares` gives them.

    Raises:
        UserError: a corpus is missing, or has another tokenizer than the first.
    """

    decided_ratio = None  # each of them may have one

    def __init__(self, shares: Mapping[str, float]) -> None:
        for path in shares:
            if not is_corpus(path):
                raise UserError(
                    f"--mix names {path}, where there is no prepared corpus; make it with "
                    f"`groundup data prepare FILES --out {path}`"
                )
        self.weights = list(shares.values())
        self.names = short_names(list(shares))
        self.corpora = [Prepared(Corpus(path)) for path in shares]
        self.tokenizer = self.corpora[0].tokenizer
        self.expect_tokenizer(self.tokenizer, str(self.corpora[0].corpus.directory))
        parts = zip(self.names, self.weights, self.corpora, strict=True)
        told = (f"{name} ({weight:g}: {corpus.description})" for name, weight, corpus in parts)
        self.description = "; ".join(told)

    def sha256(self, more: Sequence[str] = ()) -> str:
        """See :class:`Texts`."""
        parts = zip(self.weights, self.corpora, strict=True)
        said = [f"{weight} {corpus.sha256()}" for weight, corpus in parts]
        return hashlib.sha256("\n".join([*said, *more]).encode()).hexdigest()

    def train_tokenizer(self, ratio: float, size: int, say: Say) -> Tokenizer:
        """It has one."""
        return self.tokenizer

    def expect_tokenizer(self, tokenizer: Tokenizer, whose: str) -> None:
        """See :class:`Texts`."""
        for corpus in self.corpora:
            corpus.expect_tokenizer(tokenizer, whose)

    def watch(self) -> None:
        """See :class:`Texts`."""
        for corpus in self.corpora:
            corpus.watch()


class EvaluationBatches(Sequence[Batch]):
    """Fixed batches, spread over the windows that validate; each is made when it is asked for."""

    def __init__(self, windows: Windows, batch_size: int, count: int | None) -> None:
        self.windows = windows
        self.rows = evaluation_rows(len(windows), batch_size, count)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """The batch of this number, or some of the batches."""
        if not isinstance(index, slice):
            return self.windows.collate(self.rows[index])
        some = copy(self)
        some.rows = self.rows[index]
        return some


def mixed_batches(mix: Mixture, sets: Sequence[Windows], config: PretrainConfig) -> MixedBatches:
    """The training batches of a mixture."""
    shares = [
        Share(name, weight, len(windows), windows.collate)
        for name, weight, windows in zip(mix.names, mix.weights, sets, strict=True)
    ]
    return MixedBatches(shares, config.batch_size, config.seed)


def mixed_loss(
    model: GPTModel,
    mix: Mixture,
    evaluations: Sequence[EvaluationBatches],
    job: Job[PretrainConfig],
) -> Callable[[], Record]:
    """A measure: the loss on each source, and their mean by the sources' shares."""
    measures = [loss_on(model, batches, job) for batches in evaluations]

    def measure() -> Record:
        losses = {
            name: (weight, found["val_loss"])
            for name, weight, one in zip(mix.names, mix.weights, measures, strict=True)
            if (found := one())
        }
        if not losses:
            return {}
        total = sum(weight for weight, _ in losses.values())
        mean = sum(weight * loss for weight, loss in losses.values()) / total
        return {"val_loss": mean} | {f"val_loss.{n}": loss for n, (_, loss) in losses.items()}

    return measure
