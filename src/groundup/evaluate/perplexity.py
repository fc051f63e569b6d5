"""How well a language model predicts a text: loss, perplexity, bits per byte.

A text longer than the model's context is read through a sliding window, as in Hugging Face's guide
to the perplexity of models with a fixed context. The first window predicts all its tokens; each
further one begins ``stride`` tokens later and predicts only those that none before it has
predicted, with the others as context. So every token is predicted once, and after the first window
none from fewer than ``context_length - stride + 1`` tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from groundup.config import IGNORE_INDEX
from groundup.data.batching import evaluation_rows, pad_right
from groundup.data.tokens import encode_each
from groundup.errors import UserError
from groundup.evaluate.perplexity_config import PerplexityConfig
from groundup.model.door import device_of, evaluating
from groundup.model.gpt import GPTModel
from groundup.output import progress_bar
from groundup.runtime import resolve_runtime
from groundup.tokenizers import Tokenizer
from groundup.train.objective import mean_loss


@dataclass(frozen=True)
class TextScore:
    """How well a model predicts a text, and how that was measured.

    Attributes:
        loss: nats per token.
        tokens: how many were predicted.
        bytes: what these tokens are in UTF-8: the whole text, if ``after_end_of_text``.
        characters: the same in characters.
        documents: how many texts, none of which is context for another.
        context_length: most tokens from which one was predicted.
        stride: tokens from the beginning of one window to that of the next.
        after_end_of_text: whether a document's first token was predicted too, from the end-of-text
            token; where the tokenizer has none, there is nothing to predict it from.
        device: where it was computed.
        precision: fp32 or bf16.
    """

    loss: float
    tokens: int
    bytes: int
    characters: int
    documents: int
    context_length: int
    stride: int
    after_end_of_text: bool
    device: str
    precision: str

    @property
    def perplexity(self) -> float:
        """``exp(loss)``: choosing among so many tokens at random would do as well."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits that a byte of the text costs; comparable whatever the tokenizer."""
        return self.loss * self.tokens / math.log(2) / self.bytes

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON; that has no infinity, so an infinite perplexity is None."""
        perplexity = self.perplexity if math.isfinite(self.perplexity) else None
        measured = {"perplexity": perplexity, "bits_per_byte": self.bits_per_byte}
        return {"loss": self.loss} | measured | asdict(self)


def evaluate_text(
    model: GPTModel,
    tokenizer: Tokenizer,
    documents: Sequence[str],
    config: PerplexityConfig | None = None,
    *,
    say: Callable[[str], None] | None = None,
) -> TextScore:
    """Measure how well a model predicts documents, each on its own.

    Args:
        model: a language model; where it is, is where it is computed.
        tokenizer: the model's.
        documents: the text.
        config: window, stride, batch size and precision.
        say: told how long tokenizing will take, if that is long.

    Raises:
        UserError: the window or the stride does not fit the model, there is no token to predict,
            or the model's scores are not numbers.
    """
    config = config or PerplexityConfig()
    window, stride = config.window_and_stride(model.cfg.context_length)
    runtime = resolve_runtime(str(device_of(model)), config.precision)
    windows = SlidingWindows(documents, tokenizer, window, stride, say)
    if not windows.num_targets:
        raise UserError(
            "there is no token to predict: the text is empty, or a single token and the tokenizer "
            "has no end-of-text token to predict it from; give a longer text"
        )
    lengths = windows.spans[:, 3] - windows.spans[:, 1]
    rows = evaluation_rows(len(lengths), config.windows_at_once(window), lengths=lengths)
    bar = progress_bar(
        map(windows.collate, rows),
        desc="evaluating",
        total=len(rows),
        unit="batch",
    )
    with evaluating(model), runtime.autocast():
        loss = mean_loss(model, bar, runtime.device)
    if not math.isfinite(loss):
        raise UserError(
            f"the loss is {loss}: the model's weights are damaged, or its training has diverged; "
            "use another checkpoint"
        )
    return TextScore(
        loss=loss,
        tokens=windows.num_targets,
        bytes=windows.num_bytes,
        characters=windows.num_characters,
        documents=len(documents),
        context_length=window,
        stride=stride,
        after_end_of_text=bool(_start(tokenizer)),
        device=str(runtime.device),
        precision=runtime.precision,
    )


def _start(tokenizer: Tokenizer) -> list[int]:
    """The token that a document's first one is predicted from, if there is one."""
    ends = [] if tokenizer.eot_token is None else [tokenizer.eot_token]
    return (tokenizer.begin or ends)[-1:]


class SlidingWindows:
    """Windows over documents, such that every token is to be predicted once.

    Before each document comes the token that a text of its own begins with (Llama 3's BOS), or else
    the end-of-text token, if there is one, as in pretraining.

    Attributes:
        spans: each window as ``document, begin, done, end``, ``(windows, 4)``; see
            :func:`sliding_windows`.
        num_targets: tokens to predict.
        num_bytes: what these tokens are in UTF-8.
        num_characters: the same in characters.
    """

    def __init__(
        self,
        documents: Sequence[str],
        tokenizer: Tokenizer,
        context_length: int,
        stride: int,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.ids: list[np.ndarray] = []  # (tokens,) of each document
        spans: list[np.ndarray] = [np.empty((0, 4), np.int64)]
        self.num_targets = self.num_bytes = self.num_characters = 0
        encoded = encode_each(documents, tokenizer, say)
        for number, (document, ids) in enumerate(zip(documents, encoded, strict=True)):
            given = b""  # what is only read, never predicted
            if start := _start(tokenizer):
                ids = np.insert(ids, 0, start)
            elif len(ids):
                given = tokenizer.token_bytes(int(ids[0]))
            targets = max(0, len(ids) - 1)
            self.ids.append(ids)
            of_it = [(number, *span) for span in sliding_windows(targets, context_length, stride)]
            spans.append(np.array(of_it, np.int64).reshape(-1, 4))
            self.num_targets += targets
            self.num_bytes += len(document.encode()) - len(given)
            self.num_characters += len(document) - len(given.decode(errors="ignore"))
        self.spans = np.concatenate(spans)

    def collate(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Windows as a batch: inputs and targets ``(B, T)``, padded on the right."""
        inputs: list[list[int]] = []
        targets: list[list[int]] = []
        for number, begin, done, end in self.spans[rows].tolist():
            ids = self.ids[number][begin : end + 1].tolist()
            inputs.append(ids[:-1])
            targets.append([IGNORE_INDEX] * (done - begin) + ids[1 + done - begin :])
        return pad_right(inputs, 0), pad_right(targets, IGNORE_INDEX)


def sliding_windows(
    num_targets: int, context_length: int, stride: int
) -> Iterator[tuple[int, int, int]]:
    """Yield ``(begin, done, end)`` of each window over ``num_targets + 1`` tokens.

    It reads the tokens from ``begin`` up to ``end``, and predicts what follows each of them from
    ``done`` on; what follows the others was predicted before.
    """
    begin = done = 0
    while done < num_targets:
        end = min(begin + context_length, num_targets)
        yield begin, done, end
        begin, done = begin + stride, end
