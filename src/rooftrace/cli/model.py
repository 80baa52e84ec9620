"""`rooftrace train` and `rooftrace evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rooftrace.cli.options import (
    EngineName,
    Ensemble,
    Json,
    Precision,
    Threshold,
    Tta,
    Weights,
    models_of,
    parse_weights,
    takes_data,
)
from rooftrace.cli.show import answered, bar, people, print_json, say
from rooftrace.data.config import SourceConfig

__all__ = ["evaluate", "train"]


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; see recipes/.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the run.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE over the file; repeatable.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that is in the folder.")
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
        f"figures in {report.run / 'metrics.csv'}, curves in {report.run / 'curves.png'}"
    )


@takes_data("Labelled data of any kind.")
def evaluate(
    bundles: Annotated[
        list[Path], typer.Argument(help='A .rooftrace file, or "default"; or several, combined.')
    ],
    data: SourceConfig,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for report.json and pictures.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only one part of a split: split.json:test.")
    ] = None,
    ensemble: Ensemble = None,
    weights: Weights = None,
    tta: Tta = None,
    threshold: Threshold = None,
    engine: EngineName = None,
    precision: Precision = None,
    pictures: Annotated[int, typer.Option(min=0, help="At most so many pictures.")] = 24,
    as_json: Json = False,
) -> None:
    """How well a model agrees with labels that it has not seen."""
    from rooftrace.flows.evaluate import EvalOptions, run_evaluate

    chosen = models_of(bundles, ensemble)
    options = EvalOptions(
        split, threshold, engine, precision, pictures, ensemble or "average",
        parse_weights(weights), tta,
    )  # fmt: skip
    with bar("evaluate", "images", hidden=as_json) as progress:
        report = run_evaluate(chosen, data, out, options, progress=progress)
    if answered(report, as_json=as_json):
        return
    table = Table(*report.columns)
    for row in report.rows():
        table.add_row(*row)
    people.print(table)
    if not report.is_binary:
        people.print(_class_table(report.class_rows()))
    if out is not None:
        say(f"report and pictures in {out}")


def _class_table(rows: list[tuple[str, ...]]) -> Table:
    table = Table("class", "IoU", "Dice", "precision", "recall", "of all pixels")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, row))
    return table
