"""`rooftrace card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.options import Json
from rooftrace.cli.show import answered, say


def card(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A .rooftrace or exported file, default or accurate."),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for README.md and item.json.")
    ] = Path("card"),
    as_json: Json = False,
) -> None:
    """Describe a model for others: a Hugging Face model card and a STAC item.

    Every fact comes from the file. A fact that it does not have is left out or called unknown.
    """
    from rooftrace.flows.card import run_card

    report = run_card(None if str(model) == "default" else model, out)
    if answered(report, as_json=as_json):
        return
    say(f"{report.card}, {report.item}")
