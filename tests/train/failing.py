"""``groundup``, of which one process fails in the middle: what a test starts by ``torchrun``."""

import os
import sys

from groundup.cli import main
from groundup.errors import UserError
from groundup.train.objective import NextToken

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


if __name__ == "__main__":
    fail(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
