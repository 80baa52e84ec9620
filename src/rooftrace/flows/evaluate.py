"""`rooftrace evaluate`: how well a bundle agrees with labels that it has not seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from rooftrace.core.types import Scene
from rooftrace.data.config import SourceConfig
from rooftrace.data.source import SceneSet
from rooftrace.flows.labelled import (
    beside_label,
    drawn_buildings,
    labelled_buildings,
    open_labelled,
)
from rooftrace.io.atomic import replacing, write_atomically
from rooftrace.metrics.boundary import BoundaryCounts
from rooftrace.metrics.confusion import confusion_csv, draw_confusion
from rooftrace.metrics.objects import ObjectCounts
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.metrics.report import EvalReport, ImageScore
from rooftrace.predict.comparison import side_by_side
from rooftrace.predict.ensemble import Combine, Models, load_models
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.tta import Tta

__all__ = ["EvalOptions", "run_evaluate"]


@dataclass(frozen=True)
class EvalOptions:
    """How an evaluation is done.

    Args:
        split: `FILE:PART`, or None for all of the data.
        threshold: on the building's probability, where there are two classes; default the bundle's
            own.
        engine, precision: default what `rooftrace predict` would take.
        pictures: at most so many side-by-side pictures, spread from the worst image to the best.
        ensemble, weights: how several bundles are combined.
        tta: each model also sees mirrored tiles, see `Tta`.
    """

    split: str | None = None
    threshold: float | None = None
    engine: str | None = None
    precision: str | None = None
    pictures: int = 24
    ensemble: Combine = "average"
    weights: tuple[float, ...] | None = None
    tta: Tta | None = None


def run_evaluate(
    bundle: Models,
    folder: SourceConfig,
    out: Path | None,
    options: EvalOptions,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> EvalReport:
    """Predict every labelled image of a folder as `rooftrace predict` would, and count pixels; with
    a refined bundle also as its segmenter alone would.

    Args:
        bundle: one, several that are combined, or None for the one that comes with rooftrace.
        folder: the data, see `SourceConfig`.
        out: where report.json, confusion.csv, confusion.png and pictures/ go; None writes nothing.
        progress: called with the images that are done and that there are.

    Raises:
        ConfigError: no such engine or precision; a threshold for more than two classes.
        DataError: the split leaves no image of the folder; files cannot be read.
        BundleError: the bundle cannot be read, or its classes cannot be compared.
    """
    load = partial(
        load_models, bundle, options.ensemble, weights=options.weights, tta=options.tta,
        engine=options.engine, precision=options.precision,
    )  # fmt: skip
    predictor = load()
    spec = predictor.bundle.spec
    threshold = predictor.threshold_for(options.threshold)
    source = open_labelled(predictor, folder, options.split)
    coarse = load(output="coarse") if spec.is_refined else None
    scores, coarse_scores = [], []
    for number, scene in enumerate(source):
        scores.append(_score(predictor, scene, options))
        if coarse is not None:
            coarse_scores.append(_score(coarse, scene, options))
        if progress is not None:
            progress(number + 1, len(source))
    context = {
        "bundle": {"name": spec.name, "sha256": predictor.bundle.sha256},
        "data": folder.path,
        "split": options.split,
        "threshold": threshold,
        "gsd_m": spec.gsd_m,
        "engine": {
            "name": predictor.engine.name,
            "precision": predictor.engine.precision,
            "settings": getattr(predictor.engine, "settings", {}),
        },
    }
    notes = getattr(predictor.engine, "notes", ())
    report = EvalReport(tuple(scores), spec.classes, spec.building_class, context, notes=notes)
    if coarse is not None:
        at = {"threshold": coarse.threshold_for(options.threshold)}
        beside = replace(report, images=tuple(coarse_scores), context=at)
        report = replace(report, coarse=beside)
    if out is not None:
        text = json.dumps({**report.to_json(), "by_image": report.by_image()}, indent=1)
        write_atomically(out / "report.json", (text + "\n").encode())
        _write_confusion(report, out)
        _draw_pictures(predictor, source, report, out / "pictures", options)
    return report


def _score(predictor: Predictor, scene: Scene, options: EvalOptions) -> ImageScore:
    """All that is counted on one image."""
    truth, prediction = beside_label(predictor, scene, options.threshold)
    spec, predicted = predictor.bundle.spec, prediction.mask
    valid = truth.valid & predicted.valid
    counts = PixelCounts.of(
        truth.data,
        np.where(valid, predicted.data, 0),
        valid,
        classes=len(spec.classes),
    )
    is_building = truth.data == spec.building_class
    labelled = labelled_buildings(scene, truth, spec.building_class)
    objects = ObjectCounts.of(labelled, drawn_buildings(prediction, spec.building_class), valid)
    outlines = BoundaryCounts.of(is_building, predicted.data == spec.building_class, valid)
    return ImageScore(scene.id, counts, objects, outlines)


def _write_confusion(report: EvalReport, out: Path) -> None:
    write_atomically(out / "confusion.csv", confusion_csv(report.pooled, report.classes).encode())
    with replacing(out / "confusion.png") as partial:
        draw_confusion(report.pooled, report.classes).save(partial, format="PNG")


def _draw_pictures(
    predictor: Predictor,
    source: SceneSet,
    report: EvalReport,
    folder: Path,
    options: EvalOptions,
) -> None:
    """NAME.png for a choice of images; the number in front ranks them from the worst."""
    iou = {s.id: report.headline(s.counts) for s in report.images}
    ranked = sorted(iou, key=lambda i: (1.0 if np.isnan(iou[i]) else iou[i], i))
    count = min(options.pictures, len(ranked))
    places = sorted({round(place) for place in np.linspace(0, len(ranked) - 1, count).tolist()})
    rank = {ranked[place]: place + 1 for place in places}
    for scene in source.subset(list(rank)):
        truth, prediction = beside_label(predictor, scene, options.threshold)
        figure = "IoU" if report.is_binary else "mean IoU"
        title = f"{figure} -" if np.isnan(iou[scene.id]) else f"{figure} {iou[scene.id]:.3f}"
        pixels = scene.image.read().data
        picture = side_by_side(pixels, truth, prediction.mask, title, prediction.legend)
        good, encoded = cv2.imencode(".png", picture[..., ::-1])
        assert good
        name = scene.id.replace("/", "_")
        write_atomically(folder / f"{rank[scene.id]:04d}_{name}.png", encoded.tobytes())
