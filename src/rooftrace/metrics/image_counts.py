"""Counts of one image: truth and prediction compared by pixels, buildings and polygons.

Errors of built-up density are counted cell by cell. Square cells are laid over a scene from its
upper left corner. In each cell, the built-up share of the known area and the number of buildings
are taken from both sides. They are compared as mean absolute error, bias (mean of predicted -
labelled) and root mean square error (Willmott & Matsuura 2005, "Advantages of the mean absolute
error (MAE) over the root mean square error (RMSE)", on why the first should be read, and not only
the last). A cell counts where at least half of it is known, and all such cells have the same
weight. The same rule holds for cells that the edge of the scene cuts. A scene that is smaller than
a cell along one side or both is one cell along that side.

Errors depend on the size of the cells, because false positives and false negatives in one cell
cancel out. Figures for different cell sizes cannot be compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.types import BoolArray, Floats, Polygons
from rooftrace.metrics.boundary import BoundaryCounts, PolygonCounts
from rooftrace.metrics.objects import ObjectCounts, match_predicted
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.metrics.resampling import Ratio, all_rounded, quotient

BUILT_UP_COLUMNS = (
    "cells", "share_error", "share_absolute", "share_squared", "count_error", "count_absolute",
    "count_squared", "sparse_as_sparse", "sparse_as_dense", "dense_as_sparse", "dense_as_dense",
    "scenes", "labelled", "predicted", "scene_absolute",
)  # fmt: skip
"""Columns of the sums. Over cells: the errors of share and count, and the four outcomes of the
sparse/dense decision. Over scenes: the buildings of both sides and the absolute error of their
number."""


@dataclass(frozen=True)
class BuiltUpCounts:
    """Sums from which the errors of density are computed.

    Args:
        threshold: Built-up share from which a cell is dense; below it the cell is sparse.
        sums: (15,) float64, see `BUILT_UP_COLUMNS`.
    """

    threshold: float
    sums: Floats

    @classmethod
    def of(
        cls,
        truth: BoolArray,
        predicted: BoolArray,
        valid: BoolArray | None,
        truth_centroids_yx: Floats,
        predicted_centroids_yx: Floats,
        *,
        cell_px: float,
        threshold: float,
    ) -> BuiltUpCounts:
        """Count one scene.

        Args:
            truth, predicted: (y, x) masks of buildings.
            valid: (y, x) pixels that both sides know; default all.
            truth_centroids_yx, predicted_centroids_yx: (n, 2) centroids of the buildings, in pixels
                from the upper left corner of the scene. Centroids outside of the scene, or on
                unknown pixels, are not counted.
            cell_px: Side of a cell in pixels, at least 1; a pixel belongs to the cell that holds
                its centre.
            threshold: Built-up share from which a cell is dense.
        """
        known = np.ones(truth.shape, bool) if valid is None else valid
        starts = [_starts(size, cell_px) for size in truth.shape]
        area = _sums(known, starts)
        whole = np.prod([min(cell_px, size) for size in truth.shape])
        judged = (area > 0) & (area >= whole / 2)
        shares = [_sums(side & known, starts)[judged] / area[judged] for side in (truth, predicted)]
        counts = [
            _buildings(centroids, known, starts)
            for centroids in (truth_centroids_yx, predicted_centroids_yx)
        ]
        total = [count.sum() for count in counts]
        share = shares[1] - shares[0]
        count = (counts[1] - counts[0])[judged]
        dense = [side >= threshold for side in shares]
        calls = np.bincount(2 * dense[0] + dense[1], minlength=4)
        sums = (
            judged.sum(), share.sum(), np.abs(share).sum(), (share**2).sum(),
            count.sum(), np.abs(count).sum(), (count**2).sum(), *calls,
            1, *total, abs(total[1] - total[0]),
        )  # fmt: skip
        return cls(threshold, np.array(sums, np.float64))

    def __add__(self, other: BuiltUpCounts) -> BuiltUpCounts:
        return BuiltUpCounts(self.threshold, self.sums + other.sums)

    def count(self, column: str) -> int:
        """Return one of the columns that hold whole numbers."""
        return round(float(self.sums[BUILT_UP_COLUMNS.index(column)]))

    @property
    def cells(self) -> int:
        """Number of cells that count."""
        return self.count("cells")

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(2, 2) cells; row = truth, column = prediction; sparse before dense."""
        first = BUILT_UP_COLUMNS.index("sparse_as_sparse")
        calls = self.sums[first : first + 4].reshape(2, 2)
        return np.asarray(calls.round(), np.int64)

    def figures(self) -> dict[str, float]:
        """Return each of `BUILT_UP_FIGURES`; NaN where it is not defined."""
        return {name: float(ratio(self.sums[None])[0]) for name, ratio in BUILT_UP_FIGURES.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the counts and `figures`; None in place of NaN."""
        return {
            "cells": self.cells,
            **{name: self.count(name) for name in ("labelled", "predicted")},
            "dense_from": self.threshold,
            "confusion": self.confusion.tolist(),
            **all_rounded(self.figures()),
        }


def _starts(size: int, cell_px: float) -> NDArray[np.int64]:
    """Return the first row, or column, of each cell."""
    edges = np.ceil(np.arange(math.ceil(size / cell_px)) * cell_px - 0.5).astype(np.int64)
    return np.asarray(edges[edges < size])


def _sums(mask: BoolArray, starts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the (rows, columns) number of pixels in each cell."""
    rows = np.add.reduceat(mask.view(np.uint8), starts[0], axis=0, dtype=np.int32)
    return np.asarray(np.add.reduceat(rows, starts[1], axis=1, dtype=np.int64))


def _buildings(
    centroids_yx: Floats, known: BoolArray, starts: list[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Return the (rows, columns) number of buildings in each cell."""
    place = np.asarray(centroids_yx, np.float64).reshape(-1, 2)
    place = place[((place >= 0) & (place < known.shape)).all(axis=1)]
    row, col = np.floor(place).astype(np.int64).T
    seen = known[row, col]
    row, col = row[seen], col[seen]
    shape = len(starts[0]), len(starts[1])
    cell = [np.searchsorted(s, at, side="right") - 1 for s, at in zip(starts, (row, col))]
    number = cell[0] * shape[1] + cell[1]
    counts = np.bincount(number, minlength=shape[0] * shape[1])
    return np.asarray(counts.reshape(shape))


def _mean(column: str, of: str = "cells") -> Ratio:
    return quotient(_weights(column), _weights(of))


def _weights(*columns: str) -> list[float]:
    return [float(name in columns) for name in BUILT_UP_COLUMNS]


def _root(column: str) -> Ratio:
    squared = _mean(column)
    return lambda sums: np.sqrt(squared(sums))


_CALLS = BUILT_UP_COLUMNS[BUILT_UP_COLUMNS.index("sparse_as_sparse") :][:4]

BUILT_UP_FIGURES: dict[str, Ratio] = {
    "share_mae": _mean("share_absolute"),
    "share_bias": _mean("share_error"),
    "share_rmse": _root("share_squared"),
    "buildings_per_cell_mae": _mean("count_absolute"),
    "buildings_per_cell_bias": _mean("count_error"),
    "buildings_per_cell_rmse": _root("count_squared"),
    "buildings_per_scene_mae": _mean("scene_absolute", "scenes"),
    "buildings_excess": quotient(
        np.subtract(_weights("predicted"), _weights("labelled")), _weights("labelled")
    ),
    "sparse_dense_accuracy": quotient(
        _weights("sparse_as_sparse", "dense_as_dense"), _weights(*_CALLS)
    ),
}
"""Functions of (n, 15) sums. Shares are 0..1 of the known area of a cell. `buildings_excess` is the
surplus of predicted over labelled buildings in all scenes, as a share of the labelled ones.
`sparse_dense_accuracy` is the share of cells with the right decision."""


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
    buildings = pair.buildings
    pixel_m2 = None if gsd_m is None else gsd_m**2
    numbers, right, _ = match_predicted(pair.instances, buildings, valid)
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
            buildings,
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
