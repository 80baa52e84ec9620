"""`rooftrace inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.options import (
    Json,
    source_config,
    takes_data,
)
from rooftrace.cli.show import bar, people, print_json, say
from rooftrace.data.config import SourceConfig

__all__ = ["inspect"]

_TONES = {"error": "bold red", "warning": "yellow", "note": "dim"}


@takes_data("The data to train on, of any kind.")
def inspect(
    data: SourceConfig,
    against: Annotated[
        Path | None, typer.Option(help="Another set to hold it against, such as the test images.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The HTML page to write.")] = None,
    against_settings: Annotated[
        list[str] | None,
        typer.Option("--against-set", help="KEY=VALUE of a data card, for the other set."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Audit data before it is trained on: what it is, what is wrong with it, what to do first."""
    from rooftrace.flows.inspect import run_inspect

    second = None if against is None else source_config(against, against_settings)
    with bar("inspect", "images", hidden=as_json) as progress:
        audit = run_inspect(data, second, out, progress=progress)
    if as_json:
        print_json(audit.to_json() | {"report": None if out is None else str(out)})
        return
    say(audit.verdict.paragraph)
    for finding in audit.findings:
        people.print(f"[{_TONES[finding.severity]}]{finding.severity:8}[/] ", end="")
        say(finding.title)
    say("To do first:")
    for number, action in enumerate(audit.verdict.actions, 1):
        say(f"  {number}. {action}")
    if out is not None:
        say(f"page: {out}")
