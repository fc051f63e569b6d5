"""The command-line application, and how commands get their flags from option dataclasses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from cyclopts import App, Group, Parameter, Token

from groundup.data.finding import STDIN
from groundup.options import option_fields, read_recipe, read_toml
from groundup.weights.finding import resolve_source
from groundup.weights.open_config import OpenConfig

app = App(
    name="groundup",
    help="Build a GPT from the ground up: tokenize, pretrain, generate, inspect.",
    help_epilogue="groundup COMMAND --help explains a command. --debug shows tracebacks.",
    version_flags=["--version"],
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
"""A flag that is off unless given."""


UNSET: Any = object()
"""What an option holds that was not given; None is a value that one can give (``none``)."""


def with_options(
    from_preset: str = "", hide: Sequence[str] = (), **groups: type
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one flag for every field of the dataclasses, in help groups.

    The group called ``from_preset`` shows no defaults, because a preset decides on them. The
    options in ``hide`` make no sense for the command and are not offered.

    The command takes ``given``, a dict of just those options that the user gave; what was not
    given is left to config files, recipes and the dataclass's default.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        # The command's own parameters come first in --help, then each group in its order.
        own = inspect.signature(command, eval_str=True).parameters
        parameters = [p for name, p in own.items() if name != "given"]
        known: dict[str, object] = {}
        for order, (title, config) in enumerate(groups.items(), start=1):
            group = Group(title.replace("_", " "), sort_key=order)
            for name, (field, hint) in option_fields(config).items():
                if name in known or name in own or name in hide:
                    continue
                known[name] = hint
                shown = Parameter(
                    converter=_converter(hint),
                    help=field.metadata["help"]
                    + ("" if title == from_preset else _default_text(field.default)),
                    group=group,
                    show_default=False,
                )
                parameters.append(
                    inspect.Parameter(
                        name,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=UNSET,
                        annotation=Annotated[hint, shown, _Unchecked()],
                    )
                )

        def run(*args: Any, **kwargs: Any) -> Any:
            given = {k: v for k in known if (v := kwargs.pop(k, UNSET)) is not UNSET}
            given = {k: "-" if v == STDIN else v for k, v in given.items()}
            return command(*args, given=given, **kwargs)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # pyright: ignore
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def layered(
    given: dict[str, Any],
    *configs: type[Any],
    config: Path | None = None,
    recipe: str | None = None,
) -> dict[str, Any]:
    """Merge options: a recipe, over it a TOML file, over it the flags.

    The first of the dataclasses is the task's; its ``TASK`` says whose recipes there are.
    """
    values: dict[str, Any] = {}
    if recipe is not None:
        values |= read_recipe(configs[0].TASK, recipe, *configs)
    if config is not None:
        values |= read_toml(config, *configs)
    if {"epochs", "max_steps"} & given.keys():
        values.pop("minutes", None)  # the limit that is asked for counts, not a recipe's
    return values | given


def pick(values: dict[str, Any], config: type) -> dict[str, Any]:
    """Those of the options that this dataclass declares."""
    return {name: values[name] for name in option_fields(config) if name in values}


def opening_of(given: dict[str, Any], *models: str) -> OpenConfig:
    """How these models are opened, by the options that were given.

    Raises:
        UserError: one is not there.
    """
    opening = OpenConfig(**pick(given, OpenConfig))
    for model in models:
        expect_model(model, opening.checkpoint)
    return opening


def expect_model(source: str, checkpoint: str | None = None) -> None:
    """Raise ``UserError`` if there is no such model.

    Whoever opens it would say so, but only once PyTorch is loaded, which takes seconds.
    """
    if checkpoint is not None or not Path(source).exists():
        resolve_source(source, checkpoint)


class _Unchecked:
    """Keeps pydantic from an option: once any library has loaded it, the parser lets it check
    defaults too, and ``UNSET`` is of no option's type.
    """

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> dict[str, str]:
        return {"type": "any"}


def _converter(hint: Any) -> Callable[[Any, Sequence[Token]], int | None] | None:
    """How to convert an option of this type; None leaves it to the parser."""
    if hint is int:
        return _whole_number
    return _whole_number_or_none if int in get_args(hint) else None


def _whole_number_or_none(hint: Any, tokens: Sequence[Token]) -> int | None:
    return None if tokens[0].value.lower() == "none" else _whole_number(hint, tokens)


def _whole_number(hint: Any, tokens: Sequence[Token]) -> int:
    """Convert strictly: the parser's own way would round 1.5 to 2."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


WholeNumber = Annotated[int, Parameter(converter=_whole_number)]
"""An option that takes 2, but not 1.5."""


def _default_text(default: object) -> str:
    return "" if default is None or default == "" else f" [default: {default}]"
