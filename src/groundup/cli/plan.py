"""``groundup plan``: whether a training fits its devices, how to cut it, how long it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.cli.app import app, pick, with_options
from groundup.cli.inspect import model_of
from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.output import console, table
from groundup.planning.config import PlanConfig
from groundup.planning.sizes import human_flops, human_time

if TYPE_CHECKING:
    from rich.console import Console

    from groundup.planning.plan import Plan

PARTS = {
    "parameters": "parameters",
    "gradients": "gradients",
    "optimizer": "AdamW's moments",
    "gathered": "gathered blocks",
    "copies": "copies in bf16",
    "activations": "activations",
    "logits": "logits",
}
"""The memory of a device: the fields of ``Memory``, and what people call them."""


@app.command
@with_options(from_preset="Model", Model=ModelConfig, Plan=PlanConfig)
def plan(*, model: str = "gpt2-small", given: dict[str, Any]) -> int:
    """Say whether a training fits its devices, how to cut it, how long it takes and what it costs.

    Nothing is trained or allocated: memory, operations and communication are counted.

    Args:
        model: the shape to begin with: a preset such as gpt2-xl, or a model directory.
    """
    cfg, labels = model_of(model, given.get("n_heads"), verify=True)
    if labels:
        raise UserError(f"{model} is a classifier; expected the shape of a language model")
    cfg = cfg.replace(**pick(given, ModelConfig))
    config = PlanConfig(**pick(given, PlanConfig))

    from groundup.planning.plan import plan as make

    made = make(cfg, config)
    with console() as out:
        _show(out, model, made, config)
    return 0 if made.chosen.fits else 1


def _show(out: Console, model: str, made: Plan, config: PlanConfig) -> None:
    costs, cfg = made.costs, made.cfg
    devices = f"{config.devices} device{'s' * (config.devices > 1)}"
    memory = config.device_memory or f"{made.budget / 2**30:.1f} GiB free of reserve (this machine)"
    out.print(f"{model} on {devices}, {memory}, {config.precision}", style="bold")
    out.print(
        f"  {costs.unique_parameters:,} parameters, {cfg.context_length:,} tokens of context, "
        f"{human_flops(costs.training_flops)} per token"
    )
    out.print("\nMemory of a device, GiB", style="bold")
    out.print(_memory(made))
    budget = made.budget / 2**30
    out.print(f"  {budget:,.2f} GiB of a device are planned with; the rest is a reserve")
    for line in _verdict(made, config):
        out.print(line)
    if made.chosen.fits and made.work is not None:
        for line in _time(made, config):
            out.print(line)


def _memory(made: Plan) -> Any:
    titles = ["", *(way.name.replace(" + ", "\n+ ") for way in made.ways)]
    shown = table(titles, (), right=titles[1:])
    shown.add_row(
        "  texts per micro-batch", *(str(w.batch_size) if w.fits else "none" for w in made.ways)
    )
    shown.add_row("  micro-batches per step", *(str(w.micro_batches) for w in made.ways))
    memories = [way.memory for way in made.ways]
    rows = {said: [getattr(memory, name) for memory in memories] for name, said in PARTS.items()}
    rows["not at once"] = [-memory.saved for memory in memories]
    rows["= at most"] = [memory.peak for memory in memories]
    for name, sizes in rows.items():
        if any(sizes):
            cells = [f"{size / 2**30:,.2f}" if size else "" for size in sizes]
            shown.add_row(f"  {name}", *cells, style="bold" if name[0] == "=" else None)
    return shown


def _verdict(made: Plan, config: PlanConfig) -> list[str]:
    from groundup.planning.plan import devices_needed

    way, cfg = made.chosen, made.cfg
    if way.fits:
        tokens = config.devices * way.micro_batches * way.batch_size * cfg.context_length
        lines = [
            f"\nIt fits: {way.name}, {config.devices} x {way.micro_batches} x {way.batch_size} "
            f"texts of {cfg.context_length:,} are {tokens:,} tokens per step"
        ]
        flags = f"--batch-size {way.batch_size} --grad-accum-steps {way.micro_batches}"
        if config.devices > 1:
            flags = f"--parallel {way.need.strategy} {flags}"
        lines.append(f"  {flags}")
        if way.need.checkpointing and not config.activation_checkpointing:
            lines.append("  and only if the backward pass computes each block once more")
        return lines
    least = min(made.ways, key=lambda way: way.memory.peak)  # what comes nearest
    largest = max(PARTS, key=lambda name: getattr(least.memory, name))
    count = config.batch_size or 1
    lines = [
        f"\nIt doesn't fit: {least.name} with {count} text{'s' * (count > 1)} per micro-batch "
        f"takes {least.memory.peak / 2**30:,.2f} GiB, most of it {PARTS[largest]}"
    ]
    if count > 1:
        lines.append("  try a smaller --batch-size, or leave it out")
    for checkpointing in (False, True):
        number = devices_needed(way, made.budget, checkpointing=checkpointing)
        if number is not None:
            lines.append(
                f"  FSDP{' + checkpointing' * checkpointing} fits from {number:,} such devices on, "
                "with one text each per step"
            )
    if len(lines) == 1:
        lines.append("  no number of such devices is enough; try a shorter --context-length")
    return lines


def _time(made: Plan, config: PlanConfig) -> list[str]:
    work = made.work
    assert work is not None
    how = "measured" if config.tokens_per_second else "assumed"
    speed = work.step_tokens / work.fastest
    lines = [
        f"\nA step computes {human_time(work.compute)} ({work.mfu:.0%} of {config.flops}, {how}); "
        f"{speed:,.0f} tokens/s in all"
    ]
    if work.bandwidth and config.devices > 1:
        share = work.exchange / work.compute
        lines += [
            f"  and sends for {human_time(work.exchange)}, {share:.1%} of that; hidden behind the "
            f"computation a step takes {human_time(work.fastest)}, else {human_time(work.slowest)}",
            f"  with this global batch, sending takes longer than computing from "
            f"{work.most_devices():,.0f} devices on"
            + " (with one micro-batch per step)"
            * (work.need.strategy == "fsdp"),
        ]
    elif config.devices > 1:
        lines.append("  (without what the devices send each other: give --bandwidth)")
    if made.tokens is not None:
        seconds = work.seconds(made.tokens)
        steps = -(-made.tokens // work.step_tokens)
        lines.append(f"\n{config.tokens} tokens: {steps:,.0f} steps, {human_time(seconds)}")
        if config.price is not None:
            hours = seconds / 3600 * config.devices
            lines.append(
                f"  {hours:,.0f} device hours at {config.price:g} are {hours * config.price:,.0f}"
            )
    return lines
