"""``groundup sweep``: the same training with several values of some options, one after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from cyclopts import Parameter

from groundup import launch
from groundup.cli.app import app
from groundup.cli.instruct import USELESS
from groundup.cli.list_runs import show_runs
from groundup.config import ModelConfig
from groundup.data.finding import STDIN
from groundup.errors import UserError, did_you_mean
from groundup.options import describe_type, fits, option_fields
from groundup.output import say
from groundup.tasks.config import ClassifyConfig, InstructConfig, PretrainConfig, TaskConfig

if TYPE_CHECKING:
    from groundup.tasks.sweep import Member, Sweep

TASKS: dict[str, tuple[type[TaskConfig], tuple[str, ...]]] = {
    "pretrain": (PretrainConfig, ("pretrain",)),
    "classify": (ClassifyConfig, ("classify", "train")),
    "instruct": (InstructConfig, ("instruct", "train")),
}
"""By the first word of a command that trains: its options, and all of its words."""

EXAMPLE = "groundup sweep --learning-rate 1e-4,1e-3 pretrain book.txt --out runs/sweep"

OURS = ("--resume", "--overwrite")
"""Flags of a run that a sweep gives by itself."""


@app.command
def sweep(*words: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> int:
    """Train with each combination of some options' values, one run after another, and compare.

    As in: groundup sweep --learning-rate 1e-4,3e-4 --batch-size 8,16 pretrain book.txt --out
    runs/sweep. Before the command (pretrain, classify train, instruct train) stand the options
    with their values, after it what all runs have in common. Each run gets a directory in --out,
    named by where it differs. The same command again goes on: what is finished is left alone, a
    run that was broken off is resumed. At the end there are a table and a picture.

    Args:
        words: options with values between commas, then a command that trains.
    """
    if launch.world_size() > 1:
        raise UserError(
            "a sweep is one process; start it without torchrun, or each run of it by itself"
        )
    given, task, rest = _split(words)
    config, command = TASKS[task]
    if tuple(rest[: len(command)]) != command:
        raise UserError(
            f"{task} has several commands; the one that trains is `{' '.join(command)}`"
        )
    values = _values(given, config)
    common, out = _without_out(rest[len(command) :])
    _check(values, common, config)

    from groundup.tasks.sweep import Sweep

    made = Sweep(out, [*command, *common], values)
    count = len(made.members)

    def start(member: Member, where: Path, how: list[str]) -> int:
        number = made.members.index(member) + 1
        say(
            f"\nrun {number} of {count}: {member.name}{' (goes on)' if how == ['--resume'] else ''}"
        )
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in member.options.items()]
        words = [*command, *common, *flags, f"--out={where}", *how]
        return app(words, exit_on_error=False, print_error=False) or 0

    status = made.run(start)
    _report(made, out)
    if status:
        say("\nstopped; the same command goes on with the sweep")
    return status


def _report(made: Sweep, out: Path) -> None:
    """One table, one picture."""
    infos = made.infos()
    diverged = {member.name: member.message for member in made.members if member.message}
    say(f"\n{len(infos)} of {len(made.members)} runs, the best first:")
    shown = [
        replace(info, state="diverged") if info.path.name in diverged else info for info in infos
    ]
    show_runs(shown, out, [{} for _ in shown], "")
    for name, message in diverged.items():
        say(f"{name}: {message}")
    if (picture := made.draw()) is not None:
        say(f"picture: {picture}")
    say(f"results: {out / 'sweep.json'}")


def _split(words: Sequence[str]) -> tuple[dict[str, str], str, list[str]]:
    """The options with their values, the task, and its command line.

    Raises:
        UserError: something is missing, or given twice.
    """
    given: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0] not in TASKS:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if not flag.startswith("--") or flag == "--":
            raise UserError(
                f"{word!r} is neither an option with values nor a command that trains "
                f"({', '.join(TASKS)}); as in: {EXAMPLE}"
            )
        if not equals:
            value = rest.pop(0) if rest and rest[0] not in TASKS and rest[0][:2] != "--" else ""
        if not value.strip(","):
            raise UserError(f"{flag} has no values; give some with commas between: {EXAMPLE}")
        if flag in given:
            raise UserError(f"{flag} is given twice; put all of its values into one list")
        given[flag] = value
    if not rest:
        raise UserError(f"no command that trains is named ({', '.join(TASKS)}); as in: {EXAMPLE}")
    if not given:
        raise UserError(f"no option with values is named before {rest[0]}; as in: {EXAMPLE}")
    return given, rest[0], rest


def _values(given: dict[str, str], config: type[TaskConfig]) -> dict[str, list[Any]]:
    """The values by option, of the types that the options are declared with.

    Raises:
        UserError: there is no such option, or a value is of another type, or there twice.
    """
    known = option_fields(ModelConfig, config)
    if config is InstructConfig:
        known = {name: field for name, field in known.items() if name not in USELESS}
    found: dict[str, list[Any]] = {}
    for flag, text in given.items():
        name = flag.removeprefix("--").replace("-", "_")
        if name not in known:
            flags = [f"--{n.replace('_', '-')}" for n in known]
            raise UserError(f"{config.TASK} has no option {flag}{did_you_mean(flag, flags)}")
        found[name] = [_value(flag, part.strip(), known[name][1]) for part in text.split(",")]
        if len(set(found[name])) < len(found[name]):
            raise UserError(f"{flag} has a value twice: {text}")
    return found


def _value(flag: str, text: str, hint: Any) -> Any:
    """A value of an option's type."""
    hints = get_args(hint) if get_origin(hint) not in (None, Literal) else (hint,)
    tries: list[Any] = [None] if type(None) in hints and text.lower() == "none" else []
    if bool in hints and text.lower() in ("true", "false"):
        tries.append(text.lower() == "true")
    for kind in (int, float):
        try:
            tries.append(kind(text))
        except ValueError:
            continue
    for value in (*tries, text):
        number = isinstance(value, float) and not math.isfinite(value)
        if not number and text and fits(value, hint):
            return value
    raise UserError(f"{flag}: {text!r} is not {_said(hint)}")


def _said(hint: Any) -> str:
    said = describe_type(hint)
    return said if said.startswith(("a ", "one ", "true")) else f"a value of {said}"


def _without_out(words: Sequence[str]) -> tuple[list[str], Path]:
    """The common part of the runs' command lines, and the sweep's directory.

    Raises:
        UserError: none is named, or flags that a sweep gives by itself.
    """
    rest, out = [], ""
    waiting = iter(words)
    for word in waiting:
        if word == "--out":
            out = next(waiting, "")
        elif word.startswith("--out="):
            out = word.removeprefix("--out=")
        elif word in OURS:
            raise UserError(f"a sweep goes on by itself when it is started again; leave out {word}")
        else:
            rest.append(word)
    if not out:
        raise UserError(f"--out is missing: the sweep's directory, as in: {EXAMPLE}")
    return rest, Path(out)


def _check(values: dict[str, list[Any]], common: Sequence[str], config: type[TaskConfig]) -> None:
    """Refuse what all runs, or the last of them, would refuse: now, before the first one.

    Raises:
        UserError: an option is given in both places, a value is out of range, or the text can be
            read only once.
    """
    if STDIN in common:
        raise UserError("each run of a sweep reads the text, stdin can be read once; name a file")
    ranges = config().ranges()
    for name, choices in values.items():
        flag = f"--{name.replace('_', '-')}"
        if any(word == flag or word.startswith(f"{flag}=") for word in common):
            raise UserError(f"{flag} is given before and after {config.TASK}; give it once")
        sensible, expected = ranges.get(name, (lambda value: True, ""))
        if wrong := [value for value in choices if value is not None and not sensible(value)]:
            raise UserError(f"{flag} is {wrong[0]}; expected {expected}")
