"""The smallest rectangle around each of many polygons, all at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["Rectangles", "smallest_rectangles"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Pairs of a hull's edge and a hull's vertex that are looked at together.
_PAIRS_AT_ONCE = 1 << 21


@dataclass(frozen=True, slots=True)
class Rectangles:
    """Rectangles in the plane, in the unit of the polygons.

    Args:
        length: (n,) of the longer side.
        width: (n,) of the shorter side.
        angle: (n,) radians in [0, pi), from the x axis towards the y axis to the longer side.
    """

    length: Floats
    width: Floats
    angle: Floats

    @property
    def area(self) -> Floats:
        """(n,) length times width."""
        return self.length * self.width


def smallest_rectangles(polygons: NDArray[np.object_]) -> Rectangles:
    """The rectangle of the least area around each polygon.

    One of its sides lies along an edge of the convex hull (Freeman and Shapira 1975,
    doi:10.1145/360881.360919), so that every edge is tried.

    Args:
        polygons: (n,) shapely polygons with an area.

    Returns:
        (n,) rectangles in the same order.
    """
    hulls = shapely.convex_hull(polygons)
    size = shapely.get_num_coordinates(hulls) - 1
    stops = np.cumsum(size.astype(np.int64) ** 2)
    cuts = np.searchsorted(stops, np.arange(_PAIRS_AT_ONCE, stops[-1:].sum(), _PAIRS_AT_ONCE))
    found = [_of_hulls(part) for part in np.split(hulls, np.unique(cuts)) if len(part)]
    columns = np.concatenate(found, axis=1) if found else np.zeros((3, 0))
    return Rectangles(*columns)


def _of_hulls(hulls: NDArray[np.object_]) -> Floats:
    """(3, n) length, width and angle."""
    vertex, owner = shapely.get_coordinates(hulls, return_index=True)
    count = np.bincount(owner, minlength=len(hulls))
    start = np.cumsum(count) - count
    # Near the origin products of coordinates keep their digits.
    vertex = vertex - vertex[start][owner]
    edge = np.ones(len(vertex), np.bool_)
    edge[start + count - 1] = False
    first = np.flatnonzero(edge)
    along = vertex[first + 1] - vertex[first]
    along /= np.hypot(along[:, 0], along[:, 1])[:, None]

    hull = owner[first]
    times = count[hull]
    begins = np.cumsum(times) - times
    other = vertex[np.arange(times.sum()) - np.repeat(begins - start[hull], times)]
    unit = np.repeat(along, times, axis=0)
    run = (other * unit).sum(axis=1)
    away = other[:, 1] * unit[:, 0] - other[:, 0] * unit[:, 1]
    spans = np.stack(
        [np.maximum.reduceat(p, begins) - np.minimum.reduceat(p, begins) for p in (run, away)]
    )
    best = np.lexsort((spans.prod(axis=0), hull))[np.cumsum(count - 1) - (count - 1)]
    length, width = spans[:, best]
    angle = np.arctan2(along[best, 1], along[best, 0]) + np.where(length < width, np.pi / 2, 0)
    return np.stack([np.maximum(length, width), np.minimum(length, width), angle % np.pi])
