"""``groundup demo``: the whole path in minutes, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.cli.app import Flag, app, layered, with_options
from groundup.cli.pretrain import report
from groundup.config import ModelConfig
from groundup.output import say
from groundup.tasks.config import PretrainConfig


@app.command
@with_options(
    from_preset="Model",
    hide=("document_separator", "validation"),
    Model=ModelConfig,
    Training=PretrainConfig,
)
def demo(
    *,
    out: Path = Path("runs/demo"),
    overwrite: Flag = False,
    resume: Flag = False,
    no_verify: Flag = False,
    given: dict[str, Any],
) -> int:
    """Watch a GPT learn to write: tokenizer, training, samples, model, plot; offline.

    The text is the Python language reference that comes with Python itself.

    Args:
        out: the model directory to write.
        overwrite: replace what an earlier run left in --out.
        resume: go on with the demo in --out, exactly where it was saved.
        no_verify: go on, or begin with a model, though a file is not as it was saved.
    """
    values = given
    if not resume:
        values = layered(given, PretrainConfig, ModelConfig, recipe="demo")

    from groundup.data.text import embedded_documents
    from groundup.tasks.pretrain import pretrain
    from groundup.train.interrupt import StopRequest

    documents = embedded_documents()
    characters = sum(map(len, documents))
    text = f"Python's language reference: {len(documents)} documents, {characters:,} characters"
    say(text)
    stop = StopRequest(say)
    record = pretrain(
        documents,
        out,
        values,
        description=text,
        overwrite=overwrite,
        resume=resume,
        verify=not no_verify,
        say=say,
        stop=stop,
    )
    return report(out, record, stop=stop, again="demo")
