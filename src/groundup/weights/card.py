"""The model card: a ``README.md`` written from the facts of the run, nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from groundup.facts import Facts
from groundup.model.gpt import GPTModel
from groundup.output import inline
from groundup.weights.architectures import architecture_of

_LANGUAGE_MODEL = (
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "",
    'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")',
    'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
)
_CLASSIFIER = (
    "from transformers import pipeline",
    "",
    'classify = pipeline("text-classification", "path/to/this/folder")',
    'classify("a text", truncation=True)',
)


_LAST_PADDED = (
    "It was trained to read the last position of texts that are padded to {} tokens "
    "(`--position last-padded`). `groundup classify predict` does so too; `transformers` reads "
    "the last token before the padding, so its probabilities differ."
)


def model_card(name: str, model: GPTModel, facts: Facts) -> str:
    """Describe a model in Markdown with the metadata block that model hubs read."""
    cfg, labels, progress = model.cfg, facts.labels, facts.progress
    architecture = architecture_of(cfg)
    rows = {
        "parameters": f"{model.num_parameters():,}",
        "vocabulary": f"{cfg.vocab_size:,} tokens",
        "context": f"{cfg.context_length:,} tokens",
        "width, heads, layers": f"{cfg.emb_dim}, {cfg.n_heads}, {cfg.n_layers}",
        "query/key/value bias": "yes" if cfg.qkv_bias else "no",
        "tied output layer": "yes" if cfg.tie_weights else "no",
    }
    if cfg.kv_heads != cfg.n_heads:
        rows["key/value heads"] = f"{cfg.kv_heads}"
    if cfg.feed_forward != "gelu" or cfg.hidden_dim:
        rows["feed-forward"] = f"{cfg.feed_forward_dim:,} wide, {cfg.feed_forward}"
    training = {
        "classes": ", ".join(labels) or None,
        "training text": facts.data.description or None,
        "training tokens": _number(facts.data.train_tokens),
        "steps": _number(progress.get("step")),
        "tokens seen": _number(progress.get("tokens_seen")),
        "training loss": _loss(progress.get("running_loss")),
        "validation loss": _loss(progress.get("val_loss")),
        "validation accuracy": _loss(progress.get("val_accuracy")),
    }
    shown = ("batch_size", "learning_rate", "seed")
    training |= {n.replace("_", " "): facts.options.get(n) for n in shown}
    padded = labels and facts.reading.padded
    note = _LAST_PADDED.format(facts.reading.max_length) if padded else ""
    lines = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: text-{'classification' if labels else 'generation'}",
        f"tags: [{architecture.name}, groundup]",
        "---",
        "",
        f"# {inline(name)}",
        "",
        f"A {architecture.title} style {'classifier' if labels else 'language model'} made with "
        "groundup.",
        "",
        "```python",
        *(_CLASSIFIER if labels else _LANGUAGE_MODEL),
        "```",
        "",
        *((note, "") if note else ()),
        *_table("model", rows),
        "",
        *_table("training", {k: v for k, v in training.items() if v is not None}),
    ]
    return "\n".join(lines) + "\n"


def _table(title: str, rows: Mapping[str, object]) -> list[str]:
    if not rows:
        return []
    return [
        f"| {title} | |",
        "| --- | --- |",
        *(f"| {k} | {inline(str(v))} |" for k, v in rows.items()),
    ]


def _number(value: object) -> str | None:
    return f"{int(value):,}" if isinstance(value, int | float) else None


def _loss(value: object) -> str | None:
    return f"{value:.4f}" if isinstance(value, int | float) else None
