"""Rings of many polygons as one array of vertices, and lines fitted to stretches of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["Loops", "find_vertices", "moments_between", "principal_axes"]

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

    def chosen(self, kept: NDArray[np.bool_]) -> Loops:
        """Some of the rings (rings,), numbered anew."""
        size = np.diff(self.first)[kept]
        vertex = self.vertex[kept[self.ring]]
        return Loops(
            vertex, np.concatenate([[0], np.cumsum(size)]), np.repeat(np.arange(len(size)), size)
        )  # fmt: skip

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


def find_vertices(stairs: Loops, outline: Loops) -> Ints:
    """(corners,) which vertex of the stairs each corner is, or any where it is none.

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
    place = np.searchsorted(keys[order], key(outline)).clip(max=len(order) - 1)
    return np.asarray(order[place], np.int64)


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
