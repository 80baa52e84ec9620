"""All that is counted on one scene: truth and answer side by side, pixels and polygons together."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize

from rooftrace.metrics.boundary import BoundaryCounts
from rooftrace.metrics.builtup import BuiltUpCounts
from rooftrace.metrics.objects import ObjectCounts, judge_predicted
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.metrics.polygons import PolygonCounts

__all__ = ["ImageScore", "ScenePair", "drawn", "score_scene", "whole_buildings"]

Bools = NDArray[np.bool_]
Ints = NDArray[np.int32]
Polygons = NDArray[np.object_]


@dataclass(frozen=True)
class ImageScore:
    """The counts of one image.

    Args:
        id: of the scene.
        counts: of its pixels.
        objects: of its buildings.
        outlines: of the buildings, pixel by pixel.
        polygons: of the outlines of matched buildings that lie wholly inside what is known.
        built_up: of its cells; None where metres are not known.
        score: (n,) float32 in 0..1 of each predicted building that has a valid pixel.
        right: (n,) whether each matches a labelled one.
        group: the place that it is of.
    """

    id: str
    counts: PixelCounts
    objects: ObjectCounts = field(default_factory=ObjectCounts)
    outlines: BoundaryCounts = field(default_factory=BoundaryCounts.zero)
    polygons: PolygonCounts = field(default_factory=PolygonCounts)
    built_up: BuiltUpCounts | None = None
    score: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    right: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    group: str = ""


@dataclass(frozen=True)
class ScenePair:
    """Truth and answer on one grid.

    Args:
        truth, predicted: (y, x) class indices.
        valid: (y, x) pixels that are judged.
        instances: (y, x) the number of the labelled building at each pixel, from 1; else 0.
        truth_outlines, outlines: (n,) polygons of the buildings in pixels, x right and y down.
        truth_numbers, numbers: (y, x) the number of the polygon at each pixel, as `drawn`.
        score: (n,) in 0..1 of the predicted buildings; None where there is none.
        gsd_m: metres per pixel; None where not known.
        found: (y, x) the number of the predicted building at each pixel, from 1; else 0. None:
            buildings are what `numbers` tells.
    """

    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    valid: Bools
    instances: Ints
    truth_outlines: Polygons
    outlines: Polygons
    truth_numbers: Ints
    numbers: Ints
    score: NDArray[np.float32] | None
    gsd_m: float | None
    found: Ints | None = None

    @property
    def buildings(self) -> Ints:
        """(y, x) the number of the predicted building at each pixel, from 1; else 0."""
        return self.numbers if self.found is None else self.found


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
) -> ImageScore:
    """Count everything on one scene.

    Args:
        pair: truth and answer.
        classes: how many there are.
        building_class: index of the class whose objects and outlines are judged.
        min_area_m2: smaller buildings are not judged, see `ObjectCounts.of`; nothing where metres
            are not known.
        cell_m: side of the cells of the built-up share.
        dense_from: a built-up share of at least this is dense.
        group: the place that it is of.
        pixels_only: nothing is counted of buildings one by one, of polygons and of cells.
    """
    valid, gsd_m = pair.valid, pair.gsd_m
    is_truth, is_predicted = (side == building_class for side in (pair.truth, pair.predicted))
    counts = PixelCounts.of(pair.truth, np.where(valid, pair.predicted, 0), valid, classes=classes)
    edges = BoundaryCounts.of(is_truth, is_predicted, valid)
    if pixels_only:
        return ImageScore(scene_id, counts, outlines=edges, group=group)
    found = pair.buildings
    pixel_m2 = None if gsd_m is None else gsd_m**2
    numbers, right = judge_predicted(pair.instances, found, valid)
    built_up = None
    if gsd_m is not None:
        built_up = BuiltUpCounts.of(
            is_truth, is_predicted, valid, _centres(pair.truth_outlines), _centres(pair.outlines),
            cell_px=max(cell_m / gsd_m, 1.0), threshold=dense_from,
        )  # fmt: skip
    return ImageScore(
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
            usable_truth=whole_buildings(pair.truth_numbers, len(pair.truth_outlines), valid),
            usable_predicted=whole_buildings(pair.numbers, len(pair.outlines), valid),
        ),
        built_up=built_up,
        score=np.zeros(0, np.float32) if pair.score is None else pair.score[numbers - 1],
        right=np.zeros(0, np.bool_) if pair.score is None else right,
        group=group,
    )


def drawn(outlines: Polygons, shape_yx: tuple[int, ...]) -> Ints:
    """(y, x) the number of the polygon at each pixel, from 1 in their order; else 0.

    Args:
        outlines: (n,) in pixels, x right and y down. A pixel belongs to the last one that holds its
            centre.
    """
    numbers = np.zeros(shape_yx, np.int32)
    if len(outlines):
        rasterize(zip(outlines, range(1, len(outlines) + 1)), out=numbers)
    return numbers


def whole_buildings(numbers: Ints, count: int, valid: Bools) -> Bools:
    """(count,) which polygons neither the edge of the image nor nodata cuts: where they do, the
    outline is not the building's.

    Args:
        numbers: (y, x) of the polygons, as `drawn`.
        valid: (y, x).
    """
    near = cv2.dilate(
        (~valid).astype(np.uint8), np.ones((3, 3), np.uint8),
        borderType=cv2.BORDER_CONSTANT, borderValue=1,
    )  # fmt: skip
    whole = np.ones(count + 1, np.bool_)
    whole[np.unique(numbers[near > 0])] = False
    return whole[1:]


def _centres(outlines: Polygons) -> NDArray[np.float64]:
    """(n, 2) row and column of the centroids."""
    centres = shapely.centroid(outlines)
    return np.column_stack([shapely.get_y(centres), shapely.get_x(centres)])
