"""Contours of many buildings as arrays, and simplified outlines from them.

`Contours` holds the points along the pixel edges of polygons, proposed corners, and moments between
corners; `simplify_staircase` fits lines to parts of them. The file also holds the common area of
many pairs of outlines at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from rooftrace.core.arrays import numbered
from rooftrace.core.types import BoolArray, Floats, Ints, Polygons
from rooftrace.vector.trace import Columns, ring_vertices

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
        xy, of, owner = ring_vertices(raw)
        origin = xy[np.searchsorted(of, np.arange(len(owner)))]
        size, x, y = _points(xy, of, len(owner))
        first, ring = np.cumsum(size) - size, np.repeat(np.arange(len(owner)), size)
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
        count = np.bincount(ring[corner], minlength=len(owner))
        left = (count == 0) | (count > (max_corners or len(x)))
        corner = np.sort(np.append(corner[~left[ring[corner]]], first[left]))
        count = np.bincount(ring[corner], minlength=len(owner))
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
        total[beyond] += np.take(self.sums[stop] - self.sums[self.first], ring, axis=0)
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


# Maximum number of pairs of edges that are evaluated at once.
_AT_ONCE = 1 << 14
# Number of pairs beyond which an overlay, which does not evaluate all of them, is faster.
_MAX_PAIRS = 1 << 16


def common_area(polygons: Polygons, rectilinear: Polygons) -> Floats:
    """Return the area that each polygon shares with its counterpart.

    An overlay takes a tenth of a millisecond for shapes of ten pixels. Instead, the area between an
    edge of one outline and an edge of the other is a trapezoid. The signed sum over all pairs of
    edges is the common area (Green's theorem, once for each outline).

    Args:
        polygons: (n,) valid shapely polygons.
        rectilinear: (n,) valid polygons; fast for those with only horizontal and vertical edges.

    Returns:
        (n,) areas in squares of the unit, up to rounding.
    """
    origin = shapely.bounds(rectilinear)[:, :2]
    mine, theirs = _SlopedEdges.of(polygons, origin), _SlopedEdges.of(rectilinear, origin)
    pairs = mine.count * theirs.count
    summed = ~theirs.has_slopes & (pairs <= _MAX_PAIRS)
    area = np.zeros(len(polygons))
    overlaid = np.flatnonzero(~summed)
    area[overlaid] = shapely.area(shapely.intersection(polygons[overlaid], rectilinear[overlaid]))
    rows = np.flatnonzero(summed)
    total = np.cumsum(pairs[rows])
    cuts = np.searchsorted(total, np.arange(_AT_ONCE, total[-1:].sum(), _AT_ONCE))
    for chosen in np.split(rows, np.unique(cuts)):
        if len(chosen):
            area[chosen] = _summed(mine, theirs, chosen)
    return area


@dataclass(frozen=True, slots=True)
class _SlopedEdges:
    """Edges of polygons, one polygon after the other, without the vertical ones.

    Args:
        left, right: (m,) x of their ends.
        start: (m,) y of their left ends.
        slope: (m,) slopes.
        sign: (m,) 1 where the polygon lies at larger y than the edge, -1 where at smaller y.
        first: (n,) index of each polygon's first edge.
        count: (n,) number of edges.
        has_slopes: (n,) True where one of them is not horizontal.
    """

    left: Floats
    right: Floats
    start: Floats
    slope: Floats
    sign: Floats
    first: Ints
    count: Ints
    has_slopes: BoolArray

    @classmethod
    def of(cls, polygons: Polygons, origin: Floats) -> _SlopedEdges:
        """Return the edges relative to a point (n, 2) of each polygon, where products keep
        their precision.
        """
        xy, ring, owner = ring_vertices(polygons)
        x, y = np.ascontiguousarray((xy - origin[owner[ring]]).T)
        within = ring[1:] == ring[:-1]
        doubled = np.bincount(ring[1:], within * (x[:-1] * y[1:] - x[1:] * y[:-1]), len(owner))
        turn = np.where((doubled > 0) == (np.diff(owner, prepend=-1) > 0), 1.0, -1.0)
        edge = np.flatnonzero(within & (x[1:] != x[:-1]))
        left, right, start, stop = x[edge], x[edge + 1], y[edge], y[edge + 1]
        polygon = owner[ring[edge]]
        count = np.bincount(polygon, minlength=len(polygons))
        has_slopes = np.zeros(len(polygons), np.bool_)
        has_slopes[polygon[start != stop]] = True
        back = np.flatnonzero(left > right)
        left[back], right[back] = right[back], left[back]
        start[back], stop[back] = stop[back], start[back]
        sign = turn[ring[edge]]
        sign[back] = -sign[back]
        slope = (stop - start) / (right - left)
        return cls(left, right, start, slope, sign, np.cumsum(count) - count, count, has_slopes)


def _summed(mine: _SlopedEdges, theirs: _SlopedEdges, chosen: Ints) -> Floats:
    """Return (k,) common areas of some pairs in which the second polygon's edges are horizontal."""
    rows = theirs.count[chosen]
    pair, row = numbered(rows)
    # Each edge of one polygon is paired with all edges of the other.
    at, edge = numbered(mine.count[chosen][pair])
    owner = pair[at]
    other, one = (theirs.first[chosen][pair] + row)[at], mine.first[chosen][owner] + edge
    low = np.maximum(mine.left[one], theirs.left[other])
    width = np.minimum(mine.right[one], theirs.right[other]) - low
    meet = np.flatnonzero(width > 0)
    one, other, owner, low, width = one[meet], other[meet], owner[meet], low[meet], width[meet]
    slope = mine.slope[one]
    # Distances of the horizontal edge above the ends of the other.
    begin = theirs.start[other] - mine.start[one] - slope * (low - mine.left[one])
    end = begin - slope * width
    top, bottom = np.maximum(begin, end), np.minimum(begin, end)
    height = top + bottom
    crosses = np.flatnonzero((bottom < 0) & (top > 0))
    above = top[crosses]
    height[crosses] = above**2 / (above - bottom[crosses])
    height[top <= 0] = 0
    area = mine.sign[one] * theirs.sign[other] * width * height / -2
    return np.asarray(np.bincount(owner, area, len(chosen)), np.float64)


SIMPLIFY_PX = 1.25
"""Tolerance for simplifying outlines, in pixels of the model."""


def unit_of(tolerance_px: float) -> float:
    """Return the pixels along a unit of outlines, about a pixel of the model."""
    return tolerance_px / SIMPLIFY_PX


MIN_IOU = 0.85
"""Minimum IoU of an outline with its pixels; see `resembles` for few pixels."""

# Maximum of 1 - IoU times the root of the number of pixels where these are few; least IoU of all.
_ROUGH, _LEAST_IOU = 2.0, 0.6
# Minimum sine of the angle between two lines whose intersection is well defined.
_MIN_SINE = 0.3
# Maximum distance of a fitted corner from its pixel corner, in tolerances.
_MAX_SHIFT = 1.5


def simplify_staircase(polygons: Polygons, tolerance_px: float) -> Polygons:
    """Return outlines with few vertices instead of pixel staircases.

    Douglas-Peucker selects the pixel corners that are corners of the building. A line is fitted to
    the staircase between each two of them (least squares over the outline's length), and corners
    move to the intersections of the lines, so that an edge runs through the middle of its
    staircase. A polygon whose fit is invalid or has an IoU below `MIN_IOU` with its pixels keeps
    the result of Douglas-Peucker, and if that fails too, it is returned unchanged.

    Args:
        polygons: (n,) valid shapely polygons on integer pixel coordinates, as `trace` makes them.
        tolerance_px: Tolerance of Douglas-Peucker, at least 0; 1.25 to 1.5 removes the staircase.

    Returns:
        (n,) valid polygons in the same order.
    """
    result = polygons.copy()
    if tolerance_px <= 0 or not len(polygons):
        return result
    todo = np.arange(len(polygons))
    for simplify in (_fitted, shapely.simplify):
        candidate = np.asarray(simplify(polygons[todo], tolerance_px), np.object_)
        # A unit of 0 makes no allowance for few pixels: what fails keeps its staircase.
        good = resembles(candidate, polygons[todo], unit_px=0)
        result[todo[good]] = candidate[good]
        todo = todo[~good]
        if not len(todo):
            break
    return result


def resembles(
    candidate: Polygons, raw: Polygons, unit_px: float = 1.0, min_iou: float = MIN_IOU
) -> BoolArray:
    """Return (n,) True for candidates that are valid and have an IoU of `min_iou` with their
    staircase, or less where pixels are few.

    Most of a few pixels of the model, which have `unit_px` pixels each along a side, lie at the
    edge, where straight walls differ from them.
    """
    good = np.asarray(shapely.is_valid(candidate) & ~shapely.is_empty(candidate))
    candidate, raw = candidate[good], raw[good]
    area = shapely.area(raw)
    few = np.maximum(_LEAST_IOU, 1 - _ROUGH * unit_px / np.sqrt(area))
    common = common_area(candidate, raw)
    together = shapely.area(candidate) + area - common
    good[good] = common >= np.minimum(min_iou, few) * together
    return good


def _fitted(raw: Polygons, tolerance_px: float) -> Polygons:
    """Return polygons with corners at intersections of lines fitted to the staircase."""
    contours = Contours.of(raw, tolerance_px, max_corners=None)
    start, stop, ring = contours.edges()
    by_ring = np.argsort(ring, kind="stable")
    start, stop, ring = start[by_ring], stop[by_ring], ring[by_ring]
    if not len(ring):
        return np.full(len(raw), shapely.Polygon(), np.object_)
    moments = contours.moments(contours.node[start], contours.node[stop], ring)
    mean, corner = moments.mean, contours.xy[start]
    direction = np.stack([np.cos(moments.angle), np.sin(moments.angle)], axis=1)
    order = RingOrder.by_ring(ring)
    before, after = order.before, order.after
    reach = _MAX_SHIFT * tolerance_px
    moved = intersect_lines(corner, mean[before], direction[before], mean, direction, reach)
    # A cut corner, or an edge that the fit reversed: its neighbours are intersected without it.
    edge, chord = moved[after] - moved, corner[after] - corner
    length = np.hypot(chord[:, 0], chord[:, 1])
    short = (edge * chord).sum(axis=1) < tolerance_px * length
    short &= ~short[before] & (order.size > 4)
    met = intersect_lines(
        *((corner + corner[after]) / 2, mean[before], direction[before]),
        *(mean[after], direction[after], reach),
    )
    moved[after[short]] = moved[short] = met[short]
    return contours.polygons(len(raw), contours.rings(moved[~short], ring[~short]))


def intersect_lines(
    corner: Floats,
    mean0: Floats,
    along0: Floats,
    mean1: Floats,
    along1: Floats,
    reach_px: float | Floats,
    min_sine: float = _MIN_SINE,
) -> Floats:
    """Return the intersection of line 0 and line 1, or the midpoint of the corner's projections.

    The midpoint is used where the lines are nearly parallel or intersect more than `reach_px` from
    the corner.
    """
    sine = along0[:, 0] * along1[:, 1] - along0[:, 1] * along1[:, 0]
    gap = mean1 - mean0
    steep = np.abs(sine) >= min_sine
    reach = (gap[:, 0] * along1[:, 1] - gap[:, 1] * along1[:, 0]) / np.where(steep, sine, 1)
    crossing = mean0 + reach[:, None] * along0
    near = np.hypot(*(crossing - corner).T) <= reach_px
    feet = [
        mean + ((corner - mean) * along).sum(axis=1)[:, None] * along
        for mean, along in ((mean0, along0), (mean1, along1))
    ]
    return np.where((steep & near)[:, None], crossing, (feet[0] + feet[1]) / 2)
