"""The command `rooftrace inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.data_options import DataFields, source_config
from rooftrace.cli.option_groups import scene_fields, with_groups
from rooftrace.cli.options import Json
from rooftrace.cli.show import bar, counted, people, print_json, say
from rooftrace.labels.config import SourceConfig
from rooftrace.predict.options import SceneOptions

_TONES = {"error": "bold red", "warning": "yellow", "note": "dim"}


@with_groups
def inspect(
    data: Annotated[SourceConfig, DataFields("Training data of any kind.")],
    *,
    images: Annotated[SceneOptions, scene_fields("bands", "stretch")],
    against: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Set to compare with, such as the test images."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="HTML page to write.")
    ] = None,
    against_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--against-set",
            metavar="KEY=VALUE",
            help="Value of the data card of the --against set; repeatable.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Audit training data: its figures, its problems, and what to do first."""
    from rooftrace.flows.inspect import run_inspect

    second = None if against is None else source_config(against, against_settings)
    with bar("inspect", counted("images"), hidden=as_json) as progress:
        audit = run_inspect(
            data, second, out, progress=progress,
            bands=images.bands, stretch=images.stretch or "auto",
        )  # fmt: skip
    if as_json:
        print_json(audit.to_json() | {"report": None if out is None else str(out)})
        return
    say(audit.summary.paragraph)
    for finding in audit.findings:
        people.print(f"[{_TONES[finding.severity]}]{finding.severity:8}[/] ", end="")
        say(finding.title)
    say("To do first:")
    for number, action in enumerate(audit.summary.actions, 1):
        say(f"  {number}. {action}")
    if out is not None:
        say(f"page: {out}")
