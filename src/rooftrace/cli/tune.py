"""`rooftrace tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rooftrace.cli.options import Json
from rooftrace.cli.show import answered, people, say


def tune(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", help="TOML file of rooftrace train with some values left open."
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder of the study.")
    ],
    trials: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Number of trials in all, including those of earlier commands."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Value that replaces one of the file; repeatable."
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the checkpoints of all trials.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search for the best values of a training configuration.

    The same command continues a study that was interrupted.
    """
    from rooftrace.flows.tune import TuneOptions, run_tune

    options = TuneOptions(trials, overrides or (), keep)
    report = run_tune(config, out, options, notify=say)
    if answered(report, as_json=as_json):
        return
    summary = report.summary
    table = Table("key", "best", "importance")
    assert summary.best is not None
    for parameter in summary.parameters:
        share = summary.importance.get(parameter.name)
        value = summary.best.params[parameter.name]
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        table.add_row(parameter.name, text, "–" if share is None else f"{share:.0%}")
    people.print(table)
    counts = ", ".join(f"{n} {kind}" for kind, n in summary.counts.items() if n)
    say(f"{summary.monitor} {summary.best.value:.4f} in trial {summary.best.number}; {counts}")
    say(f"configuration: {report.config}; model: {report.bundle}")
