"""``groundup course``: the notebooks, from the first token to the judged assistant."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from groundup.cli.app import Flag, WholeNumber, app
from groundup.output import say, show


@app.command
def course(
    lesson: WholeNumber | None = None, /, *, out: Path = Path(), no_open: Flag = False
) -> int:
    """List the course's notebooks, or open one.

    Args:
        lesson: the number of the one to open.
        out: the folder that gets a copy of it to work in (this one).
        no_open: only copy it.
    """
    from groundup.course import copy_lesson, lessons

    if lesson is None:
        for one in lessons():
            show(f"{one.number}  {one.title} ({one.takes})\n   {one.shows}")
        say("\ngroundup course NUMBER opens one")
        return 0
    path = copy_lesson(lesson, out)
    show(path)
    if no_open:
        return 0
    if importlib.util.find_spec("jupyterlab") is None:
        # By this Python, so that the notebook's kernel has groundup.
        say(
            "open it in VS Code or Colab; or run this again after "
            f"`{sys.executable} -m pip install jupyterlab ipykernel`"
        )
        return 0
    return subprocess.run([sys.executable, "-m", "jupyterlab", str(path)]).returncode
