"""``groundup evaluate``: how well a model predicts a text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from groundup.cli.app import app, opening_of, pick, with_options
from groundup.evaluate.perplexity_config import PerplexityConfig
from groundup.output import say, show
from groundup.weights.open_config import OpenConfig

if TYPE_CHECKING:
    from groundup.evaluate.perplexity import TextScore


@app.command
@with_options(hide=["style"], Opening=OpenConfig, Reading=PerplexityConfig)
def evaluate(
    model: str,
    /,
    *files: str,
    document_separator: str | None = None,
    as_json: Annotated[bool, Parameter("--json", negative=(), show_default=False)] = False,
    given: dict[str, Any],
) -> None:
    """Measure how well a model predicts a text: loss, perplexity, bits per byte.

    Every token is predicted once, through a sliding window; each document is read on its own.

    Args:
        model: a model directory, a GGUF file, a .pth of the course, or the name of a downloaded or
            imported model.
        files: the text: files (UTF-8, .gz too), directories, globs, or - for stdin.
        document_separator: a text that separates documents within a file.
        as_json: print one JSON object.
    """
    opening = opening_of(given, model)
    config = PerplexityConfig(**pick(given, PerplexityConfig))

    from groundup.data.text import read_documents
    from groundup.evaluate.perplexity import evaluate_text
    from groundup.weights.load import expect_language_model, load_model

    where = opening.runtime.device
    documents = read_documents(files, document_separator, say=say)
    gpt, tokens = load_model(model, where, expect=expect_language_model, **opening.how)
    score = evaluate_text(gpt, tokens, documents, config, say=say)
    if as_json:
        show(json.dumps({"model": model, "files": files} | score.as_dict(), indent=2))
    else:
        show(_table(score))


def _table(score: TextScore) -> str:
    """The result for people."""
    documents = "1 document" if score.documents == 1 else f"{score.documents:,} documents apart"
    first = (
        "after an end-of-text token"
        if score.after_end_of_text
        else "without its first token (the tokenizer has no end-of-text to predict it from)"
    )
    rows = {
        "loss": f"{score.loss:.4f} nats per token",
        "perplexity": f"{score.perplexity:,.2f}",
        "bits per byte": f"{score.bits_per_byte:.4f}",
        "predicted": f"{score.tokens:,} tokens, {score.bytes:,} bytes, {score.characters:,} "
        f"characters; {documents}, each read {first}",
        "windows": f"of {score.context_length:,} tokens, with a stride of {score.stride:,}",
        "computed": f"on {score.device} in {score.precision}",
    }
    return "\n".join(f"{name:<15}{value}" for name, value in rows.items())
