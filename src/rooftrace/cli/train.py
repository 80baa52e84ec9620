"""`rooftrace train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rooftrace.cli.options import Json
from rooftrace.cli.show import people, print_json, say


def train(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="TOML file with the configuration; see recipes/."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="RUN", help="Folder of the run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Value that replaces one of the file; repeatable."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run that is in the folder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model on folders of image/mask pairs."""
    from rooftrace.flows.train import run_train

    report = run_train(config, out, overrides=overrides or (), resume=resume, console=people)
    if as_json:
        print_json(report.to_json())
        return
    table = Table("bundle", "epoch", "value")
    for name, (epoch, value, path) in report.best.items():
        table.add_row(str(path), str(epoch), f"{name.removeprefix('best_')} {value:.4f}")
    people.print(table)
    speed = f"; {report.images_per_s:.1f} images/s" if report.images_per_s else ""
    say(
        f"{report.epochs} epochs, {report.stopped_because}{speed}; "
        f"figures in {report.run / 'metrics.csv'}, curves in {report.run / 'curves.svg'}"
    )
