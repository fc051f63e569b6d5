"""The command line: ``groundup COMMAND …``; each command is a module of this package.

Heavy libraries are imported inside the commands, so ``groundup --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from groundup.cli import demo, doctor, generate, inspect, plot, pretrain, tokenizer
from groundup.cli.app import app, say
from groundup.data.text import STDIN
from groundup.errors import TrainingFailed, UserError

__all__ = ["demo", "doctor", "generate", "inspect", "main", "plot", "pretrain", "tokenizer"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 is done, 1 a run that failed, 2 a user's mistake (one sentence on stderr), 130 Ctrl-C.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [STDIN if arg == "-" else arg for arg in args if arg != "--debug"]
    try:
        return app(args, exit_on_error=False, print_error=False) or 0
    except (UserError, CycloptsError) as error:
        status, message = 2, " ".join(str(error).split())
        trouble = error
    except TrainingFailed as error:
        status, message, trouble = 1, str(error), error
    except KeyboardInterrupt as error:
        status, message, trouble = 130, "interrupted", error
    except BrokenPipeError:  # `groundup … | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if debug:
        raise trouble
    say(f"groundup: {message}")
    return status
