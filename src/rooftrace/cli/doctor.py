"""`rooftrace doctor`."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from rooftrace.cli.options import Json
from rooftrace.cli.show import people, print_json


def doctor(as_json: Json = False) -> None:
    """Check the installation, and test and measure each inference engine."""
    from rooftrace.flows.doctor import run_doctor

    report = run_doctor()
    if as_json:
        print_json(report.to_json())
    else:
        table = Table("part", "state")
        for row in report.rows():
            table.add_row(*map(escape, row))
        people.print(table)
    if not report.healthy:
        raise typer.Exit(1)
