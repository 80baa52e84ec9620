"""Outlines as a mapper draws them: few straight walls, in the directions that a building shows.

The contour of a building is a ring of points, one on each pixel edge. Dynamic programming chooses
the walls (Perez and Vidal 1994, doi:10.1016/0167-8655(94)90002-7): each one costs its squared
distances to the points, fitted by total least squares, and a price, which is lowest for the main
direction and its perpendicular (Duchêne et al. 2003), higher for 45° or a second main direction,
and highest for any other. Corners are intersections of walls, so the bevel that a network puts in
place of a corner costs little. A circle or an ellipse replaces the walls where it fits better. All
buildings are processed at once, as arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import shapely

from rooftrace.core.arrays import numbered
from rooftrace.core.types import BoolArray, Floats, Ints, Polygons
from rooftrace.vector.simplify import (
    GRID_PX,
    Contours,
    Moments,
    RingOrder,
    intersect_lines,
    resembles,
    simplify_staircase,
    spread,
    unit_of,
)
from rooftrace.vector.trace import Columns

# The values below were chosen on generated shapes and on six places, see bench/outlines.py. Lengths
# are in units, see `unit_of`.
#
# Points near the ends of a wall that do not count, since networks round corners off.
_TRIM = 1.0
# Prices of walls in squared units, for a building of `_USUAL` squared units; for others they grow
# with the square root of the area, within limits.
_SNAPPED, _DIAGONAL, _SECOND, _FREE = 11.0, 22.0, 14.0, 22.0
_USUAL, _LEAST_SCALE, _MOST_SCALE = 400.0, 0.25, 3.0
# Area in squared units up to which an outline gets the area of its pixels: walls run through the
# middle of their points, so sharp corners add more than 1 % to smaller buildings.
_SMALL = 400.0
# Factor on the prices for buildings that they draw too coarsely.
_FINER = 0.25
# Longest bevel, and its price for a squared unit of its length.
_BEVEL, _BEVEL_PRICE = 3.5, 0.3
# Maximum angle between a wall in a given direction and the chord of its part of the contour.
_TURN = np.radians(35)
# Angle up to which a part of the contour follows a direction.
_NEAR = np.radians(15)
# Minimum share of a second main direction, or of 45°.
_SECOND_SHARE = 0.2
# Maximum angle by which touching buildings are turned to a common direction, and a second direction
# to 45°: in radians, and in radians times the root of the area.
_COMMON, _COMMON_UNITS = np.radians(8), 1.2
# Maximum number of proposed corners that one wall passes.
_HOPS = 14
# Maximum distance of a corner from the contour, and minimum sine of its angle.
_REACH, _MIN_SINE = 4.0, 0.2
# Bins of the quarter turn in the search for a direction.
_BINS = 36
# Number of polygons that are processed at once, to limit memory.
_AT_ONCE = 1 << 12
# Number of walls whose costs are found at once: calls of NumPy take longer than few walls.
_WALLS_AT_ONCE = 1 << 13

_ALONG, _ACROSS, _OTHER, _OTHER_ACROSS, _ANY = range(5)
_INF = 1e9


class Regularized(NamedTuple):
    """Result of `regularize`.

    Args:
        polygons: (n,) valid polygons.
        accepted: (n,) bool, True for a regular outline, False where `simplify_staircase` made the
            polygon.
    """

    polygons: Polygons
    accepted: BoolArray


def regularize(raw_px: Polygons, tolerance_px: float, group: Ints | None = None) -> Regularized:
    """Return polygons with the walls that a building shows.

    A regular outline is used if it is valid, has as many holes, at least four corners, and
    `resembles` the pixels; else a rectangle that does. The result does not depend on the position.

    Args:
        raw_px: (n,) valid shapely polygons on integer pixel coordinates, as `trace` makes them.
        tolerance_px: Maximum distance between an outline and the staircase, at least 0; 0 changes
            nothing.
        group: (n,) number of the group of touching buildings that each polygon belongs to, below n;
            they may share a direction. By default each polygon is processed independently.

    Returns:
        (n,) polygons in the same order.
    """
    polygons = raw_px.copy()
    accepted = np.zeros(len(raw_px), np.bool_)
    if tolerance_px <= 0 or not len(raw_px):
        return Regularized(polygons, accepted)
    group = np.arange(len(raw_px)) if group is None else group
    unit = unit_of(tolerance_px)
    todo = np.argsort(group, kind="stable")
    for finer in (1.0, _FINER):
        left = []
        for part in _parts(group[todo]):
            chosen = todo[part]
            fitted = _fitted(raw_px[chosen], tolerance_px, group[chosen], finer)
            good = shapely.get_num_coordinates(fitted) > 4
            small = good & (shapely.area(fitted) > 0)
            small &= shapely.area(raw_px[chosen]) < _SMALL * unit**2
            fitted[small] = _with_areas(fitted[small], raw_px[chosen[small]])
            good[good] = resembles(fitted[good], raw_px[chosen[good]], unit)
            polygons[chosen[good]], accepted[chosen[good]] = fitted[good], True
            left.append(chosen[~good])
        todo = np.concatenate(left)
        if not len(todo):
            break
    drawn = _rectangles(raw_px[todo])
    good = resembles(drawn, raw_px[todo], unit)
    polygons[todo[good]], accepted[todo[good]] = drawn[good], True
    polygons[todo[~good]] = simplify_staircase(raw_px[todo[~good]], tolerance_px)
    return Regularized(polygons, accepted)


def _rectangles(raw: Polygons) -> Polygons:
    """Return the minimum rotated rectangles of polygons (n,), with the areas of these; empty for a
    polygon with a courtyard.
    """
    around = np.asarray(shapely.oriented_envelope(shapely.get_exterior_ring(raw)), np.object_)
    drawn = np.asarray(shapely.orient_polygons(_with_areas(around, raw)), np.object_)
    drawn[shapely.get_num_interior_rings(raw) > 0] = shapely.Polygon()
    return drawn


def _with_areas(shape: Polygons, raw: Polygons) -> Polygons:
    """Return polygons (n,) scaled about their centroids to the areas of others (n,)."""
    xy, of = shapely.get_coordinates(shape, return_index=True)
    origin = np.floor(shapely.bounds(shape)[:, :2])[of]
    local = shapely.set_coordinates(shape.copy(), xy - origin)
    middle = shapely.get_coordinates(shapely.centroid(local))[of]
    size = np.sqrt(shapely.area(raw) / shapely.area(local))[of, None]
    corner = middle + size * (xy - origin - middle)
    scaled = shapely.set_coordinates(local, np.rint(corner / GRID_PX) * GRID_PX + origin)
    return np.asarray(scaled, np.object_)


def _parts(group: Ints) -> list[slice]:
    """Return slices of about `_AT_ONCE` ascending groups, each whole."""
    cuts = [0]
    while cuts[-1] < len(group):
        last = group[min(cuts[-1] + _AT_ONCE, len(group)) - 1]
        cuts.append(int(np.searchsorted(group, last, side="right")))
    return [slice(*ends) for ends in pairwise(cuts)]


def _fitted(raw: Polygons, tolerance_px: float, group: Ints, finer: float) -> Polygons:
    """Return (n,) polygons, some of them invalid; an empty one where none was found."""
    unit = unit_of(tolerance_px)
    contours = Contours.of(raw, unit)
    area = shapely.area(raw) / unit**2
    directions = _Directions.of(contours, group, np.sqrt(area), unit)
    scale = finer * np.clip(np.sqrt(area / _USUAL), _LEAST_SCALE, _MOST_SCALE)
    edges, cost = _walls(contours, directions, scale[contours.owner], unit)
    corner, ring = _corners(contours, directions, edges, unit)
    centre, axes = _fit_ellipses(contours, cost, scale, unit)
    rings = contours.rings(corner, ring)
    for at in np.flatnonzero(axes.any(axis=(1, 2))).tolist():
        rings[at] = _draw_ellipse(contours.origin[at], centre[at], axes[at], unit)
    # A courtyard that shows no walls is a rectangle.
    lost = np.flatnonzero(shapely.is_missing(rings))
    courtyard = contours.number - np.searchsorted(np.sort(contours.owner), contours.owner)
    lost = lost[courtyard[lost] > 0]
    inner = shapely.get_interior_ring(raw[contours.owner[lost]], courtyard[lost] - 1)
    drawn = _rectangles(np.asarray(shapely.polygons(inner), np.object_))
    rings[lost] = shapely.reverse(shapely.get_exterior_ring(drawn))
    return contours.polygons(len(raw), rings)


def _quarter(angle: Floats) -> Floats:
    """Return the angle nearest to 0 that is equal modulo a quarter turn."""
    return (angle + np.pi / 4) % (np.pi / 2) - np.pi / 4


@dataclass(frozen=True, slots=True)
class _Directions:
    """Directions of the walls of polygons.

    Args:
        main: (n,) main direction in radians.
        turn: (n,) angle from the main direction to the other one.
        is_shown: (n,) True where a share of the outline has the other one.
        has_second: (n,) True where the other one was found, False where it is 45°.
        slot: (n,) number of the direction; touching buildings may share it.
    """

    main: Floats
    turn: Floats
    is_shown: BoolArray
    has_second: BoolArray
    slot: Ints

    @classmethod
    def of(cls, contours: Contours, group: Ints, side: Floats, unit: float) -> _Directions:
        """Return the directions that most of the outline has.

        Args:
            group: (n,) groups of polygons that touch.
            side: (n,) root of the area in units.
            unit: Pixels of a unit.
        """
        start, stop, ring = contours.edges()
        moments = contours.moments(contours.node[start], contours.node[stop], ring)
        polygon = contours.owner[ring]
        length = np.hypot(*(contours.xy[stop] - contours.xy[start]).T)
        weight = length * np.minimum(length, 12 * unit)
        numbers, of_group, members = np.unique(group, return_inverse=True, return_counts=True)
        main = _direction(moments, polygon, length, weight, len(group))
        slot, same = np.arange(len(group)), np.minimum(_COMMON, _COMMON_UNITS / side)
        if members.max() > 1:
            owner = of_group[polygon]
            common = _direction(moments, owner, length, weight, len(numbers))
            off = np.abs(_quarter(main - common[of_group]))
            shares = (members[of_group] > 1) & (off < same)
            main = np.where(shares, common[of_group], main)
            slot = np.where(shares, len(group) + of_group, slot)
        far = np.flatnonzero(
            (np.abs(_quarter(moments.angle - main[polygon])) > _NEAR) & (length > 5 * unit)
        )
        others, owner = moments.of(far), polygon[far]
        second = _direction(others, owner, length[far], weight[far], len(group))
        follows = np.abs(_quarter(others.angle - second[owner])) <= _NEAR
        whole = np.bincount(polygon, length, len(group)).clip(min=1e-9)
        share = np.bincount(owner, length[far] * follows, len(group)) / whole
        turn = _quarter(second - main)
        shown = share >= _SECOND_SHARE
        has_second = shown & (np.abs(turn) < np.pi / 4 - same)
        return cls(main, np.where(has_second, turn, np.pi / 4), shown, has_second, slot)


def _direction(moments: Moments, owner: Ints, length: Floats, weight: Floats, count: int) -> Floats:
    """Return (count,) the direction, modulo a quarter turn, around which most weight lies, turned
    to the minimum of the squared distances of what is near.
    """
    place = (moments.angle % (np.pi / 2)) / (np.pi / 2) * _BINS
    low = np.floor(place).astype(np.int64)
    cell = np.concatenate([owner * _BINS + low % _BINS, owner * _BINS + (low + 1) % _BINS])
    share = np.concatenate([weight * (low + 1 - place), weight * (place - low)])
    filled = np.bincount(cell, share, count * _BINS).reshape(count, _BINS)
    circle = np.concatenate([filled[:, -3:], filled, filled[:, :3]], axis=1)
    around = sum(circle[:, 3 - k : 3 - k + _BINS] * (4 - abs(k)) for k in range(-3, 4))
    main = np.asarray(np.argmax(around, axis=1) * (np.pi / 2 / _BINS), np.float64)
    for _ in range(2):
        off = moments.angle - main[owner]
        near = np.abs(_quarter(off)) <= _NEAR
        # What is perpendicular is turned by a right angle.
        sign = np.where(np.abs(np.sin(off)) > np.sqrt(0.5), -length, length) * near
        even, odd = (np.bincount(owner, sign * v, count) for v in (moments.even, moments.odd))
        main = np.where(np.hypot(even, odd) > 0, np.arctan2(odd, even) / 2, main)
    return main


@dataclass(frozen=True)
class _Walls(Columns):
    """Chosen walls, ring by ring and in the order of the contour.

    Args:
        ring: (n,) ring.
        start, stop: (n,) corners (`Contours.node`) from which and up to which each wall goes.
        kind: (n,) kind of its direction.
    """

    ring: Ints
    start: Ints
    stop: Ints
    kind: Ints


def _trim(count: Ints, unit: float) -> tuple[int, BoolArray]:
    """Return the number of points that do not count at both ends of long walls, and True for the
    walls that are long, given their numbers of points.
    """
    trim = round(_TRIM * unit)
    return trim, count >= 3 * trim + 2


@dataclass(frozen=True, slots=True)
class _Prices:
    """Costs of walls between corners.

    Args:
        unit: Pixels of a unit.
        sums: (5, n) sums up to each corner.
        low, high: (5, n) sums up to the first point that counts of a long wall that begins at each
            corner, and up to the last one of a wall that ends there.
        scale: (rings,) factor on the prices.
        other: (rings,) price of a wall in the other direction.
        axes: (4, rings) cosine and sine of the main direction, and of the other one from there.
    """

    contours: Contours
    unit: float
    sums: Floats
    low: Floats
    high: Floats
    scale: Floats
    other: Floats
    axes: Floats

    @classmethod
    def of(cls, contours: Contours, directions: _Directions, scale: Floats, unit: float) -> _Prices:
        trim, polygon = round(_TRIM * unit), contours.owner
        sums, low, high = (
            contours.summed(contours.node + shift, contours.ring).astype(float, "C")
            for shift in (0, trim, -trim)
        )
        main, turn = directions.main[polygon], directions.turn[polygon]
        axes = np.stack([np.cos(main), np.sin(main), np.cos(turn), np.sin(turn)])
        other = np.where(directions.is_shown, _SECOND, _DIAGONAL)[polygon] * scale
        return cls(contours, unit, sums, low, high, scale, other, axes)

    def all_walls(self) -> Iterator[Floats]:
        """Yield the costs of `walls` for each number of a corner but 0."""
        level = self.contours.level
        numbers = np.arange(1, len(level) - 1)
        total = np.cumsum(np.minimum(numbers, _HOPS) * np.diff(level)[1:])
        cuts = np.searchsorted(total, np.arange(_WALLS_AT_ONCE, total[-1:].sum(), _WALLS_AT_ONCE))
        for part in np.split(numbers, np.unique(cuts)):
            if len(part):
                yield from self.walls(part)

    def walls(self, numbers: Ints) -> list[Floats]:
        """Return, for the corners of each number (n,) of all rings that have it, the (kinds, hops,
        rings) costs of walls to them from up to `_HOPS` corners, the nearest first.
        """
        contours, unit, level = self.contours, self.unit, self.contours.level
        hops = np.minimum(numbers, _HOPS)
        at, hop = numbered(hops)
        rings = (level[numbers + 1] - level[numbers])[at]
        row, ring = numbered(rings)
        start, stop = level[numbers[at] - 1 - hop][row] + ring, level[numbers[at]][row] + ring
        count = contours.node[stop] - contours.node[start]
        weight = count / unit**2
        sums = np.take(self.high, stop, axis=1) - np.take(self.low, start, axis=1)
        trim, is_long = _trim(count, unit)
        near = np.flatnonzero(~is_long)
        sums[:, near] = self.sums[:, stop[near]] - self.sums[:, start[near]]
        none, count = count < 2, np.maximum(count - 2 * trim * is_long, 1)
        *_, even, odd, half = spread(count, sums)
        half *= weight
        even *= weight
        odd *= weight
        x, y = (np.take(contours.xy, stop, axis=0) - np.take(contours.xy, start, axis=0)).T
        least = np.sqrt(np.cos(_TURN) ** 2 * (x * x + y * y))
        cost = np.empty((_ANY + 1, len(ring)))
        cost[_ANY] = half - np.sqrt(even * even + odd * odd) + (_FREE * self.scale)[ring]
        for kind, add in ((_ALONG, _SNAPPED * self.scale), (_OTHER, self.other)):
            # In the frame of the direction; the other one is turned from the main direction.
            cos, sin = np.take(self.axes[kind : kind + 2], ring, axis=1)
            double = cos * cos - sin * sin, 2 * cos * sin
            even, odd = even * double[0] + odd * double[1], odd * double[0] - even * double[1]
            x, y = x * cos + y * sin, y * cos - x * sin
            base = half + add[ring]
            # Faster than a choice by `numpy.where`.
            cost[kind] = base - even + _INF * (np.abs(x) < least)
            cost[kind + 1] = base + even + _INF * (np.abs(y) < least)
        cost[:, none] = _INF
        cuts = np.cumsum(hops * (level[numbers + 1] - level[numbers]))[:-1]
        parts = np.split(cost, cuts, axis=1)
        return [part.reshape(_ANY + 1, k, -1) for part, k in zip(parts, hops.tolist())]


def _walls(
    contours: Contours, directions: _Directions, scale: Floats, unit: float
) -> tuple[_Walls, Floats]:
    """Return the walls of the least total cost, and (rings,) this cost.

    Two successive walls have different directions. Between them a short part of the contour may be
    left out, as the bevel of a corner.

    Args:
        scale: (rings,) factor on the prices.
        unit: Pixels of a unit.
    """
    prices = _Prices.of(contours, directions, scale, unit)
    level, n, kinds = contours.level, len(contours.ring), _ANY + 1
    # The last kind stands for no wall yet.
    arrived = np.full((kinds + 1, n), _INF)
    hops, skipped = np.zeros((kinds, n), np.int64), np.zeros((kinds + 1, n), np.int64)
    # Lowest and second lowest costs at each corner, and the kinds of the walls that end there.
    best, second = np.full((2, n), _INF), np.full((2, n), kinds)
    arrived[kinds, : level[1]], best[0, : level[1]] = 0, 0
    # Prices of bevels that end at a corner and begin at the one before, or at the one before that.
    begin, end, _ = contours.edges()
    length = np.zeros((2, n))
    length[:, end] = np.hypot(*(contours.xy[end] - contours.xy[begin]).T)
    length[1, end] += length[0, begin]
    bevel = _BEVEL_PRICE * scale[contours.ring] * (length / unit) ** 2
    bevel[length > _BEVEL * unit] = _INF
    snapped = np.arange(_ANY)[:, None, None]
    for number, value in enumerate(prices.all_walls(), start=1):
        here = slice(level[number], level[number + 1])
        count = value.shape[2]
        row = np.arange(count)
        start = level[max(number - _HOPS, 0) : number][::-1, None] + row
        lowest, other, ends = best[0][start], best[1][start], second[0][start]
        # Walls of the same kind do not follow each other, but walls of any direction do.
        value += lowest
        value[:_ANY] += (other - lowest) * (ends == snapped)
        hops[:, here] = value.argmin(axis=1) + 1
        arrived[:kinds, here] = value.min(axis=1)
        left = arrived[:, here].copy()
        for skip in range(min(number, 2)):
            first = level[number - 1 - skip]
            cost = arrived[:, first : first + count] + bevel[skip, here]
            better = cost < left
            np.copyto(left, cost, where=better)
            np.copyto(skipped[:, here], skip + 1, where=better)
        for rank in range(2):
            kind = left.argmin(axis=0)
            best[rank, here], second[rank, here] = left[kind, row], kind
            left[kind, row] = _INF
    total = best[0, level[contours.count] + np.arange(len(contours.count))]
    rings, turn = np.flatnonzero(total < _INF), 0
    at = contours.count[rings]
    kind = second[0, level[at] + rings]
    found: list[tuple[Ints, ...]] = []
    while len(rings):
        at = at - skipped[kind, level[at] + rings]
        live = (kind < kinds) & (at > 0)
        rings, at, kind = rings[live], at[live], kind[live]
        stop = level[at] + rings
        at = at - hops[kind, stop]
        start = level[at] + rings
        found.append((rings, start, stop, kind, np.full(len(rings), turn)))
        repeats = (second[0, start] == kind) & (kind != _ANY)
        kind, turn = np.where(repeats, second[1, start], second[0, start]), turn - 1
    if not found:
        return _Walls(*(np.zeros(0, np.int64) for _ in range(4))), total
    ring, *walls, place = (np.concatenate(column) for column in zip(*found))
    return _Walls(ring, *walls).of(np.lexsort((place, ring))), total


def _corners(
    contours: Contours, directions: _Directions, walls: _Walls, unit: float
) -> tuple[Floats, Ints]:
    """Return (m, 2) the corners between successive walls, and (m,) their rings."""
    low, high = contours.node[walls.start], contours.node[walls.stop]
    trim, is_long = _trim(high - low, unit)
    moments = contours.moments(low + trim * is_long, high - trim * is_long, walls.ring)
    polygon = contours.owner[walls.ring]
    kind, count = walls.kind, len(directions.main)
    slots = int(directions.slot.max(initial=0)) + 1
    slot = directions.slot[polygon]
    snapped = [moments.count * np.select([kind == k, kind == k + 1], [1.0, -1.0]) for k in (0, 2)]
    diagonal = np.where(directions.has_second[polygon], 0, snapped[1])
    # Walls at 45° are turned back by it, which exchanges the two terms.
    main = np.arctan2(
        np.bincount(slot, snapped[0] * moments.odd - diagonal * moments.even, slots),
        np.bincount(slot, snapped[0] * moments.even + diagonal * moments.odd, slots),
    )[directions.slot] / 2  # fmt: skip
    main = directions.main + _quarter(main - directions.main)
    other = np.arctan2(
        np.bincount(polygon, snapped[1] * moments.odd, count),
        np.bincount(polygon, snapped[1] * moments.even, count),
    ) / 2  # fmt: skip
    other = np.where(directions.has_second, other, main + np.pi / 4)
    angle = np.select(
        [kind == _ANY, kind >= _OTHER], [moments.angle, other[polygon]], main[polygon]
    ) + np.where((kind == _ACROSS) | (kind == _OTHER_ACROSS), np.pi / 2, 0)
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    after = RingOrder.by_ring(walls.ring).after
    ends = contours.xy[walls.stop], contours.xy[walls.start[after]]
    reach = _REACH * unit + np.hypot(*(ends[1] - ends[0]).T)
    corner = intersect_lines(
        (ends[0] + ends[1]) / 2,
        moments.mean,
        along,
        moments.mean[after],
        along[after],
        reach,
        _MIN_SINE,
    )
    return corner, walls.ring


# Circles and ellipses in place of walls: tanks, silos, round houses and domes.
#
# Prices of a circle and of an ellipse in squared units.
_CIRCLE, _ELLIPSE = 20.0, 36.0
# Minimum number of proposed corners of a round contour.
_MIN_CORNERS = 7
# Minimum ratio of the semi-axes of a circle.
_SQUAT = 0.88
# Minimum semi-axis in units, and maximum mean square of the distances in squared units. A smaller
# square shed looks as round as a hut, since networks round corners off; sheds are more frequent.
_RADIUS, _MISFIT = 12.0, 0.28
# Maximum amplitude of eight waves around a circle, as a share of its radius; an octagon has 0.032.
_WAVES = 0.017
# A first fit takes each n-th point, and allows misfits and semi-axes this factor.
_EVERY, _SLACK = 4, 1.5


def _fit_ellipses(
    contours: Contours, cost: Floats, scale: Floats, unit: float
) -> tuple[Floats, Floats]:
    """Return the (rings, 2) centres and (rings, 2, 2) semi-axes, as rows, of the ellipses that have
    the area moments of contours; 0 where walls, or another shape, fit better.

    Args:
        cost: (rings,) cost of the walls.
        scale: (n,) factor on the prices.
        unit: Pixels of a unit.
    """
    centres, axes = np.zeros((len(cost), 2)), np.zeros((len(cost), 2, 2))
    scale = scale[contours.owner]
    # Of a building with courtyards only the walls are fitted.
    may = (contours.count >= _MIN_CORNERS) & (cost > _CIRCLE * scale)
    may &= np.bincount(contours.owner)[contours.owner] == 1
    ring, fits = np.arange(len(cost)), may
    # Some of the points exclude most contours: their squares add up to less than those of all.
    for every, slack in ((_EVERY, _SLACK), (1, 1.0)):
        ring = ring[fits]
        fit = _Fit.of(contours, ring, every)
        misfit = fit.misfit / unit**2 / slack
        price = np.where(fit.is_circle, _CIRCLE, _ELLIPSE) * scale[ring]
        fits = fit.length[:, 0] > _RADIUS * unit / slack
        fits &= (misfit < _MISFIT * contours.sizes[ring]) & (misfit + price < cost[ring])
    # The radii of an octagon have eight waves around the centre.
    own, turn = fit.own, 8 * np.arctan2(*fit.local[::-1])
    away = np.hypot(*fit.local) - 1
    waves = (np.bincount(own, away * f(turn), len(fits)) for f in (np.cos, np.sin))
    fits &= 2 * np.hypot(*waves) < _WAVES * np.bincount(own, minlength=len(fits))
    centres[ring[fits]] = fit.centre[fits]
    axes[ring[fits]] = (fit.length[:, :, None] * np.swapaxes(fit.along, 1, 2))[fits]
    return centres, axes


class _Fit(NamedTuple):
    """Ellipses that have the area moments of contours.

    Args:
        centre: (n, 2) centres.
        length: (n, 2) semi-axes, ascending.
        along: (n, 2, 2) their directions, as columns.
        is_circle: (n,) True for circles.
        misfit: (n,) sum of the squared distances of the points.
        own: (points,) ellipse of each point.
        local: (2, points) points where their ellipse is a circle of radius 1.
    """

    centre: Floats
    length: Floats
    along: Floats
    is_circle: BoolArray
    misfit: Floats
    own: Ints
    local: Floats

    @classmethod
    def of(cls, contours: Contours, ring: Ints, every: int) -> _Fit:
        """Return the ellipses of rings (n,), given that each n-th point counts."""
        sizes, count = -(-contours.sizes[ring] // every), len(ring)
        own, step = numbered(sizes)
        point = contours.points[contours.first[ring][own] + step * every].T
        middle = np.stack([np.bincount(own, axis, count) for axis in point]) / sizes
        x, y = point - middle[:, own]
        after, stop = np.arange(1, len(x) + 1), np.cumsum(sizes)
        after[stop - 1] = stop - sizes
        x1, y1 = x[after], y[after]
        cross = x * y1 - x1 * y
        area, left, top, xx, xy, yy = (
            np.bincount(own, cross * term, count)
            for term in (
                np.full(len(x), 0.5), (x + x1) / 6, (y + y1) / 6,
                (x * x + x * x1 + x1 * x1) / 12, (2 * (x * y + x1 * y1) + x * y1 + x1 * y) / 24,
                (y * y + y * y1 + y1 * y1) / 12,
            )
        )  # fmt: skip
        centre = np.stack([left, top]) / area
        square = np.array([[xx, xy], [xy, yy]]) / area - centre * centre[:, None]
        length, along = np.linalg.eigh(square.T)
        length = 2 * np.sqrt(length.clip(min=1e-9))
        is_circle = length[:, 0] > _SQUAT * length[:, 1]
        length[is_circle] = np.sqrt(length.prod(axis=1))[is_circle, None]
        x, y = x - centre[0, own], y - centre[1, own]
        local = np.stack(
            [(x * along[own, 0, k] + y * along[own, 1, k]) / length[own, k] for k in range(2)]
        )
        radius = np.hypot(*local).clip(min=1e-9)
        away = (radius - 1) * radius / np.hypot(*(local / length[own].T))
        misfit = np.bincount(own, away * away, count).astype(np.float64, copy=False)
        return cls((middle + centre).T, length, along, is_circle, misfit, own, local)


def _draw_ellipse(origin: Floats, centre: Floats, axes: Floats, unit: float) -> shapely.LinearRing:
    """Return an ellipse with semi-axes (2, 2) as a ring of 24 or 32 corners with its area."""
    count = 24 if abs(np.linalg.det(axes)) < (24 * unit) ** 2 else 32
    angle = 2 * np.pi * np.arange(count) / count
    size = np.sqrt(2 * np.pi / count / np.sin(2 * np.pi / count))
    corner = centre + size * np.stack([np.cos(angle), np.sin(angle)], axis=1) @ axes
    return shapely.LinearRing(np.rint(corner / GRID_PX) * GRID_PX + origin)
