"""Where a model is: a path, a downloaded or imported one by its name, a run's checkpoint."""

from __future__ import annotations

from pathlib import Path

from groundup.config import PRESETS
from groundup.data.imported import imported_names
from groundup.data.sources import MODEL_NAMES, cache_dir, cached, note_if_shadowed
from groundup.errors import UserError, did_you_mean

CHECKPOINTS = "checkpoints"
"""The folder of a run for its checkpoints; the best model lies in the run's directory itself."""

HISTORY = "history"
"""The folder of a run for small snapshots of its model."""


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
    found = [*folder.glob("*"), *(run / HISTORY).glob("*")]
    names = {_named(path, run): path for path in found}
    if name not in names:
        there = sorted(names, key=lambda name: (len(name), name))
        listed = ", ".join(there) or "none"
        raise UserError(f"{run} has no checkpoint {name!r}; there are: {listed}")
    return names[name]


def _named(path: Path, run: Path) -> str:
    """How a checkpoint is called: ``last``, ``step-5``, ``history/step-000001``."""
    return path.name if path.parent.name == CHECKPOINTS else path.relative_to(run).as_posix()
