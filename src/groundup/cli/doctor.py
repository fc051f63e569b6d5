"""``groundup doctor``: is everything in order here?"""

from __future__ import annotations

from groundup.cli.app import Flag, app
from groundup.output import console, table


@app.command
def doctor(*, no_network: Flag = False) -> int:
    """Check versions, device, precision, disk and network; name a fix for each problem.

    Args:
        no_network: do not try to reach the model hub.
    """
    from rich.text import Text

    from groundup.doctor import examine

    lines = table(("", "", ""), ())
    lines.show_header = False
    problems = 0
    for check in examine(network=not no_network):
        problems += check.level == "problem"
        colour = {"ok": "green", "note": "yellow", "problem": "red"}[check.level]
        found = check.found + (f"\n→ {check.fix}" if check.fix else "")
        lines.add_row(Text(check.level, colour), check.name, found)
    with console() as out:
        out.print(lines)
    return 1 if problems else 0
