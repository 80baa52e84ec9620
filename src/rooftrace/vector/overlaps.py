"""How much two outlines have in common, for many pairs at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.vector.corners import Ints

__all__ = ["common_area"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Polygons = NDArray[np.object_]

# Pairs of edges that are looked at together.
_AT_ONCE = 1 << 14
# Beyond so many pairs an overlay, which does not try all of them, is faster.
_MOST_PAIRS = 1 << 16


def common_area(polygons: Polygons, stairs: Polygons) -> Floats:
    """The area that polygons share with others, each with its own.

    An overlay takes a tenth of a millisecond for shapes of ten pixels. But what lies above an edge
    of the one and below an edge of the other is a trapezoid, and the sum over all such pairs, each
    with its sign, is what the two share (Green's theorem, once for each outline).

    Args:
        polygons: (n,) valid shapely polygons.
        stairs: (n,) valid ones; it is fast for those whose edges are upright or level.

    Returns:
        (n,) in squares of the unit, up to rounding.
    """
    origin = shapely.bounds(stairs)[:, :2]
    mine, theirs = _Edges.of(polygons, origin), _Edges.of(stairs, origin)
    pairs = mine.count * theirs.count
    summed = ~theirs.has_slopes & (pairs <= _MOST_PAIRS)
    area = np.zeros(len(polygons))
    overlaid = np.flatnonzero(~summed)
    area[overlaid] = shapely.area(shapely.intersection(polygons[overlaid], stairs[overlaid]))
    for chosen in _parts(np.flatnonzero(summed), pairs):
        area[chosen] = _summed(mine, theirs, chosen)
    return area


@dataclass(frozen=True, slots=True)
class _Edges:
    """Edges of polygons, one polygon after the other, without the upright ones.

    Args:
        left, right: (m, 2) x and y of their ends.
        sign: (m,) 1 where the polygon lies above the edge, at larger y, and -1 where below.
        first: (n,) where each polygon's edges begin.
        count: (n,) how many it has.
        has_slopes: (n,) whether one of them is not level.
    """

    left: Floats
    right: Floats
    sign: Floats
    first: Ints
    count: Ints
    has_slopes: Bools

    @classmethod
    def of(cls, polygons: Polygons, origin: Floats) -> _Edges:
        """Relative to a point (n, 2) of each polygon, near which products keep their digits."""
        rings, owner = shapely.get_rings(polygons, return_index=True)
        is_hole = np.diff(owner, prepend=-1) == 0
        turn = np.where(shapely.is_ccw(rings) != is_hole, 1.0, -1.0)
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        xy -= origin[owner[ring]]
        edge = np.flatnonzero((ring[1:] == ring[:-1]) & (xy[1:, 0] != xy[:-1, 0]))
        start, stop = xy[edge], xy[edge + 1]
        forward = start[:, 0] < stop[:, 0]
        ends = [np.where(forward[:, None], *pair) for pair in ((start, stop), (stop, start))]
        polygon = owner[ring[edge]]
        count = np.bincount(polygon, minlength=len(polygons))
        has_slopes = np.zeros(len(polygons), np.bool_)
        has_slopes[polygon[start[:, 1] != stop[:, 1]]] = True
        return cls(
            ends[0], ends[1], np.where(forward, 1.0, -1.0) * turn[ring[edge]],
            np.cumsum(count) - count, count, has_slopes,
        )  # fmt: skip


def _parts(chosen: Ints, pairs: Ints) -> Iterator[Ints]:
    """The same numbers, so many at a time that they have about `_AT_ONCE` pairs."""
    total = np.cumsum(pairs[chosen])
    cuts = np.searchsorted(total, np.arange(_AT_ONCE, total[-1:].sum(), _AT_ONCE))
    return (part for part in np.split(chosen, np.unique(cuts)) if len(part))


def _summed(mine: _Edges, theirs: _Edges, chosen: Ints) -> Floats:
    """(k,) the areas of some, of which the second's edges are level."""
    rows = theirs.count[chosen]
    row = _runs(theirs.first[chosen], rows)
    # Each edge of the one meets all of the other.
    times = np.repeat(mine.count[chosen], rows)
    other = np.repeat(row, times)
    one = _runs(np.repeat(mine.first[chosen], rows), times)
    owner = np.repeat(np.arange(len(chosen)), rows * mine.count[chosen])
    low = np.maximum(mine.left[one, 0], theirs.left[other, 0])
    width = np.minimum(mine.right[one, 0], theirs.right[other, 0]) - low
    meet = width > 0
    one, other, owner, low, width = one[meet], other[meet], owner[meet], low[meet], width[meet]
    left, right = mine.left[one], mine.right[one]
    slope = (right[:, 1] - left[:, 1]) / (right[:, 0] - left[:, 0])
    # How far the level edge lies above the ends of the other.
    begin = theirs.left[other, 1] - left[:, 1] - slope * (low - left[:, 0])
    end = begin - slope * width
    top, bottom = np.maximum(begin, end), np.minimum(begin, end)
    crosses = (bottom < 0) & (top > 0)
    height = np.where(crosses, top**2 / np.where(crosses, top - bottom, 1), top + bottom)
    height[top <= 0] = 0
    area = mine.sign[one] * theirs.sign[other] * width * height / -2
    return np.asarray(np.bincount(owner, area, len(chosen)), np.float64)


def _runs(first: Ints, count: Ints) -> Ints:
    """Numbers from each `first` on, so many of each, one run after the other."""
    before = np.cumsum(count) - count
    return np.asarray(np.arange(int(count.sum())) + np.repeat(first - before, count), np.int64)
