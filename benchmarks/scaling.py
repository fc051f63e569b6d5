"""The figures of ``docs/scaling.md``: GPT-2 XL and a model of 7 billion parameters, on paper.

    python benchmarks/scaling.py

puts them into the page (nothing is measured); a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from groundup.config import ModelConfig, preset
from groundup.planning.config import PlanConfig
from groundup.planning.plan import Way, plan
from groundup.planning.sizes import parse_bandwidth, parse_flops
from groundup.planning.work import Work

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
BEGIN, END = "<!-- figures:", "<!-- end of figures -->"

MODELS = {
    "GPT-2 XL": preset("gpt2-xl"),
    "7B": preset("gpt2-xl").replace(
        emb_dim=4096, n_heads=32, n_layers=32, context_length=2048, drop_rate=0.0
    ),
}
DEVICES = (8, 64, 512)
SETTING = PlanConfig(
    device_memory="80GB", flops="400T", mfu=0.4, bandwidth="50GB/s", batch_tokens="2M"
)


def figures() -> str:
    """The figures, in Markdown."""
    setting = (
        f"Devices of {SETTING.device_memory} and {SETTING.flops} operations per second, of which "
        f"{SETTING.mfu:.0%} are reached, {SETTING.bandwidth} sent by each; bf16, "
        f"{SETTING.batch_tokens} tokens per step. GiB per device, seconds per step; micro-batches "
        "are the largest that fit. From as many devices on as the last column says, sending takes "
        "longer than computing, even with one micro-batch per step."
    )
    return "\n\n".join([setting, *(_model(name, cfg) for name, cfg in MODELS.items())])


def _model(name: str, cfg: ModelConfig) -> str:
    lines = [
        "| devices | way | state | gathered | activations, copies, logits | at most "
        "| micro-batches | computes | sends | stops at |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    parameters = 0
    for devices in DEVICES:
        made = plan(cfg, replace(SETTING, devices=devices))
        parameters = made.costs.unique_parameters
        for way in made.ways:
            lines.append("| " + " | ".join(_row(devices, way, made.costs.forward_flops)) + " |")
    return f"**{name}**: {parameters:,} parameters.\n\n" + "\n".join(lines)


def _row(devices: int, way: Way, forward: float) -> Iterator[str]:
    memory = way.memory
    yield f"{devices}"
    yield way.name
    for size in (memory.state, memory.gathered, memory.of_batch, memory.peak):
        yield f"{size / 2**30:,.1f}"
    if not way.fits:
        yield from ("does not fit", "", "", "")
        return
    flops = parse_flops("flops", SETTING.flops or "")
    bandwidth = parse_bandwidth("bandwidth", SETTING.bandwidth or "")
    counts = way.batch_size, way.micro_batches
    work = Work(way.need, forward, *counts, flops, SETTING.mfu, bandwidth)
    yield f"{way.micro_batches} x {way.batch_size}"
    yield f"{work.compute:.2f}"
    yield f"{work.exchange:.2f}"
    yield f"{work.most_devices():,.0f}"


def filled_in(page: str) -> str:
    """The page with its figures as they are now."""
    begin, end = page.index(BEGIN), page.index(END)
    head = page[: page.index("\n", begin) + 1]
    return f"{head}\n{figures()}\n\n{page[end:]}"


if __name__ == "__main__":
    PAGE.write_text(filled_in(PAGE.read_text("utf-8")), "utf-8")
    print(f"{PAGE} is in step")
