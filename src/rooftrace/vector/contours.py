"""Contours of many buildings as arrays: points, proposed corners, and moments between corners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from rooftrace.core.types import numbered
from rooftrace.vector.trace import Columns, Floats, Ints, Polygons

GRID_PX = 1 / 1024
"""Grid of the corners in pixels: a polygon has the same shape at any position."""

STEPS = 2
"""Steps of a contour's points along a pixel, whose sums are exact and the same in any batch."""

# Tolerance in units of Douglas-Peucker, which proposes corners.
_PROPOSED = 1.0
# Rings with more proposed corners are not a single building.
_MAX_CORNERS = 512


@dataclass(frozen=True)
class RingOrder(Columns):
    """Order of the vertices of rings, one ring after the other.

    Args:
        before, after: (n,) index of the previous and of the next vertex in the ring.
        first: (n,) index of the ring's first vertex.
        size: (n,) number of the ring's vertices.
    """

    before: Ints
    after: Ints
    first: Ints
    size: Ints

    @classmethod
    def by_ring(cls, ring: Ints) -> RingOrder:
        """Return the order, given the ring of each vertex, ascending."""
        start = np.flatnonzero(np.diff(ring, prepend=-1))
        size = np.diff(start, append=len(ring))
        index, first, count = np.arange(len(ring)), np.repeat(start, size), np.repeat(size, size)
        before, after = index - 1, index + 1
        before[start] = start + size - 1
        after[start + size - 1] = start
        return cls(before, after, first, count)


@dataclass(frozen=True, slots=True)
class Contours:
    """Contours of buildings: rings of points, of which some are proposed corners.

    Rings with more corners come first. Corners are numbered from the strongest on along the ring,
    the last one being the first again, and lie number by number: first that of all rings, then the
    next of all rings that have it, and so on. So a corner of all rings is one slice.

    Args:
        owner: (rings,) polygon of each ring.
        number: (rings,) number of the ring in the order of the polygons.
        origin: (rings, 2) origin of its points.
        first, sizes: (rings,) index of its first point, and number of its points.
        points: (m, 2) all points, in the order of the polygons.
        sums: (m + 1, 5) sums of x, y, xx, xy, yy of the points before each, in 1 / `STEPS`.
        count: (rings,) number of proposed corners, descending.
        level: (numbers + 1,) index of the first corner of each number.
        ring: (n,) ring of each corner.
        node: (n,) index of the point at which it lies, plus the ring's size from the ring's end on.
        xy: (n, 2) this point.
    """

    owner: Ints
    number: Ints
    origin: Floats
    first: Ints
    sizes: Ints
    points: Floats
    sums: Ints
    count: Ints
    level: Ints
    ring: Ints
    node: Ints
    xy: Floats

    @classmethod
    def of(cls, raw: Polygons, unit: float, max_corners: int | None = _MAX_CORNERS) -> Contours:
        """Return the contours of polygons (n,) along pixel edges; a ring with more than
        `max_corners` has one corner.
        """
        rings, owner = shapely.get_rings(raw, return_index=True)
        xy, of = shapely.get_coordinates(rings, return_index=True)
        origin = xy[np.searchsorted(of, np.arange(len(rings)))]
        size, x, y = _points(xy, of, len(rings))
        first, ring = np.cumsum(size) - size, np.repeat(np.arange(len(rings)), size)
        points = np.stack([x, y], axis=1) / STEPS
        # No point between others of a straight line is the farthest from a chord.
        bends = np.ones(len(x), np.bool_)
        bends[1:-1] = (np.diff(x, 2) != 0) | (np.diff(y, 2) != 0)
        bends[first] = bends[first - 1] = True
        bend = np.flatnonzero(bends)
        # A point's index is its height, which simplification keeps.
        lines = shapely.simplify(
            shapely.linearrings(np.column_stack([points[bend], bend]), indices=ring[bend]),
            _PROPOSED * unit,
            preserve_topology=False,
        )
        height, at = shapely.get_coordinates(lines, include_z=True, return_index=True)
        corner = height[np.diff(at, append=-1) == 0, 2].astype(np.int64)
        # A ring that simplification removed keeps its first point, and so does one with too many.
        count = np.bincount(ring[corner], minlength=len(rings))
        left = (count == 0) | (count > (max_corners or len(x)))
        corner = np.sort(np.append(corner[~left[ring[corner]]], first[left]))
        count = np.bincount(ring[corner], minlength=len(rings))
        order = RingOrder.by_ring(ring[corner])
        chord = points[corner[order.after]] - points[corner]
        length = np.hypot(*chord.T)
        cosine = (chord * chord[order.before]).sum(axis=1)
        cosine /= np.maximum(length * length[order.before], 1e-9)
        shorter = np.minimum(np.minimum(length, length[order.before]), 8 * unit)
        strength = np.lexsort((-shorter * (1 - cosine), ring[corner]))

        rank, begin = np.argsort(-count, kind="stable"), np.cumsum(count) - count
        strongest = strength[begin] - begin
        count, size, first = count[rank], size[rank], first[rank]
        active = np.searchsorted(-count, -np.arange(int(count[0]) + 1), side="right")
        level = np.append(0, np.cumsum(active))
        number, of = numbered(active)
        step = strongest[rank][of] + number
        wraps = step >= count[of]
        node = corner[begin[rank][of] + step - wraps * count[of]]
        xy = points[node]
        sums = np.zeros((len(x) + 1, 5), np.int64)
        for column, term in enumerate((x, y, x * x, x * y, y * y)):
            np.cumsum(term, out=sums[1:, column])
        return cls(
            owner[rank], rank, origin[rank], first, size, points, sums, count, level,
            of, node + wraps * size[of], xy,
        )  # fmt: skip

    def summed(self, index: Ints, ring: Ints) -> Ints:
        """Return (5, n) the sums of the points before each index, which may be beyond the end of
        its ring; of indices outside of all rings, arbitrary ones.
        """
        stop = self.first + self.sizes
        beyond = np.flatnonzero(index > stop[ring])
        index, ring = index.copy(), ring[beyond]
        index[beyond] -= self.sizes[ring]
        total = np.take(self.sums, index, axis=0, mode="clip")
        total[beyond] += self.sums[stop[ring]] - self.sums[self.first[ring]]
        return total.T

    def edges(self) -> tuple[Ints, Ints, Ints]:
        """Return the corners from which and to which each edge goes, and its ring, number by
        number.
        """
        stop = np.arange(len(self.count), len(self.ring))
        ring = self.ring[stop]
        return np.repeat(self.level[:-2], np.diff(self.level[1:])) + ring, stop, ring

    def rings(self, corner: Floats, ring: Ints) -> Polygons:
        """Return (rings,) rings through corners (m, 2), given the ring (m,) of each, ascending;
        None where there are less than three.
        """
        rings = np.full(len(self.owner), None, np.object_)
        kept = np.bincount(ring, minlength=len(rings))[ring] > 2
        if kept.any():
            number, index = np.unique(ring[kept], return_inverse=True)
            xy = np.rint(corner[kept] / GRID_PX) * GRID_PX + self.origin[ring[kept]]
            rings[number] = shapely.linearrings(xy, indices=index)
        return rings

    def polygons(self, count: int, rings: Polygons) -> Polygons:
        """Return (count,) polygons of rings (rings,), empty where one of them is None."""
        order = np.argsort(self.number, kind="stable")
        rings, owner = rings[order], self.owner[order]
        whole = np.ones(count, np.bool_)
        whole[owner[[ring is None for ring in rings]]] = False
        polygons = np.full(count, shapely.Polygon(), np.object_)
        kept = whole[owner]
        if kept.any():
            own = (np.cumsum(whole) - 1)[owner[kept]]
            polygons[whole] = shapely.polygons(rings[kept], indices=own)
        return polygons

    def moments(self, start: Ints, stop: Ints, ring: Ints) -> Moments:
        """Return the moments of the points from `start` (n,) up to `stop` (n,) of rings (n,)."""
        count = np.maximum(stop - start, 1)
        x, y, *moments = spread(count, self.summed(stop, ring) - self.summed(start, ring))
        return Moments(count.astype(np.float64), np.stack([x, y], axis=1), *moments)


def spread(count: Ints, sums: Ints | Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return the mean, as x and y, and `even`, `odd` and `half` of `Moments`, of sets of points of
    any shape, given their sums (5, ...).
    """
    x, y, xx, xy, yy = sums / count
    xx, xy, yy = ((square - mean) / STEPS**2 for square, mean in (
        (xx, x * x), (xy, x * y), (yy, y * y)
    ))  # fmt: skip
    return x / STEPS, y / STEPS, (xx - yy) / 2, xy, (xx + yy) / 2


def _points(xy: Floats, ring: Ints, count: int) -> tuple[Ints, Ints, Ints]:
    """Return (rings,) the number of pixel edges of rings, and (m,) x and (m,) y of the middle of
    each, relative to the ring's first vertex and in 1 / `STEPS`.

    Args:
        xy: (vertices, 2) vertices of closed rings.
        ring: (vertices,) their rings.
        count: Number of rings.
    """
    x, y = np.ascontiguousarray(xy.T).astype(np.int64)
    same = ring[1:] == ring[:-1]
    across, down = np.diff(x)[same], np.diff(y)[same]
    length = np.abs(across) + np.abs(down)
    size = np.bincount(ring[1:][same], length, count).astype(np.int64)
    # The steps of a closed ring add up to 0, so each ring begins at 0.
    steps = (np.repeat(np.sign(span).astype(np.int8), length) for span in (across, down))
    x, y = (STEPS * np.cumsum(step, dtype=np.int64) - STEPS // 2 * step for step in steps)
    return size, x, y


@dataclass(frozen=True)
class Moments(Columns):
    """Moments of sets of points.

    Args:
        count: (n,) number of points.
        mean: (n, 2) their mean.
        even, odd, half: (n,) (xx - yy) / 2, xy and (xx + yy) / 2 of the covariance. The mean square
            of the distances to a line of angle a through the mean is half - even cos 2a - odd sin
            2a.
    """

    count: Floats
    mean: Floats
    even: Floats
    odd: Floats
    half: Floats

    @property
    def angle(self) -> Floats:
        """(n,) direction of the line that fits best, in radians."""
        return np.asarray(np.arctan2(self.odd, self.even) / 2, np.float64)
