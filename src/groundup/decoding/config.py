"""The options of decoding."""

from __future__ import annotations

from dataclasses import dataclass

from groundup.errors import UserError
from groundup.options import check_choices, option


@dataclass(frozen=True)
class SamplingConfig:
    """How text is decoded."""

    max_new_tokens: int = option(200, "most tokens to write")
    temperature: float = option(0.0, "0 always takes the likeliest token; higher is more daring")
    top_k: int | None = option(None, "choose among the k likeliest tokens only")
    top_p: float | None = option(None, "choose among the likeliest tokens that make up p together")
    seed: int | None = option(None, "make the random choices repeatable")
    num_samples: int = option(1, "how many texts to write")

    def check(self, vocab_size: int) -> None:
        """Raise ``UserError`` with everything that is wrong for a vocabulary of this size."""
        problems = check_choices(self)
        if problems:
            raise UserError("; ".join(problems))
        if self.max_new_tokens < 1:
            problems.append(f"max_new_tokens is {self.max_new_tokens}; expected at least 1")
        if not 0.0 <= self.temperature < float("inf"):
            problems.append(f"temperature is {self.temperature}; expected 0 (greedy) or more")
        if self.top_k is not None and not 1 <= self.top_k <= vocab_size:
            problems.append(
                f"top_k is {self.top_k}; expected 1 to {vocab_size}, the size of the vocabulary"
            )
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            problems.append(f"top_p is {self.top_p}; expected 0 < top_p <= 1")
        if self.num_samples < 1:
            problems.append(f"num_samples is {self.num_samples}; expected at least 1")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            problems.append(f"seed is {self.seed}; expected 0 to 2**63 - 1")
        if problems:
            raise UserError("; ".join(problems))
