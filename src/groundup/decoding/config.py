"""The options of decoding."""

from __future__ import annotations

from dataclasses import dataclass

from groundup.errors import UserError
from groundup.options import check_choices, option

FARTHEST = 1e6
"""Larger numbers mean nothing more, but fp32 has no room for what is made of them."""


@dataclass(frozen=True)
class SamplingConfig:
    """How text is decoded."""

    max_new_tokens: int = option(200, "most tokens to write")
    temperature: float = option(0.0, "0 always takes the likeliest token; higher is more daring")
    top_k: int | None = option(None, "choose among the k likeliest tokens only")
    top_p: float | None = option(None, "choose among the likeliest tokens that make up p together")
    min_p: float | None = option(None, "choose among tokens at least p times as likely as the best")
    repetition_penalty: float = option(1.0, "above 1: less of what is in the text already")
    frequency_penalty: float = option(0.0, "take so much off a score for each time it was written")
    presence_penalty: float = option(0.0, "take so much off a score once it was written")
    logit_bias: dict[str, float] | None = option(None, "add so much to the score of a token's id")
    seed: int | None = option(None, "make the random choices repeatable")
    guess: bool = option(True, "write faster what repeats itself; the text stays the same")
    num_samples: int = option(1, "how many texts to write")

    def check(self, vocab_size: int) -> None:
        """Raise ``UserError`` with everything that is wrong for a vocabulary of this size."""
        problems = check_choices(self)
        if problems:
            raise UserError("; ".join(problems))
        if self.max_new_tokens < 1:
            problems.append(f"max_new_tokens is {self.max_new_tokens}; expected at least 1")
        if not 0.0 <= self.temperature <= FARTHEST:
            problems.append(
                f"temperature is {self.temperature}; expected 0 (greedy) or more, {FARTHEST:,.0f} "
                "at most"
            )
        if self.top_k is not None and not 1 <= self.top_k <= vocab_size:
            problems.append(
                f"top_k is {self.top_k}; expected 1 to {vocab_size}, the size of the vocabulary"
            )
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            problems.append(f"top_p is {self.top_p}; expected 0 < top_p <= 1")
        if self.min_p is not None and not 0.0 <= self.min_p <= 1.0:
            problems.append(f"min_p is {self.min_p}; expected 0 to 1")
        if not 1 / FARTHEST <= self.repetition_penalty <= FARTHEST:
            problems.append(
                f"repetition_penalty is {self.repetition_penalty}; expected more than 0 (1 is "
                f"none), {FARTHEST:,.0f} at most"
            )
        for name in ("frequency_penalty", "presence_penalty"):
            if not abs(getattr(self, name)) <= FARTHEST:
                problems.append(
                    f"{name} is {getattr(self, name)}; expected a number, {FARTHEST:,.0f} at most"
                )
        biases = self.logit_bias or {}
        if len(biases) > vocab_size:
            problems.append(
                f"logit_bias has {len(biases)} ids; the vocabulary has {vocab_size} tokens"
            )
            biases = {}
        for token, bias in biases.items():
            if not (token.isascii() and token.isdecimal() and int(token) < vocab_size):
                problems.append(f"logit_bias has {token!r}; expected ids, 0 to {vocab_size - 1}")
            if not abs(bias) <= FARTHEST:
                problems.append(
                    f"logit_bias of {token} is {bias}; expected a number, {FARTHEST:,.0f} at most"
                )
        if self.num_samples < 1:
            problems.append(f"num_samples is {self.num_samples}; expected at least 1")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            problems.append(f"seed is {self.seed}; expected 0 to 2**63 - 1")
        if problems:
            raise UserError("; ".join(problems))
