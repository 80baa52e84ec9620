"""Counts of one image: truth and prediction compared by pixels, buildings and polygons."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.types import BoolArray, Polygons
from rooftrace.metrics.boundary import BoundaryCounts
from rooftrace.metrics.built_up import BuiltUpCounts
from rooftrace.metrics.objects import ObjectCounts, match_predicted
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.metrics.polygons import PolygonCounts

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class ImageCounts:
    """Counts of one image.

    Args:
        id: Id of the scene.
        counts: Pixel counts.
        objects: Counts of buildings.
        outlines: Counts of the pixels along the outlines of buildings.
        polygons: Sums over the outlines of matched buildings that lie completely in known pixels.
        built_up: Sums over cells; None where metres are not known.
        score: (n,) float32 in 0..1 score of each predicted building with at least one valid pixel.
        right: (n,) True for each of them that matches a labelled one.
        group: Place of the scene.
    """

    id: str
    counts: PixelCounts
    objects: ObjectCounts = field(default_factory=ObjectCounts)
    outlines: BoundaryCounts = field(default_factory=BoundaryCounts.zero)
    polygons: PolygonCounts = field(default_factory=PolygonCounts)
    built_up: BuiltUpCounts | None = None
    score: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    right: BoolArray = field(default_factory=lambda: np.zeros(0, np.bool_))
    group: str = ""


@dataclass(frozen=True)
class ScenePair:
    """Truth and prediction on one grid.

    Args:
        truth, predicted: (y, x) class indices.
        valid: (y, x) pixels that are compared.
        instances: (y, x) number of the labelled building at each pixel, from 1; 0 for none.
        truth_outlines, outlines: (n,) polygons of the buildings in pixels, x right and y down.
        truth_numbers, numbers: (y, x) number of the polygon at each pixel, see
            `io.gdal.number_polygons`.
        score: (n,) score of the predicted buildings in 0..1; None where there are no scores.
        gsd_m: Metres per pixel; None where not known.
        predicted_instances: (y, x) number of the predicted building at each pixel, from 1; 0 for
            none. None: `numbers` are the buildings.
    """

    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    valid: BoolArray
    instances: Ints
    truth_outlines: Polygons
    outlines: Polygons
    truth_numbers: Ints
    numbers: Ints
    score: NDArray[np.float32] | None
    gsd_m: float | None
    predicted_instances: Ints | None = None

    @property
    def buildings(self) -> Ints:
        """(y, x) number of the predicted building at each pixel, from 1; 0 for none."""
        return self.numbers if self.predicted_instances is None else self.predicted_instances


def score_scene(
    pair: ScenePair,
    *,
    scene_id: str,
    classes: int,
    building_class: int,
    min_area_m2: float = 0.0,
    cell_m: float = 100.0,
    dense_from: float,
    group: str = "",
    pixels_only: bool = False,
) -> ImageCounts:
    """Count everything in one scene.

    Args:
        pair: Truth and prediction.
        scene_id: Id of the scene.
        classes: Number of classes.
        building_class: Index of the class whose objects and outlines are compared.
        min_area_m2: Area below which buildings are ignored, see `ObjectCounts.of`; unused where
            metres are not known.
        cell_m: Side in metres of the cells of the built-up share.
        dense_from: Built-up share from which a cell is dense.
        group: Place of the scene.
        pixels_only: True leaves out buildings, polygons and cells.
    """
    valid, gsd_m = pair.valid, pair.gsd_m
    is_truth, is_predicted = (side == building_class for side in (pair.truth, pair.predicted))
    counts = PixelCounts.of(pair.truth, np.where(valid, pair.predicted, 0), valid, classes=classes)
    edges = BoundaryCounts.of(is_truth, is_predicted, valid)
    if pixels_only:
        return ImageCounts(scene_id, counts, outlines=edges, group=group)
    found = pair.buildings
    pixel_m2 = None if gsd_m is None else gsd_m**2
    numbers, right = match_predicted(pair.instances, found, valid)
    built_up = None
    if gsd_m is not None:
        built_up = BuiltUpCounts.of(
            is_truth, is_predicted, valid, _centres(pair.truth_outlines), _centres(pair.outlines),
            cell_px=max(cell_m / gsd_m, 1.0), threshold=dense_from,
        )  # fmt: skip
    return ImageCounts(
        id=scene_id,
        counts=counts,
        objects=ObjectCounts.of(
            pair.instances,
            found,
            valid,
            pixel_m2=pixel_m2,
            min_area_m2=0.0 if pixel_m2 is None else min_area_m2,
        ),
        outlines=edges,
        polygons=PolygonCounts.of(
            pair.truth_outlines,
            pair.outlines,
            scale_m=gsd_m,
            usable_truth=uncut_polygons(pair.truth_numbers, len(pair.truth_outlines), valid),
            usable_predicted=uncut_polygons(pair.numbers, len(pair.outlines), valid),
        ),
        built_up=built_up,
        score=np.zeros(0, np.float32) if pair.score is None else pair.score[numbers - 1],
        right=np.zeros(0, np.bool_) if pair.score is None else right,
        group=group,
    )


def uncut_polygons(numbers: Ints, count: int, valid: BoolArray) -> BoolArray:
    """Return (count,) True for each polygon that neither the edge of the image nor nodata cuts.

    The outline of a cut polygon is not that of the building.

    Args:
        numbers: (y, x) number of the polygon at each pixel, see `io.gdal.number_polygons`.
        count: Number of polygons.
        valid: (y, x) known pixels.
    """
    near = cv2.dilate(
        (~valid).astype(np.uint8), np.ones((3, 3), np.uint8),
        borderType=cv2.BORDER_CONSTANT, borderValue=1,
    )  # fmt: skip
    whole = np.ones(count + 1, np.bool_)
    whole[np.unique(numbers[near > 0])] = False
    return whole[1:]


def _centres(outlines: Polygons) -> NDArray[np.float64]:
    """Return the (n, 2) row and column of the centroids."""
    centres = shapely.centroid(outlines)
    return np.column_stack([shapely.get_y(centres), shapely.get_x(centres)])
