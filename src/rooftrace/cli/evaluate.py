"""`rooftrace evaluate`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from rooftrace.cli.options import (
    DataAt,
    EngineName,
    Ensemble,
    Json,
    Order,
    Precision,
    Split,
    Threshold,
    Tta,
    Weights,
    models_of,
    parse_weights,
    takes_data,
)
from rooftrace.cli.show import answered, bar, people, say
from rooftrace.core.errors import ConfigError

if TYPE_CHECKING:
    from rooftrace.flows.evaluation import Evaluation
    from rooftrace.predict.model_set import Models

__all__ = ["evaluate"]


@takes_data("Labelled data of any kind.")
def evaluate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="BUNDLES… DATA",
            help='.rooftrace files or "default", judged side by side; and labelled data of any '
            "kind.",
        ),
    ] = None,
    *,
    data: DataAt,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            help="Masks, probabilities, polygons, a table of run lengths or COCO results of "
            "whatever tool: a file or a folder, judged as a model is. Once for each."
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="The same as DATA; of --predictions also labels without images."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Rows and columns of a table's images that are not there: 224x224."),
    ] = None,
    order: Annotated[
        Order | None, typer.Option(help="Of the runs in --predictions; default: found by looking.")
    ] = None,
    only: Annotated[
        Literal["pixels"] | None,
        typer.Option(help="Leave out buildings and polygons: several times as fast."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for report.html, report.json and pictures."),
    ] = None,
    split: Split = None,
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
    """How well models, or what other tools have predicted, agree with labels."""
    from rooftrace.flows.evaluate import EvalOptions, run_evaluate

    bundles, where = _named(paths or [], truth, predicted=bool(predictions))
    models: Models = [None if str(path) == "default" else path for path in bundles]
    if ensemble is not None:
        models = models_of(bundles, ensemble)
    options = EvalOptions(
        split, threshold, engine, precision, pictures, ensemble, parse_weights(weights), tta,
        min_area_m2=min_area, cell_m=cell, pixels_only=only is not None,
        order=None if order is None else order.value, size_yx=_parse_size(size),
    )  # fmt: skip
    with bar("evaluate", "images", hidden=as_json) as progress:
        report = run_evaluate(
            models, data(where), out, options, predictions=predictions or (), progress=progress
        )
    if answered(report, as_json=as_json):
        return
    _show(report)
    if out is not None:
        say(f"report in {out / 'report.html'}, pictures in {out}")


def _named(
    paths: Sequence[Path], truth: Path | None, *, predicted: bool
) -> tuple[Sequence[Path], Path]:
    """Which of the arguments are bundles, and where the labels are."""
    if truth is not None:
        bundles, where = paths, truth
    elif paths:
        bundles, where = paths[:-1], paths[-1]
    else:
        raise ConfigError(
            "No labelled data was named.",
            remedy="For example: rooftrace evaluate default DATA, or rooftrace evaluate "
            "--predictions FILES --truth FILES",
        )
    if not (bundles or predicted):
        raise ConfigError(
            f"{where} was named as the labelled data, and nothing that is judged by it.",
            remedy=f"Name a bundle too: rooftrace evaluate default {where}; or files with "
            "--predictions.",
        )
    return bundles, where


def _parse_size(text: str | None) -> tuple[int, int] | None:
    """`224x224` to rows and columns; None where none was given."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,5})\s*[x×,]\s*([1-9]\d{0,5})", text.strip())
    if match is None:
        raise ConfigError(
            f"--size received {text!r}; expected rows and columns.",
            remedy="For example: --size 224x224",
        )
    return int(match[1]), int(match[2])


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
            if math.isnan(gap.value):
                # Nothing was counted, or there is nothing to count.
                continue
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
