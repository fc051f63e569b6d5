"""The options of each task, on top of the training loop's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from groundup.config import PRESETS, ModelConfig
from groundup.options import option
from groundup.train.config import TrainConfig


@dataclass(frozen=True)
class TaskConfig(TrainConfig):
    """What every task needs besides the loop's own options: how a new model is made."""

    preset: str = option(
        "tiny", f"the model's shape, before other options change it: {', '.join(PRESETS)}"
    )
    tokenizer: str = option(
        "bpe", "bpe (trained on the text), gpt2, or a directory that holds a tokenizer"
    )
    init: Literal["gpt2", "pytorch"] = option(
        "gpt2", "initial weights: GPT-2's scheme, or PyTorch's defaults as in the course"
    )

    FIXED_ON_RESUME: ClassVar[tuple[str, ...]] = (
        *ModelConfig.field_names(),
        *("preset", "tokenizer", "init", "batch_size", "grad_accum_steps", "seed", "decay"),
    )
    """Options without which a resumed run would not be the same run."""

    AFRESH: ClassVar[str] = "use --model {out}"
    """How to begin another run with the weights of ``{out}``."""


@dataclass(frozen=True)
class PretrainConfig(TaskConfig):
    """Every option of pretraining, besides the model's shape."""

    init_from: str | None = option(None, "go on from the weights of this model directory")
    stride: int | None = option(
        None, "tokens from one window to the next (as long as the window: no overlap)"
    )
    train_ratio: float = option(0.9, "share of the text to train on; the rest validates")
    document_separator: str | None = option(
        None, "a text that separates documents within a file, such as <|endoftext|>"
    )
    start_context: str = option("Every effort moves you", "what the samples continue")
    sample_tokens: int = option(60, "tokens per sample after an evaluation; 0 shows none")
    sample_temperature: float = option(0.7, "temperature of these samples; 0 is greedy")

    FIXED_ON_RESUME: ClassVar[tuple[str, ...]] = (
        *TaskConfig.FIXED_ON_RESUME,
        *("init_from", "stride", "train_ratio", "document_separator"),
    )
    AFRESH: ClassVar[str] = "use --init-from {out}"

    def ranges(self) -> dict[str, tuple[Callable[[float], bool], str]]:
        """The loop's knobs and those of this task."""
        zero_or_more = (lambda x: 0 <= x < float("inf"), "0 or more")
        return super().ranges() | {
            "stride": (lambda x: x >= 1, "at least 1"),
            "train_ratio": (lambda x: 0 < x <= 1, "more than 0 and at most 1"),
            "sample_tokens": zero_or_more,
            "sample_temperature": zero_or_more,
        }
