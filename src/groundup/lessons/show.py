"""Show the source of a class or function of the package, as it is: a copy would go stale."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any


def source(thing: Callable[..., Any]) -> str:
    """The source of a class, function or method, from its first line to its last."""
    return textwrap.dedent(inspect.getsource(thing)).strip()


def show(*things: Callable[..., Any]) -> None:
    """Show the sources of classes or functions: coloured in a notebook, plain elsewhere."""
    text = "\n\n\n".join(source(thing) for thing in things)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if not hasattr(shell, "kernel"):
        print(text)
        return
    from IPython.display import Code, display

    display(Code(text, language="python"))
