"""Where a model is: a path, a downloaded or imported one by its name, a run's checkpoint."""

from __future__ import annotations

from pathlib import Path

from groundup.config import PRESETS
from groundup.data.imported import imported_names
from groundup.data.sources import MODEL_NAMES, cache_dir, cached, note_if_shadowed
from groundup.errors import UserError, did_you_mean

CHECKPOINTS = "checkpoints"
"""The folder of a run for its checkpoints; the best model lies in the run's directory itself."""


def resolve_source(source: str | Path, checkpoint: str | None = None) -> Path:
    """The path of a model that is given as a path, or as the name of one in the cache.

    Raises:
        UserError: there is neither, or no such checkpoint.
    """
    path = Path(source)
    if checkpoint is not None:
        return _checkpoint(path, checkpoint)
    if path.exists():
        note_if_shadowed(str(source))
        return path
    imported = imported_names(cache_dir())
    if str(source) in MODEL_NAMES or str(source) in imported:
        found = cached(str(source))
        if found is not None:
            return found
        raise UserError(
            f"{source} is not here yet; run `groundup download {source}`, or name a model directory"
        )
    if str(source) in PRESETS:
        raise UserError(f"{source} is a preset, a shape without weights; name a model directory")
    hint = did_you_mean(str(source), [*MODEL_NAMES, *imported])
    what = "file" if path.suffix else "model directory"
    raise UserError(f"there is no {what} {str(source)!r}{hint}")


def _checkpoint(run: Path, name: str) -> Path:
    folder = run / CHECKPOINTS
    found = folder.iterdir() if folder.is_dir() else ()
    there = sorted((path.name for path in found), key=lambda name: (len(name), name))
    if name not in there:
        listed = ", ".join(there) or "none"
        raise UserError(f"{run} has no checkpoint {name!r}; there are: {listed}")
    return folder / name
