"""The command `rooftrace fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from rooftrace.cli.data_options import DataFields
from rooftrace.cli.option_groups import LabelledOptions, with_groups
from rooftrace.cli.options import EngineName, Json, Precision, Split, model_of
from rooftrace.cli.show import answered, bar, counted, people, say
from rooftrace.core.errors import ConfigError
from rooftrace.labels.config import SourceConfig

if TYPE_CHECKING:
    from rooftrace.flows.ensemble import EnsembleReport
    from rooftrace.flows.threshold import ThresholdReport
    from rooftrace.models.spec import Calibration

_FIGURES = {"iou": "IoU", "dice": "Dice", "precision": "precision", "recall": "recall",
            "f1": "F1 of buildings"}  # fmt: skip


@with_groups
def fit(
    data: Annotated[
        list[SourceConfig],
        DataFields(
            "One or several models (.rooftrace files, default or accurate; or one ensemble file), "
            "then labelled data on which none was trained.",
            metavar="MODEL… DATA", several=True,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FILE",
            help="New .rooftrace file; for several models an ensemble file: team.ensemble.json.",
        ),
    ],
    *,
    images: LabelledOptions,
    metric: Annotated[
        Literal["dice", "iou", "f1"],
        typer.Option(
            help="Figure to maximise: dice or iou of pixels, or f1 of buildings (one model)."
        ),
    ] = "iou",
    keep_threshold: Annotated[
        bool,
        typer.Option("--keep-threshold", help="Fit the calibration of one model alone."),
    ] = False,
    combine: Annotated[
        Literal["average", "weighted"] | None,
        typer.Option(help="Method of combination of several models; default: weighted."),
    ] = None,
    split: Split = None,
    engine: EngineName = None,
    precision: Precision = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Fit a model to labelled data: its threshold and calibration; or the weights of an ensemble.

    The networks are not trained. An ensemble file can be used in place of a model.
    """
    models = [data[0].path]
    models += [source.path for source in data[1:] if _is_model(source.path)]
    paths = [model_of(Path(model)) for model in models]
    labelled = [source for source in data[1:] if source.path not in models]
    settings: dict[str, Any] = {
        "split": split,
        "engine": engine,
        "precision": precision,
        "images": images,
    }
    _check(len(models), metric, combine, keep_threshold=keep_threshold)
    with bar("fit", counted("images"), hidden=as_json) as progress:
        settings["progress"] = progress
        if len(models) > 1:
            from rooftrace.flows.ensemble import run_ensemble

            assert metric != "f1"
            how = combine or "weighted"
            team = run_ensemble(paths, labelled, out, how=how, metric=metric, **settings)
        else:
            from rooftrace.flows.threshold import run_threshold

            chosen = run_threshold(
                paths[0], labelled, out, metric=metric, keep=keep_threshold, **settings
            )
    if len(models) > 1:
        if not answered(team, as_json=as_json):
            _show_ensemble(team)
    elif not answered(chosen, as_json=as_json):
        _show_threshold(chosen)


def _check(models: int, metric: str, combine: str | None, *, keep_threshold: bool) -> None:
    """Raise ConfigError if an option does not fit the number of models."""
    wrong = None
    if models == 1 and combine is not None:
        wrong = f"--combine {combine}", "several models"
    elif models > 1 and keep_threshold:
        wrong = "--keep-threshold", "one model"
    elif models > 1 and metric == "f1":
        wrong = "--metric f1", "one model; several are fitted by iou or dice"
    if wrong is not None:
        raise ConfigError(
            f"{wrong[0]} was given for {models} model{'s' * (models > 1)}; expected {wrong[1]}.",
            remedy="Leave it out, or name other models: MODEL… come before DATA.",
        )


def _is_model(path: str) -> bool:
    from rooftrace.models.bundle import BUNDLED_MODELS

    return path in BUNDLED_MODELS or path.endswith(".rooftrace")


def _show_threshold(report: ThresholdReport) -> None:
    table = Table("data", "figure", f"at {report.before:.3f}", f"at {report.after:.3f}")
    for one in report.to_json()["data"]:
        for key, name in _FIGURES.items():
            shown = [f"{one[at][key]:.4f}" if key in one[at] else "–" for at in ("before", "after")]
            table.add_row(one["data"], name, *shown)
    people.print(table)
    low, high = report.plateau
    name = _FIGURES[report.metric]
    say(f"within half a point of the best {name}: thresholds {low:.3f} to {high:.3f}")
    _say_calibration(report.fit.calibration)
    say(f"{report.out}")


def _say_calibration(calibration: Calibration | None) -> None:
    if calibration is not None:
        say(
            f"scores calibrated ({calibration.map.kind}): expected calibration error "
            f"{calibration.ece_before:.3f} uncalibrated, {calibration.ece_after:.3f} calibrated"
        )


def _show_ensemble(report: EnsembleReport) -> None:
    name = _FIGURES[report.metric]
    table = Table("", f"{name} at its own threshold", "at the best")
    for one in report.to_json()["figures"]:
        shown = (one["at_own_threshold"], one["fitted"])
        table.add_row(one["name"], *("–" if value is None else f"{value:.4f}" for value in shown))
    people.print(table)
    if report.weights is not None:
        text = ", ".join(f"{n} {w:g}" for n, w in zip(report.members, report.weights))
        say(f"weights: {text}")
    say(f"{report.out}, threshold {report.threshold:.3f}")
    say("next: rooftrace evaluate with it and its models, on images that none has seen")
