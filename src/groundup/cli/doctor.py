"""``groundup doctor``: is everything in order here?"""

from __future__ import annotations

from groundup.cli.app import Flag, app


@app.command
def doctor(*, no_network: Flag = False) -> int:
    """Check versions, device, precision, disk and network; name a fix for each problem.

    Args:
        no_network: do not try to reach the model hub.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from groundup.doctor import examine

    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    problems = 0
    for check in examine(network=not no_network):
        problems += check.level == "problem"
        colour = {"ok": "green", "note": "yellow", "problem": "red"}[check.level]
        found = escape(check.found + (f"\n→ {check.fix}" if check.fix else ""))
        table.add_row(f"[{colour}]{check.level}[/{colour}]", check.name, found)
    Console(highlight=False, markup=True).print(table)
    return 1 if problems else 0
