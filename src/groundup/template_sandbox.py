"""The sandbox that a stranger's chat template runs in: it counts steps and measures texts.

Imported where a template is rendered, since Jinja is not needed before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MOST_STEPS = 1_000_000
"""Turns of loops, and ten for each call; what a conversation takes is some per message."""

LARGEST = 16 << 20
"""Characters of what a template writes, and of any text that it puts together."""


class Generation(Extension):
    """Blocks that mark what the assistant said."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        """The block's statements, in a scope of their own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class SafeNamespace(Namespace):
    """Has no names that begin with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace cannot have the attribute {name!r}")
        super().__setitem__(name, value)


class Sandbox(ImmutableSandboxedEnvironment):
    """Counts what a template does, and measures what it puts together."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
        )
        self.steps = 0
        self.filters |= {"counted": self._counted, "measured": measured}
        self.globals["namespace"] = SafeNamespace

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "counted", [], [], None, None)
        for joined in list(tree.find_all(nodes.Concat)):
            whole = nodes.Concat(joined.nodes)
            joined.nodes = [nodes.Filter(whole, "measured", [], [], None, None)]
        return tree

    def call(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call what the sandbox allows to be called; it counts."""
        self.count(10)
        return measured(super().call(*args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute what does not grow too large."""
        for many, times in ((left, right), (right, left)):
            if operator == "*" and isinstance(many, Sized) and isinstance(times, int):
                check_size(len(many) * times)
        if operator == "**" and max(abs(left), abs(right)) > 4096:
            raise ValueError("the numbers of a power are too large")
        return measured(super().call_binop(context, operator, left, right))

    def count(self, steps: int) -> None:
        """Note that it has gone so many steps further."""
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise ValueError(f"it takes more than {MOST_STEPS:,} steps")

    def _counted(self, found: Iterable[Any]) -> Iterable[Any]:
        if isinstance(found, Sized):
            self.count(len(found))
            return found
        return self._one_by_one(found)

    def _one_by_one(self, found: Iterable[Any]) -> Iterator[Any]:
        for one in found:
            self.count(1)
            yield one


def measured(value: Any) -> Any:
    """The value, which must not be too large."""
    if isinstance(value, str | list | tuple | range):
        check_size(len(value))
    return value


def check_size(size: int) -> None:
    """Raise ``ValueError`` if a text is too large."""
    if size > LARGEST:
        raise ValueError(f"it puts together more than {LARGEST:,} characters")
