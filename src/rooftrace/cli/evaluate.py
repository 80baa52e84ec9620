"""`rooftrace evaluate` compares models with labels, and `fit` adapts them to labels."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from rooftrace.cli.data_options import DataAt, DataFields, single_truth
from rooftrace.cli.option_groups import LabelledOptions, models_of, parse_weights, with_groups
from rooftrace.cli.options import (
    EngineName,
    Ensemble,
    Json,
    Order,
    Precision,
    Split,
    Threshold,
    Tta,
    Weights,
    model_of,
    option,
    out_option,
    results_folder,
)
from rooftrace.cli.show import answered, bar, counted, people, say
from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.labels.config import SourceConfig

if TYPE_CHECKING:
    from rooftrace.flows.ensemble import EnsembleReport
    from rooftrace.flows.evaluate.evaluation import Evaluation
    from rooftrace.flows.threshold import ThresholdReport
    from rooftrace.predict.model_set import Models


PREDICTIONS, COUNTING, REPORT = "Predictions in files", "What is counted", "Report"
"""Titles of the groups of options in the help of this command."""


@with_groups
def evaluate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="BUNDLES… DATA",
            help=".rooftrace files, default or accurate, which are compared; then labelled data "
            "of any kind, or an image with --truth.",
        ),
    ] = None,
    *,
    data: Annotated[DataAt, DataFields()],
    images: LabelledOptions,
    predictions: Annotated[
        list[Path] | None,
        option(
            PREDICTIONS, metavar="PATH",
            help="File or folder with predictions of any tool: masks, probabilities, polygons, a "
            "table of run lengths or COCO results. Repeat the option to compare several.",
        ),
    ] = None,
    truth: Annotated[
        list[Path] | None,
        option(
            PREDICTIONS, metavar="DATA",
            help="Labels of DATA, which is then an image or a folder of images: footprints, "
            "masks or any other labels. With --predictions also labels without images.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        option(
            PREDICTIONS, metavar="ROWSxCOLUMNS",
            help="Size of the images of a label table that has no images: 224x224.",
        ),
    ] = None,
    order: Annotated[
        Order | None,
        option(PREDICTIONS, help="Order of the run lengths in --predictions; default: deduced."),
    ] = None,
    only: Annotated[
        Literal["pixels"] | None,
        option(COUNTING, help="Leave out buildings and polygons, which is several times as fast."),
    ] = None,
    out: Annotated[
        Path | None,
        out_option(
            "Folder for report.html, report.json and CSV tables.", "DIR", rich_help_panel=REPORT,
            parser=results_folder,
        ),
    ] = None,
    split: Split = None,
    ensemble: Ensemble = None,
    weights: Weights = None,
    tta: Tta = None,
    threshold: Threshold = None,
    min_area: Annotated[
        float,
        option(COUNTING, min=0, metavar="M2", help="Area in m² below which buildings are ignored."),
    ] = 0.0,
    cell: Annotated[
        float,
        option(
            COUNTING, min=1, metavar="M",
            help="Side in metres of the cells of the built-up share.",
        ),
    ] = 100.0,
    engine: EngineName = None,
    precision: Precision = None,
    group_pattern: Annotated[
        str | None,
        option(
            REPORT, metavar="REGEX",
            help="Regular expression; its first group is the place of a scene, in its id. Default: "
            "the folder of the image.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Compare models, or predictions of other tools, with labels."""
    from rooftrace.flows.evaluate.run import EvalOptions, run_evaluate

    only_truth = single_truth(truth)
    bundles, where, labels = _named(paths or [], only_truth, predicted=bool(predictions))
    models: Models = [model_of(path) for path in bundles]
    if ensemble is not None:
        models = models_of(bundles, ensemble)
    options = EvalOptions(
        split, threshold, engine, precision, ensemble, parse_weights(weights), tta,
        min_area_m2=min_area, cell_m=cell, pixels_only=only is not None,
        order=order, size_yx=_parse_size(size),
        images=images, group_pattern=group_pattern,
    )  # fmt: skip
    with bar("evaluate", counted("images"), hidden=as_json) as progress:
        report = run_evaluate(
            models,
            data(where, truth=labels),
            out,
            options,
            predictions=predictions or (),
            progress=progress,
        )
    if answered(report, as_json=as_json):
        return
    _show(report)
    if out is not None:
        say(f"report in {out / 'report.html'}")


def _named(
    paths: Sequence[Path], truth: Path | None, *, predicted: bool
) -> tuple[Sequence[Path], Path, Path | None]:
    """Separate the arguments into bundles, data, and the labels of data that is images."""
    from rooftrace.models.bundle import is_run_without_bundle
    from rooftrace.predict.model_set import is_model

    labels = None
    if truth is not None and paths and not is_model(paths[-1]):
        bundles, where, labels = paths[:-1], paths[-1], truth
    elif truth is not None:
        bundles, where = paths, truth
    elif paths:
        bundles, where = paths[:-1], paths[-1]
    else:
        raise ConfigError(
            "No labelled data was given.",
            remedy="For example: rooftrace evaluate default DATA, or rooftrace evaluate "
            "--predictions FILES --truth FILES",
        )
    if not (bundles or predicted):
        raise ConfigError(
            f"{where} was given as labelled data, but no model and no predictions to evaluate.",
            remedy="Name a model before it, such as default; or files with --predictions.",
        )
    for path in bundles:
        # Loading says what is wrong with other paths.
        if _is_data(path) and not is_model(path) and not is_run_without_bundle(path):
            raise BundleError(
                f"{path} was given as a model, but it is not one.",
                remedy="Models come first, then one image or folder: rooftrace evaluate default "
                "DATA. The labels of an image follow --truth, and what another tool has predicted "
                "--predictions.",
            )
    return bundles, where, labels


def _is_data(path: Path) -> bool:
    """Return whether a path exists and can be data: a folder, image, vector file or table."""
    from rooftrace.io.companions import is_named_as_image
    from rooftrace.io.vector_formats import VECTOR_SUFFIXES, is_vector_file

    if path.is_dir():
        return True
    named = path.name.lower().endswith((*VECTOR_SUFFIXES, ".csv", ".json"))
    return path.is_file() and (named or is_named_as_image(path) or is_vector_file(path))


def _parse_size(text: str | None) -> tuple[int, int] | None:
    """Return rows and columns from `224x224`; None where no size was given."""
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
    first, reports = evaluation.first, evaluation.columns
    if len(reports) == 1:
        table = Table("figure", "value", "95 %")
        for name, one in first.headline_figures:
            if math.isnan(one.value) or name not in evaluation.main_figures:
                continue
            limits = f"{one.low:.3f} – {one.high:.3f}" if one.is_known else ""
            table.add_row(name, _text(one.value), limits)
    else:
        table = Table("figure", *(escape(report.name) for report in reports))
        for row in zip(*(report.headline_figures for report in reports)):
            is_known = not all(math.isnan(one.value) for _, one in row)
            if is_known and row[0][0] in evaluation.main_figures:
                table.add_row(row[0][0], *(_text(one.value) for _, one in row))
    people().print(table)
    if len(evaluation.reports) > 1:
        people().print(_comparisons(evaluation))
    if not first.is_binary:
        table = Table("class", "IoU", "Dice", "precision", "recall", "of all pixels")
        for column in table.columns[1:]:
            column.justify = "right"
        for cells in first.class_rows():
            table.add_row(*map(escape, cells))
        people().print(table)


def _text(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _comparisons(evaluation: Evaluation) -> Table:
    from rooftrace.metrics.report import FIGURES

    base = evaluation.reports[evaluation.baseline].name
    table = Table("against " + escape(base), "figure", "difference", "95 %", "p", "better : worse")
    for number, tests in evaluation.comparisons.items():
        name = evaluation.reports[number].name
        for figure, test in tests.items():
            gap = test.difference
            if math.isnan(gap.value) or FIGURES[figure] not in evaluation.main_figures:
                # Nothing was counted, or there is nothing to count.
                continue
            limits = f"{gap.low:+.4f} … {gap.high:+.4f}" if gap.is_known else gap.reason
            p_value = "< 0.001" if test.p_value < 0.001 else f"{test.p_value:.3f}"
            table.add_row(
                escape(name), FIGURES[figure], f"{gap.value:+.4f}", limits, p_value,
                f"{test.better} : {test.worse}",
            )  # fmt: skip
            name = ""
    return table


_FIGURES = {"iou": "IoU", "dice": "Dice", "precision": "precision", "recall": "recall",
            "f1": "F1 of buildings"}  # fmt: skip


@with_groups
def fit(
    data: Annotated[
        list[SourceConfig],
        DataFields(
            "One or several models (.rooftrace files, runs, default or accurate; or one ensemble "
            "file), then labelled data on which none was trained.",
            metavar="MODEL… DATA", several=True,
        ),
    ],
    out: Annotated[
        Path,
        out_option(
            "New .rooftrace file; for several models an ensemble file: team.ensemble.json."
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
    from rooftrace.predict.model_set import is_model

    models = [data[0].path]
    # The last one is data, also if a bundle lies in its folder.
    able = data[1:-1] if Path(data[-1].path).is_dir() else data[1:]
    models += [one.path for one in able if is_model(Path(one.path))]
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


def _show_threshold(report: ThresholdReport) -> None:
    table = Table("data", "figure", f"at {report.before:.3f}", f"at {report.after:.3f}")
    for one in report.to_json()["data"]:
        for key, name in _FIGURES.items():
            cells = [f"{one[at][key]:.4f}" if key in one[at] else "–" for at in ("before", "after")]
            table.add_row(one["data"], name, *cells)
    people().print(table)
    low, high = report.plateau
    name = _FIGURES[report.metric]
    say(f"within half a point of the best {name}: thresholds {low:.3f} to {high:.3f}")
    calibration = report.calibration
    if calibration is not None:
        say(
            f"scores calibrated ({calibration.map.kind}): expected calibration error "
            f"{calibration.ece_before:.3f} uncalibrated, {calibration.ece_after:.3f} calibrated"
        )
    say(f"{report.out}")


def _show_ensemble(report: EnsembleReport) -> None:
    name = _FIGURES[report.metric]
    table = Table("", f"{name} at its own threshold", "at the best")
    for one in report.to_json()["figures"]:
        cells = (one["at_own_threshold"], one["fitted"])
        table.add_row(one["name"], *("–" if value is None else f"{value:.4f}" for value in cells))
    people().print(table)
    if report.weights is not None:
        text = ", ".join(f"{n} {w:g}" for n, w in zip(report.members, report.weights))
        say(f"weights: {text}")
    say(f"{report.out}, threshold {report.threshold:.3f}")
    say("next: rooftrace evaluate with it and its models, on images that none has seen")
