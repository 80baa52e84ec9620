"""How near outlines come to those that people drew: polygon by polygon."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["OutlineFigures", "PolygonMatches", "match_polygons", "polis", "vertex_counts"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Polygons = NDArray[np.object_]


@dataclass(frozen=True)
class PolygonMatches:
    """Pairs of polygons that are one building.

    Args:
        truth: (m,) indices of the labelled ones, ascending.
        predicted: (m,) of those predicted.
        iou: (m,) intersection over union of each pair, in 0..1.
        labelled: how many the label has.
        found: how many the prediction has.
    """

    truth: Ints
    predicted: Ints
    iou: Floats
    labelled: int
    found: int

    def __len__(self) -> int:
        return len(self.iou)

    @property
    def recall(self) -> float:
        """The share of the labelled ones that were found; NaN where there are none."""
        return len(self) / self.labelled if self.labelled else math.nan

    @property
    def precision(self) -> float:
        """The share of the predicted ones that are labelled; NaN where there are none."""
        return len(self) / self.found if self.found else math.nan


def match_polygons(truth: Polygons, predicted: Polygons, min_iou: float = 0.5) -> PolygonMatches:
    """Pairs of an IoU of at least `min_iou`, those of the largest IoU first, each polygon once.

    Args:
        truth: (n,) valid shapely polygons.
        predicted: (k,) valid ones in the same plane.
        min_iou: above 0, at most 1.
    """
    one, other = shapely.STRtree(truth).query(predicted, predicate="intersects")[::-1]
    common = shapely.area(shapely.intersection(truth[one], predicted[other]))
    iou = common / (shapely.area(truth[one]) + shapely.area(predicted[other]) - common)
    near = iou >= min_iou
    one, other, iou = one[near], other[near], iou[near]
    taken: tuple[set[int], set[int]] = set(), set()
    pairs = []
    # Where neither set overlaps itself, pairs above a half are unique; labels may overlap.
    for pair in np.lexsort((other, one, -iou)):
        ends = int(one[pair]), int(other[pair])
        if ends[0] not in taken[0] and ends[1] not in taken[1]:
            taken[0].add(ends[0])
            taken[1].add(ends[1])
            pairs.append(pair)
    kept = np.array(pairs, np.int64)
    kept = kept[np.argsort(one[kept])]
    return PolygonMatches(one[kept], other[kept], iou[kept], len(truth), len(predicted))


def polis(one: Polygons, other: Polygons) -> Floats:
    """The mean distance between the outlines of polygons, pair by pair.

    From every corner of each polygon to the nearest point of the other's outline, averaged over the
    corners of each and then over the two (Avbelj et al. 2015, doi:10.1109/LGRS.2014.2330695).
    Holes count as outlines.

    Args:
        one: (n,) shapely polygons.
        other: (n,) shapely polygons in the same plane.

    Returns:
        (n,) in the unit of the coordinates, 0 where the outlines are the same.
    """
    return (_mean_distance(one, other) + _mean_distance(other, one)) / 2


def _mean_distance(corners_of: Polygons, outlines_of: Polygons) -> Floats:
    """(n,) from the corners of a polygon to the outline of the other."""
    rings, owner = shapely.get_rings(corners_of, return_index=True)
    corner, ring = shapely.get_coordinates(rings, return_index=True)
    # A ring repeats its first corner at its end.
    kept = np.diff(ring, append=-1) == 0
    corner, owner = corner[kept], owner[ring[kept]]
    outlines = shapely.boundary(outlines_of)
    shapely.prepare(outlines)
    away = shapely.distance(shapely.points(corner), outlines[owner])
    size = len(corners_of)
    return np.asarray(np.bincount(owner, away, size) / np.bincount(owner, minlength=size))


def vertex_counts(polygons: Polygons) -> Ints:
    """(n,) corners of each polygon, those of its holes included."""
    rings = 1 + shapely.get_num_interior_rings(polygons)
    return np.asarray(shapely.get_num_coordinates(polygons) - rings, np.int64)


@dataclass(frozen=True)
class OutlineFigures:
    """Means over the pairs of matched polygons.

    Args:
        labelled: polygons of the label.
        found: polygons of the prediction.
        matched: pairs of an IoU of at least 0.5.
        iou: mean over the pairs.
        polis: mean over the pairs, in the unit of the coordinates.
        corners: mean of a predicted polygon of the pairs.
        corners_labelled: mean of a labelled polygon of the pairs.
    """

    labelled: int
    found: int
    matched: int
    iou: float
    polis: float
    corners: float
    corners_labelled: float

    @classmethod
    def of(cls, truth: Polygons, predicted: Polygons) -> OutlineFigures:
        """Match and measure; see `match_polygons`. NaN where nothing matches."""
        pairs = match_polygons(truth, predicted)
        one, other = truth[pairs.truth], predicted[pairs.predicted]
        figures = (pairs.iou, polis(one, other), vertex_counts(other), vertex_counts(one))
        means = (float(np.mean(values)) if len(pairs) else math.nan for values in figures)
        return cls(pairs.labelled, pairs.found, len(pairs), *means)
