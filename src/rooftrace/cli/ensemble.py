"""The command `rooftrace ensemble`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from rooftrace.cli.data_options import takes_data
from rooftrace.cli.option_groups import LabelledGroup, with_groups
from rooftrace.cli.options import EngineName, Json, Precision, Split
from rooftrace.cli.show import answered, bar, people, say
from rooftrace.labels.config import SourceConfig

_FIGURES = {"iou": "IoU", "dice": "Dice"}


@takes_data(
    "Models (.rooftrace files, default or accurate), then labelled data on which none was trained.",
    metavar="MODELS… DATA",
)
@with_groups
def ensemble(
    data: list[SourceConfig],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FILE", help="Ensemble file, such as team.ensemble.json."
        ),
    ],
    *,
    images: LabelledGroup,
    combine: Annotated[
        Literal["average", "weighted", "vote"], typer.Option(help="Method of combination.")
    ] = "weighted",
    metric: Annotated[
        Literal["iou", "dice"], typer.Option(help="Figure of pixels to maximise.")
    ] = "iou",
    split: Split = None,
    engine: EngineName = None,
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Combine several models: fit weights and threshold on labelled data, and measure the gain.

    The ensemble file can be used in place of a model: -m team.ensemble.json.
    """
    from rooftrace.flows.ensemble import run_ensemble
    from rooftrace.predict.plan import SceneOptions

    models = [one.path for one in data if _is_model(one.path)]
    with bar("ensemble", "images", hidden=as_json) as progress:
        report = run_ensemble(
            [None if path == "default" else Path(path) for path in models],
            [one for one in data if not _is_model(one.path)],
            out, how=combine, metric=metric, split=split, engine=engine, precision=precision,
            images=SceneOptions(**images.parsed()), progress=progress,
        )  # fmt: skip
    if answered(report, as_json=as_json):
        return
    name = _FIGURES[metric]
    table = Table("", f"{name} at its own threshold", "at the best", "left out of the fit")
    for one in report.to_json()["figures"]:
        shown = (one["at_own_threshold"], one["fitted"], one["left_out"])
        table.add_row(one["name"], *("–" if value is None else f"{value:.4f}" for value in shown))
    people.print(table)
    if report.weights is not None:
        text = ", ".join(f"{n} {w:g}" for n, w in zip(report.members, report.weights))
        say(f"weights: {text}")
    gain = report.gain
    if gain is None:
        say("too few images to leave some out: the gain of the ensemble is unknown")
    else:
        between = gain.difference
        limits = f" ({between.low:+.4f} to {between.high:+.4f})" if between.is_known else ""
        say(
            f"{report.chosen.name} against {report.fit.best_model.name}, the best alone, on images "
            f"left out: {name} {between.value:+.4f}{limits}, p = {gain.p_value:.3f}; better in "
            f"{gain.better} of {gain.scenes} images, worse in {gain.worse}"
        )
    say(f"{report.out}, threshold {report.threshold:.3f}")


def _is_model(path: str) -> bool:
    from rooftrace.models.bundle import BUNDLED_MODELS

    return path in BUNDLED_MODELS or path.endswith(".rooftrace")
