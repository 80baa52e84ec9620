"""`rooftrace evaluate`: how well a bundle agrees with labels that it has not seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, DataError
from rooftrace.core.types import Mask, Scene, Window
from rooftrace.data.config import LabelConfig, SourceConfig
from rooftrace.data.kinds import open_source
from rooftrace.data.source import SceneSet
from rooftrace.data.split import parse_reference, read_split
from rooftrace.io.atomic import write_atomically
from rooftrace.io.display import as_rgb
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.metrics.report import EvalReport, ImageScore
from rooftrace.predict.predictor import Predictor, load

__all__ = ["EvalOptions", "run_evaluate"]

_PICTURE_PX = 640
"""Longest side of one of the three panels."""

_GAP_PX = 8
_HEADER_PX = 34
_COLOURS = np.array(
    [(0, 0, 0), (66, 135, 245), (240, 180, 40), (60, 180, 75), (200, 80, 200), (70, 220, 220)],
    dtype=np.uint8,
)
_NODATA_COLOUR = (70, 70, 70)


@dataclass(frozen=True)
class EvalOptions:
    """How an evaluation is done.

    Args:
        split: `FILE:PART`, or None for all of the data.
        threshold: on the building's probability; default the bundle's own.
        engine, precision: default what `rooftrace predict` would take.
        pictures: at most so many side-by-side pictures, spread from the worst image to the best.
    """

    split: str | None = None
    threshold: float | None = None
    engine: str | None = None
    precision: str | None = None
    pictures: int = 24


def run_evaluate(
    bundle: Path | None,
    folder: SourceConfig,
    out: Path | None,
    options: EvalOptions,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> EvalReport:
    """Predict every labelled image of a folder as `rooftrace predict` would, and count pixels.

    Args:
        bundle: default the one that comes with rooftrace.
        folder: the data, see `SourceConfig`.
        out: where report.json and pictures/ go; None writes nothing.
        progress: called with the images that are done and that there are.

    Raises:
        DataError: the split leaves no image of the folder; files cannot be read.
        BundleError: the bundle cannot be read, or its classes cannot be compared.
    """
    predictor = load(bundle, engine=options.engine, precision=options.precision)
    spec = predictor.bundle.spec
    source = open_source(folder, _labels_of(predictor))
    if options.split is not None:
        path, part = parse_reference(options.split)
        source = source.subset(read_split(path).ids(part, source=str(path)))
        if not len(source):
            raise DataError(
                f"None of the ids of {options.split} is an image of {folder.path}.",
                remedy="Make the split from this data: rooftrace split DATA -o split.json",
            )
    scores = []
    for number, scene in enumerate(source):
        truth, predicted = _compare(predictor, scene, options.threshold)
        valid = truth.valid & predicted.valid
        counts = PixelCounts.of(
            truth.data, np.where(valid, predicted.data, 0), valid, classes=len(spec.classes)
        )
        scores.append(ImageScore(scene.id, counts))
        if progress is not None:
            progress(number + 1, len(source))
    threshold = spec.threshold if options.threshold is None else options.threshold
    context = {
        "bundle": {"name": spec.name, "sha256": predictor.bundle.sha256},
        "data": folder.path,
        "split": options.split,
        "threshold": threshold,
        "gsd_m": spec.gsd_m,
        "engine": {"name": predictor.engine.name, "precision": predictor.engine.precision},
    }
    report = EvalReport(tuple(scores), spec.classes, spec.building_class, context)
    if out is not None:
        text = json.dumps({**report.to_json(), "by_image": _by_image(report)}, indent=1)
        write_atomically(out / "report.json", (text + "\n").encode())
        _draw_pictures(predictor, source, report, out / "pictures", options)
    return report


def _labels_of(predictor: Predictor) -> LabelConfig:
    """How the labels were read in training: the bundle's record has the palette, if any."""
    spec = predictor.bundle.spec
    recorded = spec.training.get("data", {}).get("labels")
    if recorded is None:
        return LabelConfig(classes=spec.classes, building=spec.classes[spec.building_class])
    try:
        return LabelConfig.model_validate(recorded)
    except ValueError as error:
        raise BundleError(
            f"The bundle {predictor.bundle.source} records labels that cannot be read: {error}.",
            remedy="Export it again with rooftrace train.",
        ) from error


def _compare(predictor: Predictor, scene: Scene, threshold: float | None) -> tuple[Mask, Mask]:
    assert scene.label is not None
    truth = scene.label.read(Window.whole(scene.image.grid.shape))
    prediction = predictor.predict(scene.image, gsd_m=scene.gsd_m, threshold=threshold)
    return truth, prediction.mask


def _by_image(report: EvalReport) -> list[dict[str, object]]:
    index = report.building_class
    rows: list[dict[str, object]] = []
    for image in report.images:
        iou, dice = image.counts.iou(index), image.counts.dice(index)
        rows.append(
            {
                "id": image.id,
                "iou": None if np.isnan(iou) else round(iou, 6),
                "dice": None if np.isnan(dice) else round(dice, 6),
                "valid_pixels": image.counts.pixels,
            }
        )
    return rows


def _draw_pictures(
    predictor: Predictor,
    source: SceneSet,
    report: EvalReport,
    folder: Path,
    options: EvalOptions,
) -> None:
    """NAME.png for a choice of images; the number in front ranks them from the worst."""
    iou = {s.id: s.counts.iou(report.building_class) for s in report.images}
    ranked = sorted(iou, key=lambda i: (1.0 if np.isnan(iou[i]) else iou[i], i))
    count = min(options.pictures, len(ranked))
    places = sorted({round(place) for place in np.linspace(0, len(ranked) - 1, count).tolist()})
    rank = {ranked[place]: place + 1 for place in places}
    for scene in source.subset(list(rank)):
        truth, predicted = _compare(predictor, scene, options.threshold)
        title = "IoU -" if np.isnan(iou[scene.id]) else f"IoU {iou[scene.id]:.3f}"
        picture = side_by_side(scene.image.read().data, truth, predicted, title)
        good, encoded = cv2.imencode(".png", picture[..., ::-1])
        assert good
        name = scene.id.replace("/", "_")
        write_atomically(folder / f"{rank[scene.id]:04d}_{name}.png", encoded.tobytes())


def side_by_side(
    pixels: NDArray[np.generic], truth: Mask, predicted: Mask, title: str
) -> NDArray[np.uint8]:
    """Image, truth and prediction beside one another, (y, x, 3) uint8 RGB.

    Args:
        pixels: (band, y, x), any dtype; shown between its 1st and 99th percentile if not 8-bit.
    """
    image = as_rgb(pixels)
    valid = truth.valid
    panels = [image, _overlay(image, truth.data, valid), _overlay(image, predicted.data, valid)]
    scale = min(1.0, _PICTURE_PX / max(image.shape[:2]))
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    small = [cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in panels]
    height, width = small[0].shape[:2]
    sheet = np.full((height + _HEADER_PX, 3 * width + 2 * _GAP_PX, 3), 255, dtype=np.uint8)
    for number, (panel, name) in enumerate(zip(small, ("image", "truth", f"prediction {title}"))):
        left = number * (width + _GAP_PX)
        sheet[_HEADER_PX:, left : left + width] = panel
        cv2.putText(
            sheet, name, (left + 4, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (30, 30, 30), 1,
            cv2.LINE_AA,
        )  # fmt: skip
    return sheet


def _overlay(
    image: NDArray[np.uint8], classes: NDArray[np.uint8], valid: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    colours = _COLOURS[1 + (classes.astype(int) - 1) % (len(_COLOURS) - 1)]
    mixed = np.where(classes[..., None] > 0, image * 0.45 + colours * 0.55, image)
    mixed[~valid] = _NODATA_COLOUR
    result: NDArray[np.uint8] = mixed.astype(np.uint8)
    return result
