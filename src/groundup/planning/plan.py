"""Whether a training fits some devices and how it is best cut: ``groundup plan``, without a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from groundup.errors import UserError
from groundup.planning.config import PlanConfig
from groundup.planning.memory import RESERVE, Memory, Need, Strategy
from groundup.planning.sizes import parse_bandwidth, parse_bytes, parse_count, parse_flops
from groundup.planning.work import Work, step_flops

if TYPE_CHECKING:
    from groundup.config import ModelConfig
    from groundup.model.report import Costs

MOST_DEVICES = 1 << 16


@dataclass(frozen=True)
class Way:
    """One way to train: who keeps what, and the largest micro-batch that fits so.

    Attributes:
        need: the model in training.
        batch_size: texts of a micro-batch; 0 if not even one fits.
        micro_batches: per step.
        memory: what a step needs (of a micro-batch of one text if none fits).
    """

    need: Need
    batch_size: int
    micro_batches: int
    memory: Memory

    @property
    def fits(self) -> bool:
        """Whether it can be done."""
        return self.batch_size > 0

    @property
    def name(self) -> str:
        """For people."""
        names = {"alone": "one device", "ddp": "DDP", "fsdp": "FSDP"}
        return names[self.need.strategy] + " + checkpointing" * self.need.checkpointing


@dataclass(frozen=True)
class Plan:
    """What was found out.

    Attributes:
        cfg: the model's shape.
        costs: its parameters and operations.
        budget: bytes of a device that may be planned with.
        ways: all that were looked at.
        chosen: the one to take: the first that fits, or the first.
        work: its time, if the devices' speed is known.
        tokens: to train on, if that is known.
    """

    cfg: ModelConfig
    costs: Costs
    budget: float
    ways: list[Way]
    chosen: Way
    work: Work | None
    tokens: float | None


def plan(cfg: ModelConfig, config: PlanConfig | None = None) -> Plan:
    """Plan the training of a new model of some shape.

    Args:
        cfg: the shape.
        config: devices, batch, speed; see :class:`PlanConfig`.

    Raises:
        UserError: a size can't be read, or options exclude each other.
    """
    from groundup.model.report import costs

    config = config or PlanConfig()
    found = costs(cfg)
    if config.device_memory is None:
        device = this_devices_memory()
    else:
        device = parse_bytes("device_memory", config.device_memory)
    budget = device * (1 - RESERVE)
    texts = _texts_per_device(cfg, config)
    ways = [
        _way(cfg, found, config, strategy, checkpointing, budget, texts)
        for checkpointing in ([True] if config.activation_checkpointing else [False, True])
        for strategy in _strategies(config)
    ]
    chosen = next((way for way in ways if way.fits), ways[0])
    tokens = parse_count("tokens", config.tokens) if config.tokens else None
    return Plan(cfg, found, budget, ways, chosen, _work(chosen, found, config), tokens)


def _strategies(config: PlanConfig) -> list[Strategy]:
    if config.devices == 1:
        if config.parallel == "fsdp":
            raise UserError("parallel is fsdp, which shares between --devices 2 or more")
        return ["alone"]
    return ["ddp", "fsdp"] if config.parallel == "auto" else [config.parallel]


def _texts_per_device(cfg: ModelConfig, config: PlanConfig) -> int:
    """Texts of a step on each device."""
    if config.batch_sequences is not None:
        texts = float(config.batch_sequences)
    else:
        texts = parse_count("batch_tokens", config.batch_tokens) / cfg.context_length
    return max(1, round(texts / config.devices))


def _way(
    cfg: ModelConfig,
    found: Costs,
    config: PlanConfig,
    strategy: Strategy,
    checkpointing: bool,
    budget: float,
    texts: int,
) -> Way:
    from groundup.model.activations import activations

    need = Need(
        cfg=cfg,
        parameters=found.unique_parameters,
        block_parameters=found.block_parameters,
        activations=activations(cfg, config.precision, config.device_kind),
        strategy=strategy,
        devices=config.devices,
        precision=config.precision,
        kind=config.device_kind,
        checkpointing=checkpointing,
    )
    asked = min(config.batch_size or texts, texts)
    size = need.largest(budget, asked) if config.batch_size is None else asked
    count = -(-texts // max(1, size))
    if config.batch_size is None:  # batches of one size, as near to the global batch as can be
        size = min(size, -(-texts // count))
    memory = need.at(max(1, size), accumulating=count > 1)
    return Way(need, size if memory.peak <= budget else 0, count, memory)


def _work(way: Way, found: Costs, config: PlanConfig) -> Work | None:
    """The time it takes, if the devices' speed is known."""
    if config.flops is None:
        if config.tokens_per_second is not None:
            raise UserError(
                "tokens_per_second says how much of a device's speed is reached; give --flops too"
            )
        return None
    flops, mfu = parse_flops("flops", config.flops), config.mfu
    if config.tokens_per_second is not None:
        measured = parse_count("tokens_per_second", config.tokens_per_second)
        mfu = step_flops(way.need, found.forward_flops, measured) / flops
        if mfu > 1:
            raise UserError(
                f"tokens_per_second is {config.tokens_per_second}, for which a device of "
                f"--flops {config.flops} would have to be {mfu:.1f} times as fast as it is"
            )
    bandwidth = config.bandwidth and parse_bandwidth("bandwidth", config.bandwidth)
    size, counts = max(1, way.batch_size), way.micro_batches
    return Work(way.need, found.forward_flops, size, counts, flops, mfu, bandwidth or None)


def devices_needed(way: Way, budget: float, *, checkpointing: bool = False) -> int | None:
    """How many devices FSDP needs for one text each; None if no number will do.

    Numbers are powers of two, and the texts of all devices are a step.
    """
    number = 2
    while number <= MOST_DEVICES:
        need = replace(way.need, strategy="fsdp", devices=number, checkpointing=checkpointing)
        if need.at(1, accumulating=False).peak <= budget:
            return number
        number *= 2
    return None


def this_devices_memory() -> float:
    """Bytes of the device that training would take by itself on this machine."""
    from groundup.planning.devices import total_memory
    from groundup.runtime import resolve_device

    device = resolve_device()
    total = total_memory(device)
    if total is None:
        raise UserError(f"cannot tell how much memory {device} has; give --device-memory")
    return total
