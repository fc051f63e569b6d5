"""Models that answer, for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.facts import Facts
from groundup.model.cache import KVCache
from groundup.model.gpt import GPTModel
from groundup.tokenizers import Tokenizer
from groundup.weights.checkpoint import save_model
from tests.conftest import tiny_config

ENTRIES = [
    {"instruction": f"Say {word}.", "input": given, "output": word}
    for word, given in (
        ("fox", ""),
        ("brown dog", "over the lazy dog"),
        ("🙂", ""),
        ("café", "日本語"),
        ("a", ""),
        ("quick", "The quick brown fox jumps over the lazy dog."),
        ("what follows what", ""),
    )
]


def lively_model(tokenizer: Tokenizer, context_length: int = 320) -> GPTModel:
    """Weights so large that the likeliest token is no close call and texts do not repeat."""
    cfg = tiny_config(
        vocab_size=tokenizer.vocab_size, context_length=context_length, tie_weights=False
    )
    model = GPTModel(cfg).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def save_assistant(
    directory: Path, tokenizer: Tokenizer, style: str | None = "alpaca", **options: Any
) -> Path:
    """A model directory as instruction tuning leaves it."""
    facts = Facts(task="instruct", prompt_style=style, options=options)
    save_model(directory, lively_model(tokenizer), tokenizer, facts)
    return directory


class Scripted(GPTModel):
    """Writes these answers one after the other, whatever it is asked, one at a time.

    Args:
        tokenizer: its tokenizer.
        answers: what it writes; each ends with end-of-text.
        context_length: the context.
        interrupt_at: Ctrl-C is pressed when this token (counted from 1) of an answer is due.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        answers: Sequence[str],
        context_length: int = 640,
        interrupt_at: int | None = None,
    ) -> None:
        cfg = tiny_config(
            vocab_size=tokenizer.vocab_size, context_length=context_length, tie_weights=False
        )
        super().__init__(cfg)
        assert tokenizer.eot_token is not None
        self.answers = [[*tokenizer.encode(text), tokenizer.eot_token] for text in answers]
        self.interrupt_at = interrupt_at
        self.prompts: list[list[int]] = []
        self.written = 0
        self.read: list[int] = []  # what is in the cache

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, in_idx: Tensor, cache: KVCache | None = None, *, at: Tensor | None = None
    ) -> Tensor:
        known = cache.length if cache else 0
        begins = in_idx.shape[1] > 1 or known < len(self.read)
        self.read = self.read[:known] + in_idx[0].tolist()
        if begins:
            self.prompts.append(self.read)
            self.written = 0
        self.written += 1
        if self.written == self.interrupt_at:
            raise KeyboardInterrupt
        scores = torch.zeros(*in_idx.shape[: 1 if at is not None else 2], self.cfg.vocab_size)
        scores[..., self.answers[len(self.prompts) - 1][self.written - 1]] = 999.0
        return scores
