"""Where models lie in the cache that were not downloaded: ``groundup import FILE --as NAME``."""

from __future__ import annotations

from pathlib import Path

IMPORTED = "imported"
"""The folder in the cache for them."""

GGUF_NAME = "model.gguf"
"""What a GGUF file is called there, in a folder of the name that was given to it."""

UNFINISHED = (".part", ".old")
"""How the names of folders end that are being written or replaced."""


def imported_path(root: Path, name: str) -> Path:
    """Where a model is, or would be: a GGUF file, or a model's folder; ``root`` is the cache."""
    folder = root / IMPORTED / name
    return folder / GGUF_NAME if (folder / GGUF_NAME).is_file() else folder


def imported_names(root: Path) -> list[str]:
    """The names that were given to models in the cache ``root``."""
    folder = root / IMPORTED
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p.name for p in found if p.is_dir() and not p.name.endswith(UNFINISHED))
