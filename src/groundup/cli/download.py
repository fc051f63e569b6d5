"""``groundup download``: pretrained weights and the course's data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from groundup.cli.app import Flag, app
from groundup.errors import UserError
from groundup.output import say, show


@app.command
def download(
    *names: str,
    source: Literal["hub", "openai"] = "hub",
    from_file: Path | None = None,
    cache_dir: Path | None = None,
    overwrite: Flag = False,
) -> None:
    """Download models and data sets; print where they are.

    Models: gpt2, gpt2-medium, gpt2-large, gpt2-xl (or 124M, 355M, 774M, 1558M), smollm2-135m. Data
    sets: the-verdict, tiny-shakespeare, sms-spam, instructions.

    Args:
        names: what to download.
        source: for models: hub (Hugging Face, safetensors) or openai (TensorFlow checkpoint).
        from_file: take this file (for a model: this folder), got by hand, instead of downloading.
        cache_dir: where downloads are kept ($GROUNDUP_CACHE, else ~/.cache/groundup).
        overwrite: download anew what is here already.
    """
    from groundup.data.download import check_request
    from groundup.data.download import download as get
    from groundup.data.sources import DATA, MODELS

    if not names:
        raise UserError(f"name what to download: {', '.join([*MODELS, *DATA])}")
    if from_file is not None and len(names) > 1:
        raise UserError(f"--from-file takes one name; given were {', '.join(names)}")
    for name in names:
        check_request(name, source)
    for name in names:
        show(get(name, source, cache_dir, from_file, overwrite, say), flush=True)
