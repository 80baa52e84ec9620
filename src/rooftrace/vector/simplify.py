"""Straight outlines from polygons that run along pixel edges."""

from __future__ import annotations

from dataclasses import dataclass

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
    drawn = _douglas_peucker(polygons, tolerance_px)
    fitted, apart = _fitted(polygons, drawn, tolerance_px)
    todo = np.arange(len(polygons))
    for candidate, bound in ((fitted, apart), (drawn, np.full(len(drawn), np.inf))):
        good = _acceptable(candidate[todo], polygons[todo], bound[todo])
        result[todo[good]] = candidate[todo[good]]
        todo = todo[~good]
    return result


def _douglas_peucker(polygons: Polygons, tolerance_px: float) -> Polygons:
    """(n,) with the same rings, each of some of its vertices.

    The simplification that watches over topology takes twelve times as long as the one that does
    not; it is left to those polygons that lost a hole, vanished or crossed themselves without it
    (GEOS mends a crossing with vertices of its own, between the whole numbers).
    """
    drawn = np.asarray(
        shapely.simplify(polygons, tolerance_px, preserve_topology=False), np.object_
    )
    lost = (shapely.get_type_id(drawn) != shapely.GeometryType.POLYGON) | shapely.is_empty(drawn)
    lost |= shapely.get_num_interior_rings(drawn) != shapely.get_num_interior_rings(polygons)
    vertex, owner = shapely.get_coordinates(drawn, return_index=True)
    lost[owner[(vertex != np.floor(vertex)).any(axis=1)]] = True
    drawn[lost] = shapely.simplify(polygons[lost], tolerance_px)
    return drawn


def _acceptable(candidate: Polygons, raw: Polygons, apart: Floats) -> NDArray[np.bool_]:
    """Valid, and the IoU is large enough; `apart` bounds the symmetric difference from above."""
    good = np.asarray(shapely.is_valid(candidate) & ~shapely.is_empty(candidate))
    both = np.asarray(shapely.area(candidate) + shapely.area(raw))
    # IoU = (A + B - D) / (A + B + D), D being the symmetric difference. For most the bound will do.
    unsure = np.flatnonzero(good & ~(both - apart >= MIN_IOU * (both + apart)))
    common = np.asarray(shapely.area(shapely.intersection(candidate[unsure], raw[unsure])))
    good[unsure] = common >= MIN_IOU * (both[unsure] - common)
    return good


def _fitted(raw: Polygons, drawn: Polygons, tolerance_px: float) -> tuple[Polygons, Floats]:
    """`drawn`, whose vertices are some of those of `raw`, with corners where fitted lines meet.

    Also (n,) a bound from above of the area in which it differs from `raw`.
    """
    rings, owner = shapely.get_rings(raw, return_index=True)
    stairs, outline = _Loops.of(rings), _Loops.of(shapely.get_rings(drawn))
    at, found = _find(stairs, outline)
    # Near the origin squares of coordinates keep their digits.
    origin = stairs.vertex[stairs.first[:-1]]
    stairs, outline = stairs.moved(-origin), outline.moved(-origin)
    mean, direction = _lines(_moments_between(stairs, outline, at))
    before, after, corner = outline.before, outline.after, outline.vertex
    moved = _meet(corner, mean[before], direction[before], mean, direction, tolerance_px)
    # A cut corner, or an edge that the fit turned round: its neighbours meet without it.
    edge, chord = moved[after] - moved, corner[after] - corner
    length = np.hypot(chord[:, 0], chord[:, 1])
    short = (edge * chord).sum(axis=1) < tolerance_px * length
    short &= ~short[before] & (np.diff(outline.first) > 4)[outline.ring]
    met = _meet(
        *((corner + corner[after]) / 2, mean[before], direction[before]),
        *(mean[after], direction[after], tolerance_px),
    )
    moved[after[short]] = moved[short] = met[short]
    bound = np.zeros(len(raw))
    apart, ends = _differences(stairs, outline, at, moved, direction)
    np.add.at(bound, owner[stairs.ring], apart)
    np.add.at(bound, owner[outline.ring], ends)
    bound[owner[outline.ring[~found]]] = np.inf
    ring = outline.ring[~short]
    made = np.asarray(shapely.linearrings((moved + origin[outline.ring])[~short], indices=ring))
    return np.asarray(shapely.polygons(made, indices=owner), np.object_), bound


@dataclass(frozen=True, slots=True)
class _Loops:
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
    def of(cls, rings: Polygons) -> _Loops:
        size = np.asarray(shapely.get_num_coordinates(rings), np.int64)
        vertex, ring = shapely.get_coordinates(rings, return_index=True)
        kept = np.ones(len(vertex), np.bool_)
        kept[np.cumsum(size) - 1] = False
        return cls(vertex[kept], np.concatenate([[0], np.cumsum(size - 1)]), ring[kept])

    def moved(self, by: Floats) -> _Loops:
        """Each ring by its own vector (rings, 2)."""
        return _Loops(self.vertex + by[self.ring], self.first, self.ring)

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


def _find(stairs: _Loops, outline: _Loops) -> tuple[Ints, NDArray[np.bool_]]:
    """(corners,) which vertex of the stairs each corner is, and whether it is one.

    A ring has no vertex twice.
    """
    low = stairs.vertex.min(axis=0)
    width, height = (np.ptp(stairs.vertex, axis=0) + 1).astype(np.int64)

    def key(loops: _Loops) -> Ints:
        x, y = (loops.vertex - low).astype(np.int64).T
        return np.asarray((loops.ring * height + y) * width + x, np.int64)

    keys = key(stairs)
    order = np.argsort(keys)
    wanted = key(outline)
    at = order[np.searchsorted(keys[order], wanted).clip(max=len(order) - 1)]
    return at, keys[at] == wanted


def _moments_between(stairs: _Loops, outline: _Loops, at: Ints) -> Floats:
    """(corners, 6) length, x, y, xx, xy, yy, integrated along the stairs to the next corner."""
    step = stairs.vertex[stairs.after] - stairs.vertex
    (x, y), (dx, dy) = (stairs.vertex + step / 2).T, step.T
    squares = [x * x + dx * dx / 12, x * y + dx * dy / 12, y * y + dy * dy / 12]
    terms = np.stack([np.ones(len(x)), x, y, *squares], axis=1)
    sums = np.zeros((len(x) + 1, 6))
    np.cumsum(terms * np.hypot(dx, dy)[:, None], axis=0, out=sums[1:])
    to = at[outline.after]
    start, stop = stairs.first[outline.ring], stairs.first[outline.ring + 1]
    # Past the ring's first vertex the sums begin anew.
    return sums[to] - sums[at] + np.where((to <= at)[:, None], sums[stop] - sums[start], 0)


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


def _differences(
    stairs: _Loops, outline: _Loops, at: Ints, moved: Floats, direction: Floats
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
    order = np.argsort(at)
    place = np.searchsorted(at[order], np.arange(len(stairs.vertex)), side="right") - 1
    wraps = (place < 0) | (at[order][place] < stairs.first[stairs.ring])
    place[wraps] = outline.first[stairs.ring[wraps] + 1] - 1
    steps = strip(stairs.vertex, stairs.vertex[stairs.after], order[place])
    here = np.arange(len(moved))
    corner = outline.vertex
    return steps, strip(corner, moved, here) + strip(corner, moved, outline.before)
