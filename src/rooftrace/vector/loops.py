"""Rings of many polygons as one array of vertices, and lines fitted to stretches of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["Loops", "differences", "find_vertices", "moments_between", "principal_axes"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Polygons = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Loops:
    """Closed rings, one after the other, without the vertices that close them.

    Args:
        vertex: (n, 2).
        first: (rings + 1,) where each begins.
        ring: (n,) which one a vertex is of.
    """

    vertex: Floats
    first: Ints
    ring: Ints

    @classmethod
    def of(cls, rings: Polygons) -> Loops:
        size = np.asarray(shapely.get_num_coordinates(rings), np.int64)
        vertex, ring = shapely.get_coordinates(rings, return_index=True)
        kept = np.ones(len(vertex), np.bool_)
        kept[np.cumsum(size) - 1] = False
        return cls(vertex[kept], np.concatenate([[0], np.cumsum(size - 1)]), ring[kept])

    def moved(self, by: Floats) -> Loops:
        """Each ring by its own vector (rings, 2)."""
        return Loops(self.vertex + by[self.ring], self.first, self.ring)

    @property
    def after(self) -> Ints:
        """(n,) the vertex after each."""
        after = np.arange(1, self.first[-1] + 1)
        after[self.first[1:] - 1] = self.first[:-1]
        return after

    @property
    def before(self) -> Ints:
        """(n,) the vertex before each."""
        before = np.arange(-1, self.first[-1] - 1)
        before[self.first[:-1]] = self.first[1:] - 1
        return before


def find_vertices(stairs: Loops, outline: Loops) -> tuple[Ints, NDArray[np.bool_]]:
    """(corners,) which vertex of the stairs each corner is, and whether it is one.

    A ring has no vertex twice.
    """
    x, y = stairs.vertex.T
    left, top = int(x.min()), int(y.min())
    width, height = int(x.max()) - left + 1, int(y.max()) - top + 1

    def key(loops: Loops) -> Ints:
        x, y = loops.vertex.astype(np.int64).T
        return np.asarray((loops.ring * height + y - top) * width + x - left, np.int64)

    keys = key(stairs)
    order = np.argsort(keys)
    wanted = key(outline)
    at = order[np.searchsorted(keys[order], wanted).clip(max=len(order) - 1)]
    return at, keys[at] == wanted


def moments_between(stairs: Loops, outline: Loops, at: Ints) -> Floats:
    """(corners, 6) length, x, y, xx, xy, yy, integrated along the stairs to the next corner."""
    step = stairs.vertex[stairs.after] - stairs.vertex
    (x, y), (dx, dy) = (stairs.vertex + step / 2).T, step.T
    # In twelfths all are whole numbers, whose sums do not depend on the rings before.
    squares = [12 * x * x + dx * dx, 12 * x * y + dx * dy, 12 * y * y + dy * dy]
    length = np.hypot(dx, dy)
    to = at[outline.after]
    # Past the ring's first vertex the sums begin anew.
    wraps = np.flatnonzero(to <= at)
    ring = outline.ring[wraps]
    start, stop = stairs.first[ring], stairs.first[ring + 1]
    sums = np.zeros(len(x) + 1)
    total = np.empty((len(at), 6))
    for column, (term, parts) in enumerate(
        zip([np.ones(len(x)), x, y, *squares], [1, 1, 1, 12, 12, 12])
    ):
        np.cumsum(term * length, out=sums[1:])
        between = sums[to] - sums[at]
        between[wraps] += sums[stop] - sums[start]
        total[:, column] = between / parts
    return total


def principal_axes(moments: Floats) -> tuple[Floats, Floats]:
    """Mean point and unit direction of the principal axis of each row of `moments_between`."""
    mean = moments[:, 1:3] / moments[:, :1]
    xx, xy, yy = (moments[:, 3:] / moments[:, :1]).T
    x, y = mean.T
    angle = np.arctan2(2 * (xy - x * y), (xx - x * x) - (yy - y * y)) / 2
    return mean, np.stack([np.cos(angle), np.sin(angle)], axis=1)


def differences(
    stairs: Loops, outline: Loops, at: Ints, moved: Floats, direction: Floats
) -> tuple[Floats, Floats]:
    """How far the stairs and the moved outline lie apart, as areas that add up to a bound.

    The two differ by closed curves, one for each edge of the outline: along the stairs from its one
    corner to the other, and back along the edge. The area in such a curve is at most what lies
    between its segments and their feet on the edge's line.

    Returns:
        (vertices,) of each step of the stairs, and (corners,) of the ways from corners of the
        stairs to those of the outline.
    """
    along = moved[outline.after] - moved
    length = np.hypot(along[:, 0], along[:, 1])[:, None]
    along = np.where(length > 0, along / np.where(length > 0, length, 1), direction)

    def strip(one: Floats, other: Floats, edge: Ints) -> Floats:
        unit = along[edge]
        a, b = one - moved[edge], other - moved[edge]
        run = np.abs(((b - a) * unit).sum(axis=1))
        away = [np.abs(p[:, 0] * unit[:, 1] - p[:, 1] * unit[:, 0]) for p in (a, b)]
        return np.asarray(run * (away[0] + away[1]) / 2)

    # Which edge of the outline stands for each step: that of the last corner up to it.
    order = np.argsort(at, kind="stable")
    place = np.cumsum(np.bincount(at, minlength=len(stairs.vertex))) - 1
    wraps = (place < 0) | (at[order][place] < stairs.first[stairs.ring])
    place[wraps] = outline.first[stairs.ring[wraps] + 1] - 1
    steps = strip(stairs.vertex, stairs.vertex[stairs.after], order[place])
    here = np.arange(len(moved))
    corner = outline.vertex
    return steps, strip(corner, moved, here) + strip(corner, moved, outline.before)
