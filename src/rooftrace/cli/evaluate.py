"""`rooftrace evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from rooftrace.cli.show import answered, bar, people, say
from rooftrace.data.config import SourceConfig

if TYPE_CHECKING:
    from rooftrace.flows.evaluation import Evaluation

__all__ = ["evaluate"]


@takes_data("Labelled data of any kind.")
def evaluate(
    bundles: Annotated[
        list[Path],
        typer.Argument(help='A .rooftrace file, or "default"; several are judged side by side.'),
    ],
    data: SourceConfig,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for report.html, report.json and pictures."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only one part of a split: split.json:test.")
    ] = None,
    ensemble: Ensemble = None,
    weights: Weights = None,
    tta: Tta = None,
    threshold: Threshold = None,
    min_area: Annotated[
        float, typer.Option(min=0, help="Buildings below so many m² are not judged.")
    ] = 0.0,
    cell: Annotated[
        float, typer.Option(min=1, help="Side of the cells of the built-up share, in metres.")
    ] = 100.0,
    engine: EngineName = None,
    precision: Precision = None,
    pictures: Annotated[int, typer.Option(min=0, help="At most so many pictures.")] = 24,
    as_json: Json = False,
) -> None:
    """How well models agree with labels that they have not seen."""
    from rooftrace.flows.evaluate import EvalOptions, run_evaluate

    apart = ensemble is None and len(bundles) > 1
    named = [None if str(path) == "default" else path for path in bundles]
    options = EvalOptions(
        split, threshold, engine, precision, pictures, ensemble, parse_weights(weights), tta,
        min_area_m2=min_area, cell_m=cell,
    )  # fmt: skip
    with bar("evaluate", "images", hidden=as_json) as progress:
        report = run_evaluate(
            named if apart else models_of(bundles, ensemble), data, out, options, progress=progress
        )
    if answered(report, as_json=as_json):
        return
    _show(report)
    if out is not None:
        say(f"report in {out / 'report.html'}, pictures in {out}")


def _show(evaluation: Evaluation) -> None:
    first = evaluation.first
    if len(evaluation.reports) == 1:
        limits = first.limits()
        table = Table(*first.columns, "95 %")
        for row in first.rows():
            table.add_row(*row, limits.get(row[0], ""))
        people.print(table)
    else:
        table = Table("figure", *(escape(report.name) for report in evaluation.reports))
        for rows in zip(*(report.rows() for report in evaluation.reports)):
            table.add_row(rows[0][0], *(row[1] for row in rows))
        people.print(table)
        people.print(_comparisons(evaluation))
    if not first.is_binary:
        people.print(_class_table(first.class_rows()))


def _comparisons(evaluation: Evaluation) -> Table:
    base = evaluation.first.name
    table = Table("against " + escape(base), "figure", "difference", "95 %", "p", "better : worse")
    for one in evaluation.comparisons:
        name = evaluation.reports[one.first].name
        for figure, test in one.figures.items():
            gap = test.difference
            limits = f"{gap.low:+.4f} … {gap.high:+.4f}" if gap.is_known else gap.reason
            table.add_row(
                escape(name), figure, f"{gap.value:+.4f}", limits, f"{test.p_value:.3f}",
                f"{test.better} : {test.worse}",
            )  # fmt: skip
            name = ""
    return table


def _class_table(rows: list[tuple[str, ...]]) -> Table:
    table = Table("class", "IoU", "Dice", "precision", "recall", "of all pixels")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, row))
    return table
