"""``groundup doctor``: is everything in order here, or in a model directory?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from groundup.cli.app import Flag, app, expect_model
from groundup.errors import UserError
from groundup.output import console, table

if TYPE_CHECKING:
    from groundup.doctor import Check

BROKEN = 2
"""The status for a directory that is not in order, as for everything that can't be used."""


@app.command
def doctor(model: str | None = None, /, *, no_network: Flag = False) -> int:
    """Check versions, device, precision, disk and network; or a model directory.

    Of a directory, or of a run with its checkpoints: files and checksums, the weights against the
    config, the tokenizer, the training state, the measurements.

    Args:
        model: a directory to check instead of the machine (status 2 if it is not in order).
        no_network: do not try to reach the model hub.
    """
    if model is None:
        from groundup.doctor import examine

        return 1 if _show(examine(network=not no_network)) else 0
    if no_network:
        raise UserError("--no-network has no effect on a model's directory; leave it out")
    expect_model(model)

    from groundup.checkup import examine_directory

    return BROKEN if _show(examine_directory(model)) else 0


def _show(checks: Iterable[Check]) -> int:
    """Print the checks; return how many found a problem."""
    from rich.text import Text

    lines = table(("", "", ""), ())
    lines.show_header = False
    problems = 0
    for check in checks:
        problems += check.level == "problem"
        colour = {"ok": "green", "note": "yellow", "problem": "red"}[check.level]
        found = check.found + (f"\n→ {check.fix}" if check.fix else "")
        lines.add_row(Text(check.level, colour), check.name, found)
    with console() as out:
        out.print(lines)
    return problems
