"""Buildings of a density: their measures, their numbers by place, and the nearest neighbours."""

from __future__ import annotations

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


class BuildingTally:
    """Centroids and areas of buildings, from which the figures of places are made."""

    def __init__(self) -> None:
        self._measured: list[Measured] = [(np.empty((0, 2)), np.empty(0), np.empty(0, np.bool_))]

    def add(self, measured: Measured) -> None:
        """Add buildings on a plane in metres."""
        self._measured.append(measured)

    def sorted(self) -> Measured:
        """Return all buildings in an order that does not depend on the order of `add`."""
        xy, area_m2, counted = map(np.concatenate, zip(*self._measured))
        order = np.lexsort((counted, area_m2, xy[:, 1], xy[:, 0]))
        return xy[order], area_m2[order], counted[order]


def figures_by_place(
    xy: Floats, area_m2: Floats, place: Ints, building: Ints, count: int
) -> tuple[Ints, Floats, Floats]:
    """Return (count,) numbers of buildings, their total areas and their mean nearest distances by
    place.

    Args:
        xy, area_m2: Buildings, see `BuildingTally.sorted`.
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
        bins = _Bins(xy, low, side)
        found[pending] = bins.nearest(pending)
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


class _Bins:
    """Points sorted by their bins."""

    def __init__(self, xy: Floats, low: Floats, side: float) -> None:
        self._xy = xy
        self._key = _key(xy - low, side)
        self._stride = int(np.floor((xy[:, 0].max() - low[0]) / side)) + 3
        self._order = np.argsort(self._key, kind="stable")
        self._sorted = self._key[self._order]

    def nearest(self, chosen: Ints) -> Floats:
        """Return (k,) distances to the nearest other point in the 3 × 3 bins around each chosen
        point.
        """
        best = np.empty(len(chosen))
        for at in range(0, len(chosen), _POINTS_AT_ONCE):
            best[at : at + _POINTS_AT_ONCE] = self._nearest(chosen[at : at + _POINTS_AT_ONCE])
        return best

    def _nearest(self, chosen: Ints) -> Floats:
        rows = self._key[chosen][:, None] + np.array([-self._stride, 0, self._stride])
        start = np.searchsorted(self._sorted, rows - 1, side="left")
        stop = np.searchsorted(self._sorted, rows + 1, side="right")
        times = stop - start
        many = np.cumsum(times.sum(axis=1))
        best = np.empty(len(chosen))
        at = 0
        while at < len(chosen):
            before = int(many[at - 1]) if at else 0
            end = max(int(np.searchsorted(many, before + _MAX_PAIRS, side="right")), at + 1)
            best[at:end] = self._among(chosen[at:end], start[at:end], times[at:end])
            at = end
        return best

    def _among(self, chosen: Ints, start: Ints, times: Ints) -> Floats:
        flat, begins = times.ravel(), start.ravel()
        steps = np.arange(flat.sum()) - np.repeat(np.cumsum(flat) - flat - begins, flat)
        other = self._order[steps]
        each = times.sum(axis=1)
        one = np.repeat(chosen, each)
        distance = np.hypot(*(self._xy[one] - self._xy[other]).T)
        distance[one == other] = np.inf
        # Every point lies in its own bin, so each has at least one candidate.
        return np.minimum.reduceat(distance, np.cumsum(each) - each)
