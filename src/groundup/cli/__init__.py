"""The command line: ``groundup COMMAND …``; each command is a module of this package.

Nothing is imported before somebody listens for Ctrl-C, and heavy libraries only inside the
commands, so ``groundup --help`` answers at once.
"""

import sys


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 is done, 1 a run that failed, 2 a user's mistake (one sentence on stderr), 75 a run that a
    cluster asked to leave, 130 Ctrl-C.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        from groundup.cli.interrupts import Interrupts

        with Interrupts():
            from groundup.cli.commands import run

            return run(args)
    except KeyboardInterrupt:
        if "--debug" in args:
            raise
        print("groundup: interrupted", file=sys.stderr)
        exec("")  # else Python may remember an interrupted `exec` and die of the signal, not by 130
        return 130
