"""A trained classifier at work: texts in, labels with their probabilities out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from groundup.data.batching import evaluation_rows, nothing_of
from groundup.data.labelled_tokens import LabelledTokens
from groundup.errors import UserError
from groundup.facts import Facts
from groundup.model.door import device_of, evaluating, known_context_length, scores
from groundup.model.gpt import GPTModel
from groundup.tokenizers import Tokenizer
from groundup.train.objective import to_device
from groundup.train.world import World, dealt
from groundup.weights.load import expect_classifier, load_model

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """What a classifier says about one text."""

    label: str
    probability: float  # of that label
    probabilities: dict[str, float]  # of every label


@dataclass(frozen=True)
class Classifier:
    """A classifier with all that belongs to it.

    Attributes:
        model: ends in one score per label.
        tokenizer: its tokenizer.
        labels: the classes' names, in the order of the scores.
        max_length: tokens of a text that it looks at; the rest is cut off.
        read_padded: whether it was trained to read the last position of a text that is padded to
            ``max_length`` (the course's way), not the text's last token.
    """

    model: GPTModel
    tokenizer: Tokenizer
    labels: list[str]
    max_length: int
    read_padded: bool = False

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: torch.device | str = "cpu",
        *,
        checkpoint: str | None = None,
        verify: bool = True,
    ) -> Classifier:
        """Open a classifier's directory, ours or Hugging Face's, or an adapter's.

        Args:
            source: where it is.
            device: where the weights go.
            checkpoint: of a run: ``last``, or ``step-N``; its best model unless given.
            verify: whether to compare the files with the SHA-256 that were saved with them.

        Raises:
            UserError: it is missing or damaged, or a language model's.
        """
        how = {"checkpoint": checkpoint, "expect": expect_classifier, "verify": verify}
        model, tokenizer = load_model(source, device, **how)
        facts, context = model.facts or Facts(), model.cfg.context_length
        max_length = min(facts.reading.max_length or context, context)
        return cls(model, tokenizer, facts.labels, max_length, facts.reading.padded)

    def encode(self, texts: Iterable[str], classes: Sequence[int] | None = None) -> LabelledTokens:
        """Tokenize texts as the classifier reads them.

        Raises:
            UserError: one is empty.
        """
        texts = list(texts)
        return LabelledTokens.encode(
            texts,
            classes if classes is not None else [0] * len(texts),
            self.tokenizer,
            max_length=self.max_length,
            read_padded=self.read_padded,
        )

    def predict(self, texts: Iterable[str]) -> list[Prediction]:
        """Classify texts, in batches of like length.

        Raises:
            UserError: a text is empty.
        """
        rows = probabilities(self.model, self.encode(texts)).tolist()
        best = [max(range(len(row)), key=row.__getitem__) for row in rows]
        return [
            Prediction(self.labels[i], row[i], dict(zip(self.labels, row, strict=True)))
            for i, row in zip(best, rows, strict=True)
        ]


def class_scores(
    model: GPTModel, tokens: LabelledTokens, batch_size: int = BATCH, world: World | None = None
) -> Tensor:
    """The model's score of every class for every text, ``(texts, classes)``, on the CPU in fp32.

    The processes of a ``world`` compute a part each, and all get all scores.
    """
    world = world or World()
    rows = evaluation_rows(len(tokens.ids), batch_size, lengths=tokens.lengths)
    found = torch.empty(0, 0)
    with evaluating(model):
        for row in dealt(rows, world, []):
            batch = tokens.collate(row) if row else nothing_of(tokens.collate(rows[0]))
            inputs, ends, _ = to_device(batch, device_of(model))
            given = scores(model, inputs, at=ends).float().cpu()
            if not found.numel():
                found = torch.zeros(len(tokens.ids), given.shape[1])
            found[row] = given
    return world.total(found)


def probabilities(model: GPTModel, tokens: LabelledTokens, batch_size: int = BATCH) -> Tensor:
    """The probability of every class for every text, ``(texts, classes)``, on the CPU."""
    return class_scores(model, tokens, batch_size).softmax(dim=-1)


def classify_review(
    text: str,
    model: GPTModel,
    tokenizer: Tokenizer,
    device: torch.device | str,
    max_length: int | None = None,
    pad_token_id: int = 50256,
) -> str:
    """Call a text ``spam`` or ``not spam``, as the course does: class 1 is spam.

    The text is padded to ``max_length`` tokens and read at the last position, as the course's
    training does. Without ``max_length`` nothing is padded.

    Raises:
        UserError: the text is empty, or ``max_length`` is below 1.
    """
    if max_length is not None and max_length < 1:
        raise UserError(f"max_length is {max_length}; expected at least 1")
    context = known_context_length(model)
    ids = tokenizer.encode(text)[: min(max_length or context, context)]
    if not ids:
        raise UserError("there is nothing to classify in an empty text")
    length = min(max_length or len(ids), context)
    tokens = LabelledTokens([ids], [0], pad_token_id, length)
    inputs, ends, _ = to_device(tokens.collate([0]), device)
    with evaluating(model):
        logits = scores(model, inputs, at=ends)
    return "spam" if int(logits.argmax()) == 1 else "not spam"
