"""The options of each task, on top of the training loop's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

from groundup.config import PRESETS, ModelConfig, Train, TrainOn
from groundup.errors import UserError
from groundup.options import option
from groundup.prompts import DEFAULT_STYLE, STYLE_NAMES, check_style
from groundup.train.config import TrainConfig


@dataclass(frozen=True)
class TaskConfig(TrainConfig):
    """What every task has besides the loop's own options."""

    FIXED_ON_RESUME: ClassVar[tuple[str, ...]] = (
        *ModelConfig.field_names(),
        *("batch_size", "grad_accum_steps", "seed", "decay", "threads", "minutes"),
        *("optimizer", "compile"),
    )
    """Options without which a resumed run would not be the same run."""

    TASK: ClassVar[str]
    """The task's name: its command, and the folder of its recipes."""

    AFRESH: ClassVar[str] = "use --model {out}"
    """How to begin another run with the weights of ``{out}``."""

    SHAPE: ClassVar[tuple[str, ...]] = tuple(ModelConfig.field_names())
    """The options of a model's shape that make sense for the task."""

    given: ClassVar[frozenset[str]] = frozenset()
    """The options that were named when this object was made; a run that goes on keeps the others as
    they were saved."""

    def __new__(cls, *args: Any, **named: Any) -> Self:
        """Remember which options were named."""
        config = super().__new__(cls)
        names = [field.name for field in fields(cls)]
        object.__setattr__(config, "given", frozenset(named) | set(names[: len(args)]))
        return config


@dataclass(frozen=True)
class NewModelConfig:
    """How a new model is made."""

    preset: str = option(
        "tiny", f"the model's shape, before other options change it: {', '.join(PRESETS)}"
    )
    tokenizer: str = option(
        "bpe", "bpe (trained on the text), gpt2, or a directory that holds a tokenizer"
    )
    init: Literal["gpt2", "pytorch"] = option(
        "gpt2", "initial weights: GPT-2's scheme, or PyTorch's defaults as in the course"
    )

    FIXED: ClassVar[tuple[str, ...]] = ("preset", "tokenizer", "init")


@dataclass(frozen=True)
class PretrainConfig(NewModelConfig, TaskConfig):
    """Every option of pretraining, besides the model's shape."""

    init_from: str | None = option(None, "go on from the weights of this model directory")
    mix: list[str] | None = option(
        None, "train on several prepared corpora: one and its share, as in books=0.7; once for each"
    )
    stride: int | None = option(
        None, "tokens from one window to the next (as long as the window: no overlap)"
    )
    train_ratio: float = option(0.9, "share of the text to train on; the rest validates")
    validation: str | None = option(
        None, "a text of its own to validate on: a file, directory or glob (a part of the text)"
    )
    document_separator: str | None = option(
        None, "a text that separates documents within a file, such as <|endoftext|>"
    )
    pack: Literal["windows", "documents"] = option(
        "windows",
        "what a token may look at: its whole window, in which documents follow each other, or its "
        "own document only",
    )
    start_context: str = option("Every effort moves you", "what the samples continue")
    sample_tokens: int = option(60, "tokens per sample after an evaluation; 0 shows none")
    sample_temperature: float = option(0.7, "temperature of these samples; 0 is greedy")

    FIXED_ON_RESUME: ClassVar[tuple[str, ...]] = (
        *TaskConfig.FIXED_ON_RESUME,
        *NewModelConfig.FIXED,
        *("init_from", "mix", "stride", "train_ratio", "validation", "document_separator", "pack"),
    )
    TASK: ClassVar[str] = "pretrain"
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


@dataclass(frozen=True)
class FineTuneConfig(TaskConfig):
    """What every fine-tuning has in common: the model it begins from, and what of it trains."""

    data: str = option("", "the examples: a file, or a downloaded data set by name")
    model: str | None = option(
        None, "begin from this model: a directory, a .pth, or a downloaded one such as gpt2"
    )
    train: Train = option("all", "what trains; last-block has the final norm and the head with it")
    lora_rank: int = option(
        8, "rank of LoRA's update, for --train lora (which wants a learning rate of some 5e-4)"
    )
    lora_alpha: float = option(16.0, "LoRA's update counts alpha / rank times")
    lora_dropout: float = option(0.0, "dropout before LoRA's matrices")
    train_ratio: float = option(0.7, "share of the examples to train on")

    FIXED_ON_RESUME: ClassVar[tuple[str, ...]] = (
        *TaskConfig.FIXED_ON_RESUME,
        *("data", "model", "train", "lora_rank", "lora_alpha", "lora_dropout", "train_ratio"),
    )

    def ranges(self) -> dict[str, tuple[Callable[[float], bool], str]]:
        """The loop's knobs and those of fine-tuning."""
        return super().ranges() | {
            "lora_rank": (lambda x: x >= 1, "at least 1"),
            "lora_alpha": (lambda x: 0 < x < float("inf"), "more than 0"),
            "lora_dropout": _SHARE,
            "train_ratio": (lambda x: 0 < x <= 1, "more than 0 and at most 1"),
        }


@dataclass(frozen=True)
class ClassifyConfig(NewModelConfig, FineTuneConfig):
    """Every option of training a classifier, besides a new model's shape.

    The defaults are the course's for a pretrained model.
    """

    train: Train = option("last-block", "what trains: the course's last block, final norm and head")
    batch_size: int = option(8, "texts per forward and backward pass")
    epochs: int | None = option(5, "passes over the training texts")
    learning_rate: float = option(5e-5, "highest learning rate, reached after the warmup")
    eval_freq: int = option(50, "evaluate every so many steps")
    eval_iter: int | None = option(None, "batches per evaluation (the whole validation split)")
    val_ratio: float = option(0.1, "share of the texts to validate on; the rest tests")
    max_length: int | None = option(
        None, "tokens per text; the rest is cut off (the longest training text's, or the context)"
    )
    position: Literal["last-token", "last-padded"] = option(
        "last-token",
        "where the class is read: the text's last token, whatever the padding, or the last "
        "position after padding to max_length, as in the course",
    )
    balance: Literal["undersample", "weights", "none"] = option(
        "undersample",
        "unequal classes: leave out as many as the rarest has not, as the course does; let rare "
        "ones weigh more; or take the texts as they are",
    )
    token_dropout: float = option(
        0.0, "share of a text's tokens that are left out at random while training"
    )
    stratify: bool = option(False, "give every split the same share of each class")
    text_column: str | None = option(None, "the texts' column, if it cannot be told by its name")
    label_column: str | None = option(None, "the labels' column, if it cannot be told by its name")
    separator: str | None = option(None, "what separates columns, if neither comma nor tab")

    FIXED_ON_RESUME: ClassVar[tuple[str, ...]] = (
        *FineTuneConfig.FIXED_ON_RESUME,
        *NewModelConfig.FIXED,
        *("val_ratio", "max_length", "position", "balance", "stratify", "token_dropout"),
        *("text_column", "label_column", "separator"),
    )
    TASK: ClassVar[str] = "classify"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_shares("val_ratio", self.train_ratio, self.val_ratio)

    def ranges(self) -> dict[str, tuple[Callable[[float], bool], str]]:
        """The knobs of fine-tuning and those of this task."""
        return super().ranges() | {
            "max_length": (lambda x: x >= 1, "at least 1"),
            "val_ratio": _SHARE,
            "token_dropout": _SHARE,
        }


@dataclass(frozen=True)
class InstructConfig(FineTuneConfig):
    """Every option of training an assistant. The defaults are the course's."""

    batch_size: int = option(8, "conversations per forward and backward pass")
    epochs: int | None = option(2, "passes over the training entries")
    learning_rate: float = option(5e-5, "highest learning rate, reached after the warmup")
    eval_freq: int = option(50, "evaluate every so many steps")
    eval_iter: int | None = option(None, "batches per evaluation (the whole validation split)")
    train_ratio: float = option(0.85, "share of the entries to train on")
    test_ratio: float = option(0.1, "share of the entries to test on; the rest validates")
    split_seed: int | None = option(None, "shuffle the entries before they are split (file order)")
    max_length: int | None = option(
        None, "tokens per conversation; the rest is cut off (the model's context)"
    )
    style: str | None = option(
        None,
        f"how the model is prompted: {STYLE_NAMES} "
        f"(its own or what it was trained in; else {DEFAULT_STYLE})",
    )
    train_on: TrainOn = option(
        "all", "what is learned: prompts and responses, as in the course, or responses only"
    )
    sample_answers: int = option(1, "answers that are shown after an evaluation; 0 shows none")

    FIXED_ON_RESUME: ClassVar[tuple[str, ...]] = (
        *FineTuneConfig.FIXED_ON_RESUME,
        *("test_ratio", "split_seed", "max_length", "style", "train_on"),
    )
    TASK: ClassVar[str] = "instruct"
    SHAPE: ClassVar[tuple[str, ...]] = ("drop_rate", "n_heads")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.style is not None:
            check_style(self.style)
        _check_shares("test_ratio", self.train_ratio, self.test_ratio)

    def ranges(self) -> dict[str, tuple[Callable[[float], bool], str]]:
        """The knobs of fine-tuning and those of this task."""
        return super().ranges() | {
            "max_length": (lambda x: x >= 1, "at least 1"),
            "test_ratio": _SHARE,
            "split_seed": (lambda x: 0 <= x < 2**63, "0 to 2**63 - 1"),
            "sample_answers": (lambda x: x >= 0, "0 or more"),
        }


_SHARE = (lambda x: 0 <= x < 1, "at least 0 and below 1")


def _check_shares(name: str, train: float, other: float) -> None:
    if train + other > 1 + 1e-9:
        raise UserError(
            f"train_ratio {train} and {name} {other} are more than everything; together they may "
            "be at most 1"
        )
