"""``groundup inspect``: what a model is made of and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.cli.app import Flag, WholeNumber, app
from groundup.config import ALIASES, PRESETS, ModelConfig, preset
from groundup.data.imported import imported_names
from groundup.data.sources import cache_dir
from groundup.errors import UserError, did_you_mean
from groundup.output import console, table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from groundup.model.report import Costs, LayerRow

NARROWEST = 80
"""Columns that the names of modules need; a narrower terminal breaks the lines itself."""


@app.command
def inspect(
    model: str,
    /,
    *,
    batch_size: WholeNumber = 1,
    context_length: WholeNumber | None = None,
    n_heads: WholeNumber | None = None,
    no_verify: Flag = False,
) -> None:
    """Print a model's layers, parameters, memory and operations.

    Args:
        model: a model directory, a GGUF file, a .pth of the course, an imported model's name, or a
            preset such as gpt2-small.
        batch_size: batch of the shapes and of the training memory.
        context_length: tokens per text, if not the model's own.
        n_heads: attention heads, for a .pth that cannot say it.
        no_verify: open it though a file is not as it was saved.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    cfg, labels = model_of(model, n_heads, not no_verify)
    if context_length is not None:
        cfg = cfg.replace(context_length=context_length)

    from groundup.model.report import costs, layer_table

    found = costs(cfg, batch_size, len(labels))
    usual = {"feed_forward": "gelu", "hidden_dim": None}  # GPT-2's, and the course's
    shown = [f"{k}={cfg[k]}" for k in cfg.keys() if k not in usual or cfg[k] != usual[k]]
    with console() as out:
        out.width = max(out.width, NARROWEST)
        out.print(model, style="bold")
        out.print("  " + "  ".join(shown))
        if labels:
            out.print(f"  a classifier of {len(labels)} classes: {', '.join(labels)}")
        out.print(_layers(layer_table(cfg, batch_size, len(labels)), out.width))
        tied = "tied to the token embedding" if cfg.tie_weights else "untied"
        _title(out, "\nParameters", f"(output layer {tied})")
        out.print(f"  unique {found.unique_parameters:,}   total {found.total_parameters:,}")
        if not labels:
            out.print(
                f"  if tied {found.tied_parameters:,}   if untied {found.untied_parameters:,}"
            )
        _title(out, "\nMemory (fp32)")
        out.print(_memory(found, batch_size))
        _title(out, "Operations per token", f"at {cfg.context_length:,} tokens of context")
        out.print(
            f"  forward {found.forward_flops / 1e6:,.1f} MFLOP   "
            f"training {found.training_flops / 1e6:,.1f} MFLOP"
        )


def _title(out: Console, title: str, more: str = "") -> None:
    out.print(title, style="bold", end=" " if more else "\n")
    if more:
        out.print(more)


def model_of(source: str, n_heads: int | None, verify: bool) -> tuple[ModelConfig, list[str]]:
    """A model's shape, and the names of a classifier's classes."""
    if Path(source).exists() or source in imported_names(cache_dir()):
        from groundup.weights.load import read_shape

        cfg, facts = read_shape(source, n_heads, verify=verify)
        return cfg, facts.labels
    if source in PRESETS or source in ALIASES:
        return preset(source), []
    raise UserError(
        f"{source!r} is neither a model directory nor a preset"
        f"{did_you_mean(source, [*PRESETS, *ALIASES]) or ';'} presets: {', '.join(PRESETS)}"
    )


def _layers(layers: Sequence[LayerRow], width: int) -> Table:
    """A line per module. Where there is no room, names are not indented, and shapes are folded."""
    rows = [
        (
            "  " * layer.name.count(".") + layer.name,
            layer.kind,
            "x".join(map(str, layer.input_shape)),
            "x".join(map(str, layer.output_shape)),
            f"{layer.parameters:,}" if layer.parameters else "",
        )
        for layer in layers
    ]
    titles = ("module", "type", "input", "output", "parameters")
    needed = sum(max(map(len, column)) + 2 for column in zip(titles, *rows, strict=True)) - 2
    if needed <= width:
        return table(titles, rows, right=titles[-1:])
    made = table(titles, [(name.lstrip(), *cells) for name, *cells in rows], right=titles[-1:])
    made.padding = (0, 1, 0, 0)
    for column in made.columns:
        column.no_wrap = column.header not in ("input", "output")
    return made


def _memory(found: Costs, batch_size: int) -> Table:
    from groundup.model.report import human_bytes, memory_rows

    made = table(("what", "bytes"), (), right=("bytes",))
    made.show_header = False
    for name, size in memory_rows(found, batch_size):
        made.add_row("  " + name, human_bytes(size), style="bold" if name[0] == "=" else None)
    return made
