"""Render a model's own chat template: Jinja by a stranger, in a sandbox, as transformers does it.

The environment is that of ``transformers``' ``apply_chat_template`` (its settings, filters, globals
and ``{% generation %}`` blocks), with bounds on what a template may do: a stranger's template must
not keep a machine busy or fill its memory.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from groundup.errors import UserError

if TYPE_CHECKING:
    from jinja2 import Template

    from groundup.template_sandbox import Sandbox


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
def _compiled(template: str) -> tuple[Sandbox, Template]:
    """The template and its environment; Jinja is imported here, where it is needed."""
    from groundup.template_sandbox import Sandbox

    environment = Sandbox()
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": lambda *args, **kwargs: dict(*args, **kwargs),
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
    from groundup.template_sandbox import check_size

    size = 0
    for piece in pieces:
        size += len(piece)
        check_size(size)
        yield piece


def _line(text: str) -> str:
    """A stranger's words as one short line."""
    return " ".join(text.split())[:300]
