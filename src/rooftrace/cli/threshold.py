"""The command `rooftrace threshold`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from rooftrace.cli.data_options import takes_data
from rooftrace.cli.option_groups import LabelledGroup, with_groups
from rooftrace.cli.options import EngineName, Json, Precision, Split, model_of
from rooftrace.cli.show import answered, bar, people, say
from rooftrace.labels.config import SourceConfig

_FIGURES = {"iou": "IoU", "dice": "Dice", "precision": "precision", "recall": "recall",
            "f1": "F1 of buildings"}  # fmt: skip


@takes_data("Labelled data, one or several folders, on which the model was not trained.")
@with_groups
def threshold(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A .rooftrace file, an ensemble file, default or accurate."
        ),
    ],
    data: list[SourceConfig],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="FILE", help="New .rooftrace file, or ensemble file."),
    ],
    *,
    images: LabelledGroup,
    metric: Annotated[
        Literal["dice", "iou", "f1"],
        typer.Option(help="Figure to maximise: dice or iou of pixels, or f1 of buildings."),
    ] = "iou",
    split: Split = None,
    engine: EngineName = None,
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Choose the best threshold of a model on labelled data, and calibrate it there."""
    from rooftrace.flows.threshold import run_threshold
    from rooftrace.predict.plan import SceneOptions

    with bar("threshold", "images", hidden=as_json) as progress:
        report = run_threshold(
            model_of(model), data, out, metric=metric, split=split, engine=engine,
            precision=precision, images=SceneOptions(**images.parsed()), progress=progress,
        )  # fmt: skip
    if answered(report, as_json=as_json):
        return
    table = Table("data", "figure", f"at {report.before:.3f}", f"at {report.after:.3f}")
    for one in report.to_json()["data"]:
        for key, name in _FIGURES.items():
            shown = [f"{one[at][key]:.4f}" if key in one[at] else "–" for at in ("before", "after")]
            table.add_row(one["data"], name, *shown)
    people.print(table)
    low, high = report.plateau
    say(f"within half a point of the best {_FIGURES[metric]}: thresholds {low:.3f} to {high:.3f}")
    calibration = report.fit.calibration
    if calibration is not None:
        say(
            f"scores calibrated ({calibration.map.kind}): expected calibration error "
            f"{calibration.ece_before:.3f} uncalibrated, {calibration.ece_after:.3f} calibrated"
        )
    say(f"{report.out}")
