"""The command `rooftrace calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rooftrace.cli.data_options import takes_data
from rooftrace.cli.option_groups import LabelledGroup, with_groups
from rooftrace.cli.options import EngineName, Json, Precision, Split, model_of
from rooftrace.cli.show import answered, bar, people, say
from rooftrace.labels.config import SourceConfig

_FIGURES = {"ece": "expected calibration error", "brier": "Brier score", "log_loss": "log loss"}


@takes_data("Labelled data of any kind, on which the model was not trained.")
@with_groups
def calibrate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A .rooftrace file, default or accurate.")
    ],
    data: SourceConfig,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="New .rooftrace file.")],
    *,
    images: LabelledGroup,
    split: Split = None,
    engine: EngineName = None,
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Calibrate a model, so that its scores of buildings are probabilities."""
    from rooftrace.flows.calibrate import run_calibrate
    from rooftrace.predict.plan import SceneOptions

    with bar("calibrate", "images", hidden=as_json) as progress:
        report = run_calibrate(
            model_of(model),
            [data],
            out,
            split=split,
            engine=engine,
            precision=precision,
            images=SceneOptions(**images.parsed()),
            progress=progress,
        )
    if answered(report, as_json=as_json):
        return
    figures = report.whole.to_json()
    names = ["before", "after"]
    if report.given is not None:  # else the model as given is the uncalibrated one
        names.insert(0, "uncalibrated")
    table = Table("figure", *names)
    for key, title in _FIGURES.items():
        shown = (figures[name] for name in names)
        table.add_row(title, *("–" if one is None else f"{one[key]:.4f}" for one in shown))
    people.print(table)
    for folder in report.folders:
        say(
            f"{folder.data}: {len(folder.score):,} buildings in {folder.scenes:,} images, "
            f"{int(folder.right.sum()):,} right"
        )
    calibration = report.fit.calibration
    if calibration is not None:
        say(
            f"fitted: {calibration.map.kind}; the column before is of the model as given, and the "
            "column after is of images left out of the fit"
        )
    say(f"{report.bundle}" + ("" if report.picture is None else f", picture {report.picture}"))
