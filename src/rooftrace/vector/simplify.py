"""Straight outlines from polygons that run along pixel edges."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["MIN_IOU", "simplify_staircase"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Polygons = NDArray[np.object_]

# A simpler outline has to remain the same building.
MIN_IOU = 0.85
# Neighbours that meet at a flatter angle than this have no well-placed intersection.
_MIN_SINE = 0.3
# How far a fitted corner may lie from the pixel corner it stands for, in tolerances.
_MAX_SHIFT = 1.5


def simplify_staircase(polygons: Polygons, tolerance_px: float) -> Polygons:
    """Outlines with few vertices instead of stairs.

    Douglas-Peucker finds which pixel corners are corners of the building. A line is then fitted to
    the stairs between every two of them (least squares over the outline's length), and corners move
    to where the lines meet, so that an edge runs through the middle of its stairs. A polygon whose
    fit is not valid or has an IoU below `MIN_IOU` with its pixels stays with Douglas-Peucker, and
    where that fails too, as it came.

    Args:
        polygons: (n,) valid shapely polygons on whole pixel coordinates, as `trace` makes them.
        tolerance_px: of Douglas-Peucker, at least 0; 1.25 to 1.5 takes the stairs away.

    Returns:
        (n,) valid polygons in the same order.
    """
    result = polygons.copy()
    if tolerance_px <= 0 or not len(polygons):
        return result
    drawn = np.asarray(shapely.simplify(polygons, tolerance_px), np.object_)
    todo = np.arange(len(polygons))
    for candidate in (_fitted(polygons, drawn, tolerance_px), drawn):
        good = _acceptable(candidate[todo], polygons[todo])
        result[todo[good]] = candidate[todo[good]]
        todo = todo[~good]
    return result


def _acceptable(candidate: Polygons, raw: Polygons) -> NDArray[np.bool_]:
    good = np.asarray(shapely.is_valid(candidate) & ~shapely.is_empty(candidate))
    common = np.zeros(len(raw))
    common[good] = shapely.area(shapely.intersection(candidate[good], raw[good]))
    union = shapely.area(candidate) + shapely.area(raw) - common
    return np.asarray(good & (common >= MIN_IOU * union))


def _fitted(raw: Polygons, drawn: Polygons, tolerance_px: float) -> Polygons:
    """`drawn`, whose vertices are some of those of `raw`, with corners where fitted lines meet."""
    rings, owner = shapely.get_rings(raw, return_index=True)
    vertex, first, ring = _open(rings)
    corner, begin, corner_ring = _open(shapely.get_rings(drawn))
    # Near the origin squares of coordinates keep their digits.
    origin = vertex[first[:-1]]
    at = _find(vertex, ring, corner, corner_ring)
    sums = _moments(vertex - origin[ring], _next_in_ring(first))
    # From each corner to the next one along the outline, past the ring's first vertex or not.
    to, stop, start = at[_next_in_ring(begin)], first[corner_ring + 1], first[corner_ring]
    passes = (to <= at)[:, None]
    moments = sums[to] - sums[at] + np.where(passes, sums[stop] - sums[start], 0)
    mean, direction = _lines(moments)
    before = np.empty_like(at)
    before[_next_in_ring(begin)] = np.arange(len(at))
    local = corner - origin[corner_ring]
    moved = _meet(local, mean[before], direction[before], mean, direction, tolerance_px)
    made = np.asarray(shapely.linearrings(moved + origin[corner_ring], indices=corner_ring))
    return np.asarray(shapely.polygons(made, indices=owner), np.object_)


def _open(rings: Polygons) -> tuple[Floats, Ints, Ints]:
    """Vertices without the closing ones, (rings + 1,) where each ring begins, each one's ring."""
    size = np.asarray(shapely.get_num_coordinates(rings), np.int64)
    vertex, ring = shapely.get_coordinates(rings, return_index=True)
    kept = np.ones(len(vertex), np.bool_)
    kept[np.cumsum(size) - 1] = False
    return vertex[kept], np.concatenate([[0], np.cumsum(size - 1)]), ring[kept]


def _next_in_ring(first: Ints) -> Ints:
    """(vertices,) the index of each one's successor, given where the rings begin."""
    after = np.arange(1, first[-1] + 1)
    after[first[1:] - 1] = first[:-1]
    return after


def _find(vertex: Floats, ring: Ints, corner: Floats, corner_ring: Ints) -> Ints:
    """(corners,) which vertex of its ring each corner is; a ring has no vertex twice."""
    low = vertex.min(axis=0)
    width, height = (np.ptp(vertex, axis=0) + 1).astype(np.int64)

    def key(xy: Floats, of: Ints) -> Ints:
        x, y = (xy - low).astype(np.int64).T
        return np.asarray((of * height + y) * width + x, np.int64)

    keys = key(vertex, ring)
    order = np.argsort(keys)
    return order[np.searchsorted(keys[order], key(corner, corner_ring))]


def _moments(vertex: Floats, after: Ints) -> Floats:
    """(vertices + 1, 6) sums over the edges before each vertex: length, x, y, xx, xy, yy."""
    step = vertex[after] - vertex
    middle = vertex + step / 2
    length = np.hypot(step[:, 0], step[:, 1])
    (x, y), (dx, dy) = middle.T, step.T
    ones = np.ones(len(x))
    squares = [x * x + dx * dx / 12, x * y + dx * dy / 12, y * y + dy * dy / 12]
    sums = np.zeros((len(vertex) + 1, 6))
    np.cumsum(np.stack([ones, x, y, *squares], axis=1) * length[:, None], axis=0, out=sums[1:])
    return sums


def _lines(moments: Floats) -> tuple[Floats, Floats]:
    """Mean point and unit direction of the principal axis of each row of `_moments`."""
    mean = moments[:, 1:3] / moments[:, :1]
    xx, xy, yy = (moments[:, 3:] / moments[:, :1]).T
    x, y = mean.T
    angle = np.arctan2(2 * (xy - x * y), (xx - x * x) - (yy - y * y)) / 2
    return mean, np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _meet(
    corner: Floats, mean0: Floats, along0: Floats, mean1: Floats, along1: Floats, tolerance: float
) -> Floats:
    """Where line 0 meets line 1; where that is ill-placed, midway between the feet on the two."""
    sine = along0[:, 0] * along1[:, 1] - along0[:, 1] * along1[:, 0]
    gap = mean1 - mean0
    steep = np.abs(sine) >= _MIN_SINE
    reach = (gap[:, 0] * along1[:, 1] - gap[:, 1] * along1[:, 0]) / np.where(steep, sine, 1)
    crossing = mean0 + reach[:, None] * along0
    near = np.hypot(*(crossing - corner).T) <= _MAX_SHIFT * tolerance
    feet = [
        mean + ((corner - mean) * along).sum(axis=1)[:, None] * along
        for mean, along in ((mean0, along0), (mean1, along1))
    ]
    return np.where((steep & near)[:, None], crossing, (feet[0] + feet[1]) / 2)
