"""Which of several processes this is, by what a launcher (``torchrun``) says in the environment."""

from __future__ import annotations

import os

from groundup.errors import UserError

COMMAND = "torchrun --nproc-per-node 2 -m groundup pretrain …"
"""How several processes are started, for sentences that advise it."""


def world_size() -> int:
    """How many processes share the work; 1 without a launcher."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """This process's number among all; 0 is the main one."""
    return _number("RANK", 0) if world_size() > 1 else 0


def local_rank() -> int:
    """Its number on this machine, which is that of its GPU."""
    return _number("LOCAL_RANK", rank()) if world_size() > 1 else 0


def local_world_size() -> int:
    """How many of the processes run on this machine."""
    return _number("LOCAL_WORLD_SIZE", world_size())


def is_main() -> bool:
    """Whether this process prints and writes."""
    return rank() == 0


def check() -> None:
    """Refuse what no launcher says.

    Raises:
        UserError: a number of processes or a port that cannot be, or a part that is missing.
    """
    _check_number("WORLD_SIZE", "1", at_least=1)
    if world_size() == 1:
        return
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise UserError(
                f"WORLD_SIZE is {world_size()}, but {name} is not set: the launcher of several "
                f"processes has to say it; torchrun does ({COMMAND})"
            )
    _check_number("RANK", "0")
    if rank() >= world_size():
        raise UserError(
            f"RANK is {rank()}, but of {world_size()} processes (WORLD_SIZE) the last is number "
            f"{world_size() - 1}"
        )
    _check_number("LOCAL_RANK", "0")
    _check_number("MASTER_PORT", "0", at_most=65535)


def _check_number(name: str, default: str, at_least: int = 0, at_most: int = 10**6) -> None:
    said = os.environ.get(name, default)
    if not said.isdecimal() or not at_least <= int(said) <= at_most:
        raise UserError(
            f"{name} is {said!r} in the environment; expected a whole number from {at_least} to "
            f"{at_most} (torchrun sets it)"
        )


def _number(name: str, default: int) -> int:
    said = os.environ.get(name, "")
    return int(said) if said.isdecimal() else default
