"""Outlines with right angles and main directions where a building has them.

The main direction is the one that most of the walls have (Duchêne et al. 2003, "Quantitative and
qualitative description of building orientation", weighs them by length). Edges are aligned with it
or perpendicular to it. Short edges are removed and their neighbours extended until they intersect.
The remaining edges are fitted by least squares (Sester 2005, doi:10.1080/13658810500161179, does so
building by building). All polygons are processed at once, as arrays of their vertices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from rooftrace.vector.simplify import (
    RingOrder,
    SimplifiedOutlines,
    acceptable,
    intersect_lines,
    principal_axes,
    simplify_staircase,
)
from rooftrace.vector.trace import Bools, Columns, Floats, Ints, Polygons

# The values below were chosen on noisy masks of generated towns and of footprints that people drew,
# see bench/outlines.py.
#
# Maximum angle between an edge and the main direction, or its perpendicular, for alignment.
_SNAP = np.radians(20)
# Maximum displacement of an end in tolerances; a long wall that deviates more is meant so.
_TURN = 1.0
# Minimum share of the outline that follows the main direction; for a circle it is less than half.
_MIN_SHARE = 0.6
# Maximum area, in squares of the tolerance, by which the outline may change to remove one corner.
_CORNER = 6.0
# Factor on that area where a right angle results, since networks round corners off.
_UPRIGHT = 2.0
# Number of bins of the quarter turn in the search for the main direction.
_BINS = 30
# Kinds of edges, and kinds of merges.
_ALONG, _ACROSS, _OBLIQUE = range(3)
_TWO, _THREE, _BEVEL = range(3)
# Rings with fewer edges than this lose one edge at a time, so that four remain.
_FEW = 12
# Grid of the corners in pixels: a polygon has the same shape at any position.
_GRID_PX = 1 / 1024
# Number of polygons that are processed at once, to limit memory.
_AT_ONCE = 1 << 14


class Regularized(NamedTuple):
    """Result of `regularize`.

    Args:
        polygons: (n,) valid polygons.
        accepted: (n,) bool, True for a regular outline, False where `simplify_staircase` made the
            polygon.
    """

    polygons: Polygons
    accepted: Bools


def regularize(raw_px: Polygons, tolerance_px: float) -> Regularized:
    """Return polygons with right angles where the building has them.

    A regular outline is used if it is valid, has as many holes and an IoU of at least `MIN_IOU`
    with the pixels, and if most of the outline follows the main direction. Round and oblique shapes
    stay. Each polygon is processed independently, and the result does not depend on its position.

    Args:
        raw_px: (n,) valid shapely polygons on integer pixel coordinates, as `trace` makes them.
        tolerance_px: Maximum distance between an outline and the staircase, at least 0; 0 changes
            nothing.

    Returns:
        (n,) polygons in the same order.
    """
    polygons = raw_px.copy()
    accepted = np.zeros(len(raw_px), np.bool_)
    if tolerance_px > 0:
        for first in range(0, len(raw_px), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            raw = raw_px[part]
            drawn = SimplifiedOutlines.of(raw, tolerance_px)
            main, share = _main_directions(drawn, len(raw))
            regular = share >= _MIN_SHARE
            chosen = _regular(drawn.chosen(regular), main[regular], tolerance_px)
            polygons[part][regular] = chosen
            regular[regular] = acceptable(chosen, raw[regular])
            rest = ~regular
            polygons[part][rest] = simplify_staircase(raw[rest], tolerance_px, drawn.chosen(rest))
            accepted[part] = regular
    return Regularized(polygons, accepted)


@dataclass(frozen=True)
class _Edges(Columns):
    """Edges of rings, one ring after the other, each polygon rotated to its main direction.

    Args:
        moments: (n, 6) of the staircase, see `SimplifiedOutlines`.
        start: (n, 2) start of each edge's staircase.
        kind: (n,) along the main direction, across it, or oblique.
        ring: (n,) ring of each edge.
    """

    moments: Floats
    start: Floats
    kind: Ints
    ring: Ints


def _regular(drawn: SimplifiedOutlines, main: Floats, tolerance_px: float) -> Polygons:
    """Return (n,) polygons with edges along the main directions (n,), in radians, and across
    them.
    """
    cos, sin = np.cos(-main), np.sin(-main)
    rotation = np.moveaxis(np.array([[cos, -sin], [sin, cos]]), -1, 0)
    turn = rotation[drawn.owner[drawn.ring]]
    size, x, y, xx, xy, yy = drawn.moments.T
    mean = np.einsum("nij,nj->ni", turn, np.stack([x, y], axis=1))
    square = np.moveaxis(np.array([[xx, xy], [xy, yy]]), -1, 0)
    square = turn @ square @ np.swapaxes(turn, 1, 2)
    moments = np.column_stack([size, mean, square[:, 0, 0], square[:, 0, 1], square[:, 1, 1]])
    start = np.einsum("nij,nj->ni", turn, drawn.vertex)
    chord = drawn.vertex[RingOrder.by_ring(drawn.ring).after] - drawn.vertex
    edges = _Edges(moments, start, _kinds(moments, chord, tolerance_px), drawn.ring)
    corner, ring = _corners(_merged(edges, tolerance_px), tolerance_px)
    back = np.einsum("nji,nj->ni", rotation[drawn.owner[ring]], corner)
    return drawn.build_polygons(np.rint(back / _GRID_PX) * _GRID_PX, ring)


def _quarter(angle: Floats) -> Floats:
    """Return the angle nearest to 0 that is equal modulo a quarter turn."""
    return (angle + np.pi / 4) % (np.pi / 2) - np.pi / 4


def _main_directions(drawn: SimplifiedOutlines, count: int) -> tuple[Floats, Floats]:
    """Return the direction of most of each polygon's outline, modulo a quarter turn.

    The fullest bins of the edges' directions, weighted by length, give an approximation. Then all
    edges near it turn together to the minimum of the squared distances of their staircases.

    Args:
        drawn: Simplified outlines.
        count: Number of polygons.

    Returns:
        (count,) radians, and (count,) the share of the outline's length that follows the direction.
    """
    polygon = drawn.owner[drawn.ring]
    _, unit = principal_axes(drawn.moments)
    angle = np.arctan2(unit[:, 1], unit[:, 0])
    chord = drawn.vertex[RingOrder.by_ring(drawn.ring).after] - drawn.vertex
    length = np.hypot(chord[:, 0], chord[:, 1])
    place = (angle % (np.pi / 2)) / (np.pi / 2) * _BINS
    low = np.floor(place).astype(np.int64)
    cell = np.concatenate([polygon * _BINS + low % _BINS, polygon * _BINS + (low + 1) % _BINS])
    weight = np.concatenate([length * (low + 1 - place), length * (place - low)])
    filled = np.bincount(cell, weight, count * _BINS).reshape(count, _BINS)
    around = sum(np.roll(filled, k, axis=1) * (4 - abs(k)) for k in range(-3, 4))
    main = np.argmax(around, axis=1) * (np.pi / 2 / _BINS)

    size, x, y, xx, xy, yy = drawn.moments.T
    xx, xy, yy = xx - x * x / size, xy - x * y / size, yy - y * y / size
    for _ in range(2):
        off = angle - main[polygon]
        near = np.abs(_quarter(off)) <= _SNAP
        # Perpendicular edges are turned by a right angle, and then all have one principal axis.
        across = np.abs(np.sin(off)) > np.sqrt(0.5)
        spread = np.where(across, yy - xx, xx - yy) * near
        slant = np.where(across, -xy, xy) * near
        main = (
            np.arctan2(2 * np.bincount(polygon, slant, count), np.bincount(polygon, spread, count))
            / 2
        )
    off = angle - main[polygon]
    near = np.abs(_quarter(off)) <= _SNAP
    whole = np.bincount(polygon, length, count)
    return main, np.bincount(polygon, length * near, count) / whole


def _kinds(moments: Floats, chord: Floats, tolerance_px: float) -> Ints:
    """Return (n,) the kinds of edges, given their staircases and chords (n, 2)."""
    _, unit = principal_axes(moments)
    angle = np.arctan2(unit[:, 1], unit[:, 0])
    off = np.abs(_quarter(angle))
    # Displacement of the ends when an edge is aligned.
    away = np.hypot(*chord.T) * np.sin(off) / 2
    # The staircase of a short edge may run anywhere within the tolerance.
    oblique = (away > tolerance_px / 2) & ((off > _SNAP) | (away > _TURN * tolerance_px))
    across = np.abs(np.sin(angle)) > np.sqrt(0.5)
    return np.where(oblique, _OBLIQUE, np.where(across, _ACROSS, _ALONG))


def _merged(edges: _Edges, tolerance_px: float) -> _Edges:
    """Return the edges without those that only the pixel grid caused.

    Two neighbours become one. Three become one where the outer two are parallel. An oblique edge is
    removed where it cuts the corner of two perpendicular ones. Each of these happens only if the
    outline changes by less area than a corner is worth. In each round those merges are applied that
    cost least among their neighbours, until none is left.
    """
    worth_px = _CORNER * tolerance_px**2
    finished: list[_Edges] = []
    while True:
        order = RingOrder.by_ring(edges.ring)
        way, cost = _cheapest_way(edges, order)
        cost[cost > worth_px] = np.inf
        chosen = _chosen(cost, order)
        # Merges of a ring do not depend on other rings, so one without any is finished.
        busy = np.zeros(len(edges), np.bool_)
        busy[order.first[chosen]] = True
        busy = busy[order.first]
        finished.append(edges.of(~busy))
        if not busy.any():
            whole = _Edges.joined(finished)
            return whole.of(np.argsort(whole.ring, kind="stable"))
        two, three, bevel = ((way == number) & chosen for number in (_TWO, _THREE, _BEVEL))
        moments, kind, gone = edges.moments.copy(), edges.kind.copy(), bevel | three
        before, after = order.before, order.after
        gone[after[two | three]] = True
        moments[two] += moments[after[two]]
        moments[before[three]] += moments[three] + moments[after[three]]
        bent = two & (kind != kind[after])
        span = edges.start[after[after[bent]]] - edges.start[bent]
        kind[bent] = _kinds(moments[bent], span, tolerance_px)
        edges = replace(edges, moments=moments, kind=kind).of(busy & ~gone)


def _cheapest_way(edges: _Edges, order: RingOrder) -> tuple[Ints, Floats]:
    """Return (n,) the best kind of merge at each edge, and (n,) its cost in area per removed
    corner.

    Merges of two edges belong to the first of them, bevels to the edge itself, merges of three to
    the middle one.
    """
    kind, moments, before, after = edges.kind, edges.moments, order.before, order.after
    chord = edges.start[after] - edges.start
    width, height = np.ascontiguousarray(chord.T)
    length = np.hypot(width, height)

    def between(one: Ints, other: Ints) -> Floats:
        # Two parallel edges move to a common line, which removes both corners of the jog.
        axis = 2 - kind[one].clip(max=1)
        place = moments[one, axis] / moments[one, 0], moments[other, axis] / moments[other, 0]
        gap = np.abs(place[0] - place[1])
        return np.asarray(gap * length[one] * length[other] / (length[one] + length[other]))

    kind_before, kind_after = kind[before], kind[after]
    straight = kind < _OBLIQUE
    cost = np.full((3, len(kind)), np.inf)
    parallel = np.flatnonzero((kind == kind_after) & straight)
    cost[_TWO, parallel] = between(parallel, after[parallel])
    oblique = np.flatnonzero(~straight | (kind_after == _OBLIQUE))
    next_ = after[oblique]
    cost[_TWO, oblique] = (
        np.abs(width[oblique] * height[next_] - height[oblique] * width[next_]) / 2
    )
    joins = (kind_before == kind_after) & (kind_before < _OBLIQUE) & (kind != kind_before)
    middle = np.flatnonzero(joins)
    cost[_THREE, middle] = between(before[middle], after[middle])
    cuts = np.flatnonzero(~straight & (kind_before + kind_after == _ALONG + _ACROSS))
    cost[_BEVEL, cuts] = np.abs(width[cuts] * height[cuts]) / 2 / _UPRIGHT
    # Four edges remain.
    cost[:, order.size <= 4] = np.inf
    cost[_THREE, order.size <= 5] = np.inf
    way = np.argmin(cost, axis=0)
    return way, cost[way, np.arange(len(kind))]


def _chosen(cost: Floats, order: RingOrder) -> Bools:
    """Return (n,) True for edges with a finite cost that is lower than that of the two on either
    side.

    In a ring of few edges only one is chosen; of two with the same cost, the first.
    """
    finite = np.flatnonzero(np.isfinite(cost))
    rank = np.full(len(cost), len(cost))
    rank[finite[np.argsort(cost[finite], kind="stable")]] = np.arange(len(finite))
    before, after = order.before, order.after
    own, back, on = rank[finite], before[finite], after[finite]
    cheapest = np.minimum(rank[back], rank[on])
    np.minimum(cheapest, np.minimum(rank[before[back]], rank[after[on]]), out=cheapest)
    lowest = np.full(len(cost), len(cost))
    np.minimum.at(lowest, order.first[finite], own)
    is_lowest = own == lowest[order.first[finite]]
    chosen = np.zeros(len(cost), np.bool_)
    chosen[finite] = (own <= cheapest) & (is_lowest | (order.size[finite] >= _FEW))
    return chosen


def _corners(edges: _Edges, tolerance_px: float) -> tuple[Floats, Ints]:
    """Return the intersections of successive edges; two parallel edges are joined by a
    perpendicular one.

    Returns:
        (m, 2) corners, and (m,) the ring of each.
    """
    after = RingOrder.by_ring(edges.ring).after
    one, other = edges.kind, edges.kind[after]
    corner = edges.start[after]
    mean, along = principal_axes(edges.moments)
    straight = one < _OBLIQUE
    along[straight] = np.eye(2)[one[straight]]
    met = intersect_lines(corner, mean, along, mean[after], along[after], tolerance_px)
    upright = one + other == _ALONG + _ACROSS
    # An edge along the main direction fixes y, one across it fixes x.
    met[upright] = np.where(one[:, None] == [_ALONG, _ACROSS], mean[after], mean)[upright]
    jog = (one == other) & straight
    times = 1 + jog
    corners = np.repeat(met, times, axis=0)
    last = np.cumsum(times) - 1
    for place, edge in ((last - 1, np.arange(len(one))), (last, after)):
        foot = np.where(one[:, None] == [_ACROSS, _ALONG], mean[edge], corner)
        corners[place[jog]] = foot[jog]
    return corners, np.repeat(edges.ring, times)
