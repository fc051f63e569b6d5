"""The course's notebooks: what there is, and a copy of one's own to work in."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from groundup.errors import UserError


@dataclass(frozen=True)
class Lesson:
    """A notebook: where it is, and what it says of itself in its metadata."""

    number: int
    path: Path
    title: str
    shows: str
    takes: str


def lessons() -> list[Lesson]:
    """All notebooks, in the course's order."""
    return [_lesson(path) for path in sorted(_folder().glob("[0-9][0-9]_*.ipynb"))]


def copy_lesson(number: int, folder: Path) -> Path:
    """Put a notebook into ``folder`` to work in; one that is there already stays as it is.

    Raises:
        UserError: there is no such lesson, or the folder cannot be written.
    """
    found = {lesson.number: lesson for lesson in lessons()}
    if number not in found:
        raise UserError(f"there is no lesson {number}; there are 1 to {max(found)}")
    target = folder / found[number].path.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copyfile(found[number].path, target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; choose another --out") from error
    return target


def _folder() -> Path:
    """Within the package where it is installed, beside it in a clone."""
    packaged = Path(str(resources.files("groundup") / "notebooks"))
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "notebooks"


def _lesson(path: Path) -> Lesson:
    says: dict[str, Any] = json.loads(path.read_text("utf-8"))["metadata"]["groundup"]
    return Lesson(int(path.name[:2]), path, says["title"], says["shows"], says["takes"])
