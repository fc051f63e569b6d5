"""The model card: a ``README.md`` written from the facts of the run, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.model.gpt import GPTModel


def model_card(
    name: str,
    model: GPTModel,
    data: Mapping[str, Any],
    config: Mapping[str, Any],
    progress: Mapping[str, float],
) -> str:
    """Describe a model in Markdown with the metadata block that model hubs read."""
    cfg = model.cfg
    rows = {
        "parameters": f"{model.num_parameters():,}",
        "vocabulary": f"{cfg.vocab_size:,} tokens",
        "context": f"{cfg.context_length:,} tokens",
        "width, heads, layers": f"{cfg.emb_dim}, {cfg.n_heads}, {cfg.n_layers}",
        "query/key/value bias": "yes" if cfg.qkv_bias else "no",
        "tied output layer": "yes" if cfg.tie_weights else "no",
    }
    facts = {
        "training text": data.get("description"),
        "training tokens": _number(data.get("train_tokens")),
        "steps": _number(progress.get("step")),
        "tokens seen": _number(progress.get("tokens_seen")),
        "training loss": _loss(progress.get("train_loss")),
        "validation loss": _loss(progress.get("val_loss")),
        "batch size": config.get("batch_size"),
        "learning rate": config.get("learning_rate"),
        "seed": config.get("seed"),
    }
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [gpt2, groundup]",
        "---",
        "",
        f"# {name}",
        "",
        "A GPT-2 style language model trained from the ground up with groundup.",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")',
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
        "```",
        "",
        *_table("model", rows),
        "",
        *_table("training", {k: v for k, v in facts.items() if v is not None}),
    ]
    return "\n".join(lines) + "\n"


def _table(title: str, rows: Mapping[str, object]) -> list[str]:
    if not rows:
        return []
    return [f"| {title} | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in rows.items())]


def _number(value: object) -> str | None:
    return f"{int(value):,}" if isinstance(value, int | float) else None


def _loss(value: object) -> str | None:
    return f"{value:.4f}" if isinstance(value, int | float) else None
