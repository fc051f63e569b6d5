"""The options of measuring how well a model predicts a text."""

from __future__ import annotations

from dataclasses import dataclass

from groundup.config import PrecisionChoice
from groundup.errors import UserError
from groundup.options import check_choices, option

AT_ONCE = 4096
"""Tokens per batch of short windows. With 8 windows of 128 tokens, a small model's threads mostly
wait for each other (on a busy machine of 2 cores it takes twice as long, and 15% more CPU time on
one); with more than these, memory is taken from the system and given back all the time."""

FEWEST = 8
"""Windows per batch, however long."""


@dataclass(frozen=True)
class PerplexityConfig:
    """How a text is read."""

    context_length: int | None = option(
        None, "most tokens from which one is predicted: a window; the model's own unless given"
    )
    stride: int | None = option(
        None, "tokens from one window to the next; half a window unless given"
    )
    batch_size: int | None = option(
        None, f"windows at once; {FEWEST}, or as many as have {AT_ONCE:,} tokens, unless given"
    )
    precision: PrecisionChoice = option(
        "fp32", "compute precision; auto is bf16 where the hardware is fast at it"
    )

    def __post_init__(self) -> None:
        problems = check_choices(self) or [
            f"{name} is {getattr(self, name)}; expected at least 1"
            for name in ("context_length", "stride", "batch_size")
            if getattr(self, name) is not None and getattr(self, name) < 1
        ]
        if problems:
            raise UserError("; ".join(problems))

    def windows_at_once(self, window: int) -> int:
        """Windows per batch, each of so many tokens."""
        return self.batch_size or max(FEWEST, AT_ONCE // window)

    def window_and_stride(self, longest: int) -> tuple[int, int]:
        """The two lengths for a model that reads at most ``longest`` tokens.

        Raises:
            UserError: the window is longer than that, or the stride longer than the window.
        """
        window = longest if self.context_length is None else self.context_length
        stride = max(1, window // 2) if self.stride is None else self.stride
        if window > longest:
            raise UserError(
                f"context_length is {window}; expected 1 to {longest}, the most that the model "
                "can read"
            )
        if stride > window:
            raise UserError(
                f"stride is {stride}; expected 1 to {window}, the length of a window, or the "
                "tokens between two windows would be left out"
            )
        return window, stride
