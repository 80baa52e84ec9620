"""Outlines as a map-maker draws them: right angles and main directions where a building has them.

The main direction is the one that most of the walls have (Duchêne et al. 2003, "Quantitative and
qualitative description of building orientation", weighs them by length). Edges take it or stand
upright on it, short ones go and their neighbours are drawn on until they meet, and what is left is
fitted by least squares (Sester 2005, doi:10.1080/13658810500161179, does so building by building).
All polygons are worked on at once, as arrays of their vertices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rooftrace.vector.loops import Loops, principal_axes
from rooftrace.vector.simplify import Drawn, acceptable, meet, simplify_staircase

__all__ = ["Regularized", "regularize"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Polygons = NDArray[np.object_]

# The figures below were chosen on noisy masks of generated towns and of footprints that people
# drew, see bench/outlines.py.
#
# Edges nearer than this to the main direction, or to the one across it, take it,
_SNAP = np.radians(20)
# unless an end would move by more than so many tolerances: a long wall that is askew is meant so.
_TURN = 1.0
# The share of a building's outline that is near its main direction; of a circle it is less than
# half.
_MIN_SHARE = 0.6
# What a corner less is worth: the area, in squares of the tolerance, that the outline may move
# over,
_CORNER = 6.0
# and so many times that where a right angle comes of it. Networks round corners off.
_UPRIGHT = 2.0
# Bins of the quarter turn in which the main direction is looked for.
_BINS = 30
# Kinds of edges, and what becomes of them.
_ALONG, _ACROSS, _OBLIQUE = range(3)
_TWO, _THREE, _BEVEL = range(3)
# Rings of fewer edges than this lose one at a time, so that four remain.
_FEW = 12
# Corners lie on multiples of this, so that a polygon has the same shape wherever it lies.
_GRID_PX = 1 / 1024
# Polygons taken at a time, for the memory.
_AT_ONCE = 1 << 14


@dataclass(frozen=True, slots=True)
class Regularized:
    """What `regularize` makes of polygons.

    Args:
        polygons: (n,) valid.
        accepted: (n,) bool, True where the regular outline was taken, False where it did not do
            and `simplify_staircase` made the polygon.
    """

    polygons: Polygons
    accepted: Bools

    def __len__(self) -> int:
        return len(self.polygons)


def regularize(raw_px: Polygons, tolerance_px: float) -> Regularized:
    """Polygons with right angles where the building has them.

    A regular outline is taken where it is valid, has as many holes and has an IoU of at least
    `MIN_IOU` with the pixels, and where most of the outline follows the main direction: what is
    round or oblique stays so. Each polygon is made by itself, and it is the same wherever it lies.

    Args:
        raw_px: (n,) valid shapely polygons on whole pixel coordinates, as `trace` makes them.
        tolerance_px: how far an outline may lie from the stairs, at least 0; 0 leaves all as it is.

    Returns:
        (n,) polygons in the same order.
    """
    polygons = raw_px.copy()
    accepted = np.zeros(len(raw_px), np.bool_)
    if tolerance_px > 0:
        for first in range(0, len(raw_px), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            polygons[part], accepted[part] = _regularize(raw_px[part], tolerance_px)
    return Regularized(polygons, accepted)


def _regularize(raw: Polygons, tolerance_px: float) -> tuple[Polygons, Bools]:
    drawn = Drawn.of(raw, tolerance_px)
    main, share = _main_directions(drawn, len(raw))
    accepted = share >= _MIN_SHARE
    regular = _regular(drawn.chosen(accepted), main[accepted], tolerance_px)
    good = acceptable(regular, raw[accepted])
    polygons = raw.copy()
    polygons[accepted] = regular
    accepted[accepted] = good
    rest = ~accepted
    polygons[rest] = simplify_staircase(raw[rest], tolerance_px, drawn.chosen(rest))
    return polygons, accepted


def _regular(drawn: Drawn, main: Floats, tolerance_px: float) -> Polygons:
    """(n,) with edges along the main directions (n,), in radians, and across them."""
    turn = _rotation(-main)
    edges = _Edges.of(drawn, turn[drawn.owner[drawn.outline.ring]], tolerance_px)
    corner, ring = _corners(_merged(edges, tolerance_px), tolerance_px)
    back = np.einsum("nji,nj->ni", turn[drawn.owner[ring]], corner)
    return drawn.made(np.rint(back / _GRID_PX) * _GRID_PX, ring)


def _rotation(angle: Floats) -> Floats:
    """(n, 2, 2)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.moveaxis(np.array([[cos, -sin], [sin, cos]]), -1, 0)


def _quarter(angle: Floats) -> Floats:
    """The nearest to 0 of an angle's equals modulo a quarter turn."""
    return (angle + np.pi / 4) % (np.pi / 2) - np.pi / 4


def _main_directions(drawn: Drawn, count: int) -> tuple[Floats, Floats]:
    """The direction that most of each polygon's outline has, modulo a quarter turn.

    The fullest bins of the edges' directions, weighted by length, say about which; then all edges
    near it turn together to where the squared distances of their stairs are least.

    Returns:
        (count,) radians, and (count,) the share of the outline's length that is near to it.
    """
    outline, moments = drawn.outline, drawn.moments
    polygon = drawn.owner[outline.ring]
    _, unit = principal_axes(moments)
    angle = np.arctan2(unit[:, 1], unit[:, 0])
    chord = outline.vertex[outline.after] - outline.vertex
    length = np.hypot(chord[:, 0], chord[:, 1])
    place = (angle % (np.pi / 2)) / (np.pi / 2) * _BINS
    low = np.floor(place).astype(np.int64)
    cell = np.concatenate([polygon * _BINS + low % _BINS, polygon * _BINS + (low + 1) % _BINS])
    weight = np.concatenate([length * (low + 1 - place), length * (place - low)])
    filled = np.bincount(cell, weight, count * _BINS).reshape(count, _BINS)
    around = sum(np.roll(filled, k, axis=1) * (4 - abs(k)) for k in range(-3, 4))
    main = np.argmax(around, axis=1) * (np.pi / 2 / _BINS)

    size, x, y, xx, xy, yy = moments.T
    xx, xy, yy = xx - x * x / size, xy - x * y / size, yy - y * y / size
    for _ in range(2):
        off = angle - main[polygon]
        near = np.abs(_quarter(off)) <= _SNAP
        # Edges across are turned by a right angle, and then all have one principal axis.
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


@dataclass(frozen=True, slots=True)
class _Edges:
    """Edges of rings, one ring after the other, each polygon turned into its main direction.

    Args:
        moments: (n, 6) of the stairs, see `moments_between`.
        start: (n, 2) where the stairs of an edge begin.
        kind: (n,) along the main direction, across it, or oblique to both.
        ring: (n,) which ring an edge is of.
        first: (rings + 1,) where each begins.
    """

    moments: Floats
    start: Floats
    kind: Ints
    ring: Ints
    first: Ints

    @classmethod
    def of(cls, drawn: Drawn, turn: Floats, tolerance_px: float) -> _Edges:
        """Those between corners that were drawn, each turned by its own (n, 2, 2)."""
        outline, moments = drawn.outline, drawn.moments
        size, x, y, xx, xy, yy = moments.T
        mean = np.einsum("nij,nj->ni", turn, np.stack([x, y], axis=1))
        square = np.moveaxis(np.array([[xx, xy], [xy, yy]]), -1, 0)
        square = turn @ square @ np.swapaxes(turn, 1, 2)
        turned = np.column_stack([size, mean, square[:, 0, 0], square[:, 0, 1], square[:, 1, 1]])
        start = np.einsum("nij,nj->ni", turn, outline.vertex)
        chord = outline.vertex[outline.after] - outline.vertex
        kind = _kinds(turned, chord, tolerance_px)
        return cls(turned, start, kind, outline.ring, outline.first)

    @property
    def loops(self) -> Loops:
        return Loops(self.start, self.first, self.ring)

    @property
    def mean(self) -> Floats:
        """(n, 2) a point that each edge's line runs through."""
        return self.moments[:, 1:3] / self.moments[:, :1]

    def without(self, gone: Bools) -> _Edges:
        """The others."""
        kept = ~gone
        size = np.diff(self.first) - np.bincount(self.ring[gone], minlength=len(self.first) - 1)
        return _Edges(
            self.moments[kept], self.start[kept], self.kind[kept], self.ring[kept],
            np.concatenate([[0], np.cumsum(size)]),
        )  # fmt: skip


def _kinds(moments: Floats, chord: Floats, tolerance_px: float) -> Ints:
    """(n,) which kind edges are, by their stairs and the ways (n, 2) from one end to the other."""
    _, unit = principal_axes(moments)
    angle = np.arctan2(unit[:, 1], unit[:, 0])
    off = np.abs(_quarter(angle))
    # How far its ends move where an edge turns.
    away = np.hypot(*chord.T) * np.sin(off) / 2
    # The stairs of a short edge may run anywhere within the tolerance.
    oblique = (away > tolerance_px / 2) & ((off > _SNAP) | (away > _TURN * tolerance_px))
    across = np.abs(np.sin(angle)) > np.sqrt(0.5)
    return np.where(oblique, _OBLIQUE, np.where(across, _ACROSS, _ALONG))


def _merged(edges: _Edges, tolerance_px: float) -> _Edges:
    """Edges without those that only the pixels made.

    Two neighbours become one, three where the outer two are parallel, and an oblique edge goes
    where it cuts the corner of two that stand on each other: as long as that moves the outline over
    no more than a corner is worth. In each round those go first that cost least among their
    neighbours, until nothing is left to do.
    """
    worth_px = _CORNER * tolerance_px**2
    while True:
        loops, kind = edges.loops, edges.kind
        before, after = loops.before, loops.after
        way, cost = _cheapest_way(edges, before, after)
        cost[cost > worth_px] = np.inf
        chosen = _chosen(cost, edges, before, after)
        if not chosen.any():
            return edges
        two, three, bevel = ((way == number) & chosen for number in (_TWO, _THREE, _BEVEL))
        moments, kind, gone = edges.moments.copy(), kind.copy(), bevel | three
        gone[after[two | three]] = True
        moments[two] += moments[after[two]]
        moments[before[three]] += moments[three] + moments[after[three]]
        bent = two & (kind != kind[after])
        span = edges.start[after[after[bent]]] - edges.start[bent]
        kind[bent] = _kinds(moments[bent], span, tolerance_px)
        edges = replace(edges, moments=moments, kind=kind).without(gone)


def _cheapest_way(edges: _Edges, before: Ints, after: Ints) -> tuple[Ints, Floats]:
    """(n,) which way makes most of an edge, and (n,) the area that it takes for each corner less.

    Two and a bevel are named by the edge itself, and it is the former of two; three by the middle
    one.
    """
    kind, mean, size = edges.kind, edges.mean, np.diff(edges.first)[edges.ring]
    chord = edges.start[after] - edges.start
    length = np.hypot(*chord.T)

    def between(one: Ints, other: Ints) -> Floats:
        # Two parallel stretches move to their common line, which saves both corners of the jog.
        axis = 1 - kind[one].clip(max=1)
        gap = np.abs(mean[one, axis] - mean[other, axis])
        return np.asarray(gap * length[one] * length[other] / (length[one] + length[other]))

    parallel = (kind == kind[after]) & (kind < _OBLIQUE)
    oblique = (kind == _OBLIQUE) | (kind[after] == _OBLIQUE)
    triangle = np.abs(chord[:, 0] * chord[after, 1] - chord[:, 1] * chord[after, 0]) / 2
    corner = np.abs(chord[:, 0] * chord[:, 1]) / 2 / _UPRIGHT
    here = np.arange(len(kind))
    joins = (kind[before] == kind[after]) & (kind[before] < _OBLIQUE) & (kind != kind[before])
    cuts = (kind == _OBLIQUE) & (kind[before] + kind[after] == _ALONG + _ACROSS)
    cost = np.stack(
        [
            np.where(parallel, between(here, after), np.where(oblique, triangle, np.inf)),
            np.where(joins, between(before, after), np.inf),
            np.where(cuts, corner, np.inf),
        ]
    )
    # Four edges remain.
    cost[:, size <= 4] = np.inf
    cost[_THREE, size <= 5] = np.inf
    way = np.argmin(cost, axis=0)
    return way, cost[way, here]


def _chosen(cost: Floats, edges: _Edges, before: Ints, after: Ints) -> Bools:
    """(n,) those of finite cost that cost less than the two on either side of them.

    In a ring of few edges it is one alone; of two that cost the same it is the former.
    """
    rank = np.empty(len(cost), np.int64)
    rank[np.argsort(cost, kind="stable")] = np.arange(len(cost))
    near = [before, after, before[before], after[after]]
    chosen = np.isfinite(cost) & (rank <= np.minimum.reduce([rank[other] for other in near]))
    few = np.diff(edges.first) < _FEW
    first_of_ring = np.minimum.reduceat(rank, edges.first[:-1])
    alone = rank == first_of_ring[edges.ring]
    return np.asarray(chosen & (alone | ~few[edges.ring]))


def _corners(edges: _Edges, tolerance_px: float) -> tuple[Floats, Ints]:
    """Where each edge meets the next; two parallel ones are joined by an edge across.

    Returns:
        (m, 2) corners, and (m,) the ring of each.
    """
    after = edges.loops.after
    one, other = edges.kind, edges.kind[after]
    mean, corner = edges.mean, edges.start[after]
    _, along = principal_axes(edges.moments)
    straight = one < _OBLIQUE
    along[straight] = np.eye(2)[one[straight]]
    met = meet(corner, mean, along, mean[after], along[after], tolerance_px)
    upright = one + other == _ALONG + _ACROSS
    # An edge along has a y of its own, one across an x.
    met[upright] = np.where(one[:, None] == [_ALONG, _ACROSS], mean[after], mean)[upright]
    jog = (one == other) & straight
    times = 1 + jog
    corners = np.repeat(met, times, axis=0)
    last = np.cumsum(times) - 1
    for place, edge in ((last - 1, np.arange(len(one))), (last, after)):
        foot = np.where(one[:, None] == [_ACROSS, _ALONG], mean[edge], corner)
        corners[place[jog]] = foot[jog]
    return corners, np.repeat(edges.ring, times)
