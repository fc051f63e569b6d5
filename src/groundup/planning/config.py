"""The knobs of ``groundup plan``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from groundup.errors import UserError
from groundup.options import check_choices, option


@dataclass(frozen=True)
class PlanConfig:
    """A training that isn't there yet: devices, batch, speed. Sizes are as people write them."""

    tokens: str | None = option(None, "how many to train on, such as 10B")
    devices: int = option(1, "GPUs, or processes on CPUs")
    device_memory: str | None = option(None, "of each, such as 80GB or 80GiB (this machine's)")
    flops: str | None = option(None, "operations per second of each at its best, such as 400T")
    mfu: float = option(0.4, "share of these that training reaches, if nothing was measured")
    tokens_per_second: str | None = option(
        None, "what one device was measured to train; instead of mfu"
    )
    bandwidth: str | None = option(
        None, "bytes per second that each device sends, such as 50GB/s or 400Gbit/s"
    )
    price: float | None = option(None, "of a device per hour")
    batch_tokens: str = option("0.5M", "tokens of an optimizer step on all devices together")
    batch_sequences: int | None = option(None, "the same in texts of a full context")
    batch_size: int | None = option(None, "texts per micro-batch (the largest that fits)")
    parallel: Literal["auto", "ddp", "fsdp"] = option(
        "auto", "how devices share the work: ddp if it fits, else fsdp"
    )
    precision: Literal["fp32", "bf16"] = option("bf16", "of the matrix products")
    activation_checkpointing: bool = option(False, "only with each block's activations made twice")
    device_kind: Literal["gpu", "cpu"] = option("gpu", "what the devices are")

    def __post_init__(self) -> None:
        problems = check_choices(self)
        for name in ("devices", "batch_sequences", "batch_size"):
            value = getattr(self, name)
            if not problems and value is not None and not 1 <= value <= 1 << 24:
                problems.append(f"{name} is {value}; expected at least 1")
        if not problems and not 0 < self.mfu <= 1:
            problems.append(f"mfu is {self.mfu}; expected more than 0 and at most 1")
        if not problems and self.price is not None and not 0 <= self.price < float("inf"):
            problems.append(f"price is {self.price}; expected 0 or more")
        if problems:
            raise UserError("; ".join(problems))
