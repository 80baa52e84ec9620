"""Buildings of a density: their measures, their numbers by place, and the nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import shapely
from pyproj import CRS

from rooftrace.core.types import BoolArray, Floats, Ints, Polygons
from rooftrace.density.cells import GroundPlane

Measured = tuple[Floats, Floats, BoolArray]
"""(n, 2) centroids and (n,) areas of buildings; (n,) False for those that are only neighbours of
others and are not counted.
"""


def measure_buildings(
    polygons: Polygons, counted: BoolArray | None = None, min_area_m2: float = 0.0
) -> Measured:
    """Return the measures of buildings.

    Args:
        polygons: (n,) buildings on a plane in metres.
        counted: (n,) bool, False for those that are only neighbours of others; None: all are
            counted.
        min_area_m2: Area below which buildings are left out.
    """
    area_m2 = shapely.area(polygons)
    large = area_m2 >= min_area_m2
    counted = np.ones(len(polygons), np.bool_) if counted is None else counted
    centroids = shapely.centroid(polygons[large])
    return shapely.get_coordinates(centroids), area_m2[large], counted[large]


@dataclass(frozen=True)
class BuildingMeasure:
    """Measures buildings for a density; picklable.

    Args:
        ground: Plane of the cells.
        min_area_m2: Minimum area of a building that is counted.
    """

    ground: GroundPlane
    min_area_m2: float

    def __call__(self, polygons: Polygons, crs: CRS | None) -> Measured:
        """Return the measures of buildings (n,).

        Args:
            polygons: Buildings.
            crs: Their coordinate system; None for pixels of the mask.

        Raises:
            GeoreferenceError: The buildings have a CRS but the mask has none.
        """
        moved = self.ground.reproject(polygons, crs)
        return measure_buildings(moved, min_area_m2=self.min_area_m2)


def in_one_order(parts: Sequence[Measured]) -> Measured:
    """Return all buildings in an order that does not depend on the order of the parts."""
    none = np.empty((0, 2)), np.empty(0), np.empty(0, np.bool_)
    xy, area_m2, counted = map(np.concatenate, zip(none, *parts))
    order = np.lexsort((counted, area_m2, xy[:, 1], xy[:, 0]))
    return xy[order], area_m2[order], counted[order]


def figures_by_place(
    xy: Floats, area_m2: Floats, place: Ints, building: Ints, count: int
) -> tuple[Ints, Floats, Floats]:
    """Return (count,) numbers of buildings, their total areas and their mean nearest distances by
    place.

    Args:
        xy, area_m2: Buildings, see `in_one_order`.
        place, building: (k,) pairs of a place and the index of a building.
        count: Number of places.
    """
    number = np.bincount(place, minlength=count).astype(np.int64)
    area = np.bincount(place, area_m2[building], minlength=count)
    total = np.bincount(place, nearest_neighbour(xy)[building], minlength=count)
    known = (number > 0) & np.isfinite(total)
    mean = np.full(count, np.nan)
    mean[known] = total[known] / number[known]
    return number, area.astype(np.float64), mean


_MAX_PAIRS = 2**18
"""Maximum number of pairs of a point and a candidate that are compared at once; 60 bytes each."""

_POINTS_AT_ONCE = 2**16
"""Maximum number of points that are searched for at once."""

_MIN_BIN_SHARE = 2.0**-24
"""Minimum side of a bin as a share of the extent, even if many points coincide."""


def nearest_neighbour(xy: Floats) -> Floats:
    """Return the exact distance from each point to the nearest other point.

    Candidates come from the 3 × 3 square bins around a point, which hold every point that is nearer
    than the side of a bin. Points without a candidate that near are searched again with bins twice
    as large. `shapely.STRtree.query_nearest` finds the same distances up to one unit of rounding,
    but for 600,000 points it took 5 times as long and 3 times as much memory.

    Args:
        xy: (n, 2) finite coordinates.

    Returns:
        (n,) distances; 0 where points coincide, and infinite for a single point.
    """
    found = np.full(len(xy), np.inf)
    if len(xy) < 2:
        return found
    low = xy.min(axis=0)
    extent = float((xy.max(axis=0) - low).max())
    if extent == 0:
        return np.zeros(len(xy))
    side = _first_side(xy - low, extent)
    pending: Ints = np.arange(len(xy))
    while len(pending):
        found[pending] = _nearest_in_bins(xy, low, side, pending)
        pending = pending[found[pending] > side]
        if side > extent:
            break
        side *= 2
    return found


def _first_side(xy: Floats, extent: float) -> float:
    """Return a bin side at which there are at least a third as many occupied bins as points."""
    side = extent / sqrt(len(xy))
    while side > extent * _MIN_BIN_SHARE:
        key = _key(xy, side)
        if 3 * (np.count_nonzero(np.diff(np.sort(key))) + 1) >= len(xy):
            break
        side /= 2
    return side


def _key(xy: Floats, side: float) -> Ints:
    """Return the number of each point's bin. Bins of a row are consecutive; rows are separated by a
    gap.
    """
    cell = np.floor(xy / side).astype(np.int64)
    return np.asarray(cell[:, 1] * (cell[:, 0].max() + 3) + cell[:, 0] + 1)


def _nearest_in_bins(xy: Floats, low: Floats, side: float, chosen: Ints) -> Floats:
    """Return (k,) distances to the nearest other point in the 3 × 3 bins around each chosen point;
    infinite where there is none.
    """
    key = _key(xy - low, side)
    stride = int(np.floor((xy[:, 0].max() - low[0]) / side)) + 3
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    best = np.empty(len(chosen))
    for at in range(0, len(chosen), _POINTS_AT_ONCE):
        own = chosen[at : at + _POINTS_AT_ONCE]
        rows = key[own][:, None] + np.array([-stride, 0, stride])
        start = np.searchsorted(ordered, rows - 1, side="left")
        times = np.searchsorted(ordered, rows + 1, side="right") - start
        many = np.cumsum(times.sum(axis=1))
        cuts = np.searchsorted(many, np.arange(_MAX_PAIRS, many[-1], _MAX_PAIRS))
        for part in np.split(np.arange(len(own)), np.unique(cuts)):
            if len(part):
                flat, begins = times[part].ravel(), start[part].ravel()
                steps = np.arange(flat.sum()) - np.repeat(np.cumsum(flat) - flat - begins, flat)
                each = times[part].sum(axis=1)
                one, other = np.repeat(own[part], each), order[steps]
                distance = np.hypot(*(xy[one] - xy[other]).T)
                distance[one == other] = np.inf
                # Every point lies in its own bin, so each has at least one candidate.
                best[at + part] = np.minimum.reduceat(distance, np.cumsum(each) - each)
    return best
