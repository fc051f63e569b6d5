"""A trained classifier at work: texts in, labels with their probabilities out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from groundup.data.batching import evaluation_batches
from groundup.data.labelled_tokens import LabelledTokens
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.tokenizers import Tokenizer
from groundup.train.losses import class_logits, evaluating
from groundup.weights.checkpoint import RunNotes
from groundup.weights.load import load_classifier, resolve_source

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
    def load(cls, source: str | Path, device: torch.device | str = "cpu") -> Classifier:
        """Open a classifier's directory, ours or Hugging Face's.

        Raises:
            UserError: it is missing or damaged, or a language model's.
        """
        model, tokenizer, labels = load_classifier(source, device)
        config = RunNotes.read(resolve_source(source)).config
        max_length = min(
            config.get("max_length") or model.cfg.context_length, len(model.pos_emb.weight)
        )
        return cls(model, tokenizer, labels, max_length, config.get("position") == "last-padded")

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


def scores(model: GPTModel, tokens: LabelledTokens, batch_size: int = BATCH) -> Tensor:
    """The model's score of every class for every text, ``(texts, classes)``, on the CPU in fp32."""
    found = torch.empty(len(tokens.ids), model.out_head.out_features)
    device = model.tok_emb.weight.device
    with evaluating(model):
        for rows in evaluation_batches(tokens.lengths, batch_size):
            inputs, targets = (part.to(device) for part in tokens.collate(rows))
            found[rows] = class_logits(model, inputs, targets).float().cpu()
    return found


def probabilities(model: GPTModel, tokens: LabelledTokens, batch_size: int = BATCH) -> Tensor:
    """The probability of every class for every text, ``(texts, classes)``, on the CPU."""
    return scores(model, tokens, batch_size).softmax(dim=-1)


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
    context = model.get_parameter("pos_emb.weight").shape[0]
    ids = tokenizer.encode(text)[: min(max_length or context, context)]
    if not ids:
        raise UserError("there is nothing to classify in an empty text")
    length = min(max_length or len(ids), context)
    tokens = LabelledTokens([ids], [0], pad_token_id, length)
    inputs, targets = tokens.collate([0])
    with evaluating(model):
        logits = class_logits(model, inputs.to(device), targets.to(device))
    return "spam" if int(logits.argmax()) == 1 else "not spam"
