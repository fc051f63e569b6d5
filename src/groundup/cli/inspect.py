"""``groundup inspect``: what a model is made of and what it costs."""

from __future__ import annotations

from pathlib import Path

from groundup.cli.app import Flag, WholeNumber, app
from groundup.config import ALIASES, PRESETS, ModelConfig, preset
from groundup.errors import UserError, did_you_mean


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
        model: a model directory, a .pth of the course, or a preset such as gpt2-small.
        batch_size: batch of the shapes and of the training memory.
        context_length: tokens per text, if not the model's own.
        n_heads: attention heads, for a .pth that cannot say it.
        no_verify: open it though a file is not as it was saved.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    cfg, labels = _model_of(model, n_heads, not no_verify)
    if context_length is not None:
        cfg = cfg.replace(context_length=context_length)

    from rich.console import Console
    from rich.markup import escape

    from groundup.model.report import costs, layer_table

    # A pipe has no width: give tables what they need instead of rich's 80 columns.
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    with console.capture() as captured:
        console.print(f"[bold]{escape(model)}[/bold]")
        usual = {"feed_forward": "gelu", "hidden_dim": None}  # GPT-2's, and the course's
        shown = [f"{k}={cfg[k]}" for k in cfg.keys() if k not in usual or cfg[k] != usual[k]]
        console.print("  " + "  ".join(shown))
        if labels:
            console.print(f"  a classifier of {len(labels)} classes: {escape(', '.join(labels))}")
        console.print(_layers(layer_table(cfg, batch_size, len(labels))))
        found = costs(cfg, batch_size, len(labels))
        tied = (
            "output layer tied to the token embedding" if cfg.tie_weights else "output layer untied"
        )
        console.print(f"\n[bold]Parameters[/bold] ({tied})")
        console.print(f"  unique {found.unique_parameters:,}   total {found.total_parameters:,}")
        if not labels:
            console.print(
                f"  if tied {found.tied_parameters:,}   if untied {found.untied_parameters:,}"
            )
        console.print(_memory(found, batch_size))
        console.print(
            f"[bold]Operations per token[/bold] at {cfg.context_length:,} tokens of context\n"
            f"  forward {found.forward_flops / 1e6:,.1f} MFLOP   "
            f"training {found.training_flops / 1e6:,.1f} MFLOP"
        )
    print(captured.get(), end="")  # not by rich, which makes a status of 1 of `| head`


def _model_of(source: str, n_heads: int | None, verify: bool) -> tuple[ModelConfig, list[str]]:
    """A model's shape, and the names of a classifier's classes."""
    if Path(source).exists():
        from groundup.weights.load import read_shape

        cfg, facts = read_shape(source, n_heads, verify=verify)
        return cfg, facts.labels
    if source in PRESETS or source in ALIASES:
        return preset(source), []
    raise UserError(
        f"{source!r} is neither a model directory nor a preset"
        f"{did_you_mean(source, [*PRESETS, *ALIASES])}; presets: {', '.join(PRESETS)}"
    )


def _layers(rows: list) -> object:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("module", "type", "input", "output"):
        table.add_column(title, no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            "  " * row.name.count(".") + row.name,
            row.kind,
            "x".join(map(str, row.input_shape)),
            "x".join(map(str, row.output_shape)),
            f"{row.parameters:,}" if row.parameters else "",
        )
    return table


def _memory(found, batch_size: int) -> object:
    from rich.table import Table

    from groundup.model.report import human_bytes, memory_rows

    table = Table(
        box=None,
        pad_edge=False,
        show_header=False,
        title="\nMemory (fp32)",
        title_style="bold",
        title_justify="left",
    )
    table.add_column()
    table.add_column(justify="right")
    for name, size in memory_rows(found, batch_size):
        table.add_row("  " + name, human_bytes(size), style="bold" if name[0] == "=" else None)
    return table
