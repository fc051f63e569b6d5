"""Show the source of a class or function of the package, as it is: a copy would go stale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from groundup.lessons.source import raw_source
from groundup.output import notebook


def show(*things: Callable[..., Any]) -> None:
    """Show the sources of classes or functions: coloured in a notebook, plain elsewhere."""
    text = "\n\n\n".join(raw_source(thing) for thing in things)
    if notebook() is None:
        print(text)
        return
    from IPython.display import Code, display

    display(Code(text, language="python"))
