"""Render a model's own chat template: Jinja by a stranger, in a sandbox, as transformers does it.

The environment is that of ``transformers``' ``apply_chat_template`` (its settings, filters, globals
and ``{% generation %}`` blocks), with bounds on what a template may do: a stranger's template must
not keep a machine busy or fill its memory.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from datetime import datetime
from typing import Any

from groundup.errors import UserError

MOST_STEPS = 1_000_000
"""Turns of loops, and ten for each call; what a conversation takes is some per message."""

LARGEST = 16 << 20
"""Characters of what a template writes, and of any text that it puts together."""


class Refusal(UserError):
    """A conversation that the template itself does not accept."""


def render(
    template: str, messages: Sequence[Mapping[str, str]], roles: Mapping[str, str], *, ask: bool
) -> str:
    """The conversation as the template writes it.

    Args:
        template: the text of the template.
        messages: roles and contents.
        roles: the tokenizer's ``bos_token``, ``eos_token``, ….
        ask: whether the beginning of an answer comes last (``add_generation_prompt``).

    Raises:
        UserError: the template is damaged, fails, or does not come to an end; a
            :class:`Refusal` if it does not accept the conversation, in its own words.
    """
    import jinja2

    what = "the model's chat template"
    try:
        environment, compiled = _compiled(template)
        environment.steps = 0
        values = {"messages": [dict(message) for message in messages], "tools": None}
        values |= {"documents": None, "add_generation_prompt": ask, **roles}
        return "".join(_bounded(compiled.generate(values)))
    except UserError:
        raise
    except jinja2.TemplateSyntaxError as error:
        problem = f"is damaged: line {error.lineno}: {error.message}"
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        problem = f"fails: {error}"
    except (AttributeError, RecursionError, MemoryError, RuntimeError) as error:
        problem = f"fails: {type(error).__name__}: {error}"
    raise UserError(f"{what} {_line(problem)}; name another prompt style with --style")


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> tuple[Any, Any]:
    """The template and its environment; jinja2 is imported here, where it is needed."""
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """Blocks that mark what the assistant said."""

        tags = {"generation"}

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class Bounded(ImmutableSandboxedEnvironment):
        """Counts what a template does, and measures what it puts together."""

        intercepted_binops = frozenset({"+", "*", "**", "%"})
        steps = 0

        def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
            tree = super()._parse(source, name, filename)
            for loop in tree.find_all(nodes.For):
                loop.iter = nodes.Filter(loop.iter, "counted", [], [], None, None)
            for joined in list(tree.find_all(nodes.Concat)):
                whole = nodes.Concat(joined.nodes)
                joined.nodes = [nodes.Filter(whole, "measured", [], [], None, None)]
            return tree

        def call(self, /, *args: Any, **kwargs: Any) -> Any:
            self.count(10)
            return _measured(super().call(*args, **kwargs))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            for many, times in ((left, right), (right, left)):
                if operator == "*" and isinstance(many, Sized) and isinstance(times, int):
                    _check_size(len(many) * times)
            if operator == "**" and max(abs(left), abs(right)) > 4096:
                raise ValueError("the numbers of a power are too large")
            return _measured(super().call_binop(context, operator, left, right))

        def count(self, steps: int) -> None:
            self.steps += steps
            if self.steps > MOST_STEPS:
                raise ValueError(f"it takes more than {MOST_STEPS:,} steps")

    class SafeNamespace(Namespace):
        """Has no names that begin with an underscore."""

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise SecurityError(f"a namespace cannot have the attribute {name!r}")
            super().__setitem__(name, value)

    environment = Bounded(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )

    def counted(found: Iterable[Any]) -> Iterable[Any]:
        if isinstance(found, Sized):
            environment.count(len(found))
            return found
        return _counted(found)

    def _counted(found: Iterable[Any]) -> Iterator[Any]:
        for one in found:
            environment.count(1)
            yield one

    environment.filters |= {"counted": counted, "measured": _measured, "tojson": _tojson}
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": lambda *args, **kwargs: dict(*args, **kwargs),
        "namespace": SafeNamespace,
    }
    return environment, environment.from_string(template)


def _refuse(message: object) -> None:
    raise Refusal(f"the model's chat template refuses this conversation: {_line(str(message))}")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own it leaves HTML's characters as they are."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _bounded(pieces: Iterable[str]) -> Iterator[str]:
    size = 0
    for piece in pieces:
        size += len(piece)
        _check_size(size)
        yield piece


def _measured(value: Any) -> Any:
    if isinstance(value, str | list | tuple | range):
        _check_size(len(value))
    return value


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise ValueError(f"it puts together more than {LARGEST:,} characters")


def _line(text: str) -> str:
    """A stranger's words as one short line."""
    return " ".join(text.split())[:300]
