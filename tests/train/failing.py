"""``groundup``, of which one process fails in the middle: what a test starts by ``torchrun``.

Or whose processes all fail, and the one that says so is the last to end.
"""

import os
import sys
import time

from groundup.cli import commands, main
from groundup.errors import UserError
from groundup.train.objective import NextToken
from groundup.train.world import tell_once

AT = 5
"""Calls of the loss after which it fails."""


def fail(how: str) -> None:
    """Let the second process's loss fail: with a sentence, or without a word."""
    whole, calls = NextToken.loss, iter(range(10**6))

    def loss(self: NextToken, *args: object) -> object:
        if next(calls) == AT:
            if how == "silently":
                os._exit(9)
            raise UserError("this process has no more room")
        return whole(self, *args)  # pyright: ignore[reportArgumentType]

    if os.environ["RANK"] == "1":
        NextToken.loss = loss  # pyright: ignore[reportAttributeAccessIssue]


def speak_slowly(message: str) -> bool:
    """Be sure to be the last one to end, if this is the one that speaks."""
    speaks = tell_once(message)
    time.sleep(LONG * speaks)
    return speaks


LONG = 2.0
"""Seconds; torchrun looks for ended processes ten times in one."""

if __name__ == "__main__":
    if sys.argv[1] == "slowly":
        commands._is_first_to_tell = speak_slowly
    else:
        fail(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
