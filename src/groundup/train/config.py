"""The knobs of the training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from groundup.config import PrecisionChoice
from groundup.errors import UserError
from groundup.options import check_choices, option

DEFAULT_EPOCHS = 10


@dataclass(frozen=True)
class TrainConfig:
    """Everything the loop itself needs; tasks extend it with what they need."""

    batch_size: int = option(16, "windows per forward and backward pass")
    grad_accum_steps: int = option(1, "batches whose gradients add up to one optimizer step")
    epochs: int | None = option(
        None, f"passes over the training data ({DEFAULT_EPOCHS} unless max_steps is given)"
    )
    max_steps: int | None = option(None, "stop after this many optimizer steps")
    minutes: float | None = option(
        None, "plan as many steps as fit into so many minutes, by the speed of the first ones"
    )
    learning_rate: float = option(1e-3, "highest learning rate, reached after the warmup")
    min_learning_rate: float = option(0.0, "learning rate at the end of the decay")
    lr_schedule: Literal["cosine", "linear", "trapezoid", "constant"] = option(
        "cosine", "shape after the warmup; trapezoid is constant, and linear at its end"
    )
    warmup_steps: int | None = option(None, "steps of linear warmup (a twentieth of all steps)")
    optimizer: Literal["adamw", "muon"] = option(
        "adamw", "adamw, or muon for the blocks' matrices and adamw for the rest"
    )
    weight_decay: float = option(0.1, "decoupled weight decay")
    decay: Literal["matrices", "all"] = option(
        "matrices", "decay matrices only, as GPT-2 does, or also biases and norms, as the course"
    )
    beta1: float = option(0.9, "AdamW's first moment decay")
    beta2: float = option(0.95, "AdamW's second moment decay")
    grad_clip: float = option(1.0, "longest gradient norm; 0 turns clipping off")
    eval_freq: int = option(100, "evaluate every so many steps")
    eval_iter: int | None = option(50, "batches per evaluation, spread over the validation split")
    save_freq: int = option(500, "save a checkpoint every so many steps")
    keep: int = option(
        0,
        "how many saves to keep, each with all it takes to go on from it (2: should the last one "
        "be damaged), besides the best model; 0 keeps the last one only",
    )
    keep_history: int = option(
        0,
        "how many small snapshots to keep of the model as it learns (fp16, most of them "
        "early), for groundup serve to look back at",
    )
    save_minutes: float | None = option(
        None, "save a checkpoint every so many minutes, too, whatever the step (by steps only)"
    )
    patience: int | None = option(
        None, "stop early: after so many evaluations without a better one (never)"
    )
    tensorboard: bool = option(False, "write what TensorBoard shows into the run's directory")
    wandb: str | None = option(None, "tell the run to this project of Weights & Biases (none)")
    seed: int = option(123, "seed of weights, data order and dropout")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps")
    threads: int | None = option(
        None, "CPU threads (as many as there are cores, or fewer if the first steps are faster so)"
    )
    parallel: Literal["auto", "ddp", "fsdp"] = option(
        "auto",
        "how several processes (torchrun) share the work: ddp, each with the whole model, fsdp, "
        "each with a share of it; auto is ddp if model and optimizer fit one device",
    )
    precision: PrecisionChoice = option(
        "auto", "compute precision; auto is bf16 where the hardware is fast at it"
    )
    activation_checkpointing: bool = option(
        False, "keep less in memory: compute each block once more for its gradient (same result)"
    )
    compile: Literal["auto", "on", "off"] = option(
        "auto", "torch.compile; auto is on in long runs whose steps it makes faster"
    )

    def __post_init__(self) -> None:
        problems = check_choices(self) or [
            f"{name} is {getattr(self, name)}; expected {expected}"
            for name, (sensible, expected) in self.ranges().items()
            if getattr(self, name) is not None and not sensible(getattr(self, name))
        ]
        if not problems and self.min_learning_rate > self.learning_rate:
            problems.append(
                f"min_learning_rate ({self.min_learning_rate}) is above learning_rate "
                f"({self.learning_rate}); it is where the rate ends"
            )
        if problems:
            raise UserError("; ".join(problems))

    def ranges(self) -> dict[str, tuple[Callable[[float], bool], str]]:
        """For each numeric knob, whether a value is sensible, and what is expected."""
        count = (lambda x: x >= 1, "at least 1")
        share = (lambda x: 0 <= x < 1, "at least 0 and below 1")
        zero_or_more = (lambda x: 0 <= x < float("inf"), "0 or more")
        return {
            **dict.fromkeys(("batch_size", "grad_accum_steps", "epochs", "max_steps"), count),
            **dict.fromkeys(("eval_freq", "eval_iter", "save_freq", "patience", "threads"), count),
            **dict.fromkeys(("min_learning_rate", "weight_decay", "grad_clip"), zero_or_more),
            **dict.fromkeys(("warmup_steps", "keep", "keep_history"), zero_or_more),
            "seed": (lambda x: 0 <= x < 2**63, "0 to 2**63 - 1"),
            **dict.fromkeys(("beta1", "beta2"), share),
            **dict.fromkeys(
                ("learning_rate", "minutes", "save_minutes"),
                (lambda x: 0 < x < float("inf"), "more than 0"),
            ),
        }

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole run."""
        if self.max_steps is not None and self.epochs is None:
            return self.max_steps
        steps = (self.epochs or DEFAULT_EPOCHS) * steps_per_epoch
        return min(steps, self.max_steps) if self.max_steps is not None else steps
