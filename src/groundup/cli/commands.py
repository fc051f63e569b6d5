"""All commands, and what becomes of their mistakes: a sentence and an exit status."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnusedCliTokensError,
)

from groundup.cli import (
    chat,
    classify,
    course,
    data,
    demo,
    doctor,
    download,
    evaluate,
    explain,
    export,
    generate,
    import_model,
    inspect,
    instruct,
    judge,
    list_runs,
    plan,
    plot,
    pretrain,
    respond,
    serve,
    sweep,
    tokenizer,
    xray,
)
from groundup.cli.app import app
from groundup.data.finding import STDIN
from groundup.errors import (
    EndedElsewhere,
    Note,
    TrainingFailed,
    UserError,
    did_you_mean,
    is_out_of_memory,
)
from groundup.launch import world_size
from groundup.output import prepare_streams, say
from groundup.spinning import choose_spins

__all__ = [  # importing a module makes its command known
    "chat",
    "classify",
    "course",
    "data",
    "demo",
    "doctor",
    "download",
    "evaluate",
    "explain",
    "export",
    "generate",
    "import_model",
    "inspect",
    "instruct",
    "judge",
    "list_runs",
    "plan",
    "plot",
    "pretrain",
    "respond",
    "run",
    "serve",
    "sweep",
    "tokenizer",
    "xray",
]


def run(args: Sequence[str]) -> int:
    """Run a command; what goes wrong becomes one sentence and an exit status."""
    prepare_streams()
    debug = "--debug" in args
    args = [STDIN if arg == "-" else arg for arg in args if arg != "--debug"]
    if args and not {"-h", "--help", "--version"} & set(args):
        choose_spins()  # before PyTorch is loaded
    try:
        with _notes():
            return app(args, exit_on_error=False, print_error=False) or 0
    except (UserError, CycloptsError) as error:
        status, message, trouble = 2, _sentence(error), error
    except EndedElsewhere:
        return 1
    except TrainingFailed as error:
        status, message, trouble = 1, str(error), error
    except OSError as error:
        if _is_broken_pipe(error):  # `groundup … | head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        what = f"{error.filename}: " if error.filename else ""
        status, message, trouble = 2, f"{what}{error.strerror or error}", error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        status, trouble = 2, error
        message = (
            "there is not enough memory for this; try a smaller model (--emb-dim, --n-layers), "
            "--context-length or --batch-size"
        )
    if debug:
        raise trouble
    if world_size() == 1 or _is_first_to_tell(message):
        say(f"groundup: {message}", everywhere=True)
    return status


def _is_first_to_tell(message: str) -> bool:
    from groundup.train.world import tell_once

    return tell_once(message)


@contextmanager
def _notes() -> Iterator[None]:
    """Print notes as lines of their own, not as Python prints warnings."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def say_or_show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if issubclass(category, Note):
                say(f"note: {message}")
            else:
                show(message, category, *rest)

        warnings.showwarning = say_or_show
        yield


def _sentence(error: Exception) -> str:
    """What to print for a mistake; the parser's own words where they say what to do."""
    if isinstance(error, UnknownCommandError) and error.unused_tokens and error.app:
        return _no_such_command(error.app, error.unused_tokens[0])
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        word = error.unused_tokens[0]
        return f"{word!r} is one word too many; put a text of several words in quotes"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"{error.argument.name} is missing or has no value; see groundup COMMAND --help"
    return " ".join(str(error).split())


def _no_such_command(group: App, word: str) -> str:
    """What there is, and where: ``chat`` is a command of ``instruct``."""
    below = [f"{name} {word}" for name in _commands(app) if word in _commands(app[name])]
    hint = f"; did you mean {' or '.join(map(repr, below))}?" if group is app and below else ""
    names = _commands(group)
    hint = hint or did_you_mean(word, names) or ";"
    return f"there is no command {word!r}{hint} there are: {', '.join(names)}"


def _commands(group: App) -> list[str]:
    return sorted(name for name in group if not name.startswith("-"))


def _is_broken_pipe(error: OSError) -> bool:
    """Windows says of a pipe that nobody reads any more that its argument is invalid."""
    unread = sys.platform == "win32" and error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or unread
