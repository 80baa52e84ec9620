"""Neighbours whose outlines were drawn anew, so that none lies on another.

Regions of a mask share no pixel, but the lines that are drawn through their stairs may cross. Where
two do, one straight line through the points in which they cross parts them, as a map-maker draws
the wall that two houses share; each gives up what lies beyond it. What cannot be parted so goes
back to its pixels, and its neighbours make room for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.vector.loops import principal_axes
from rooftrace.vector.simplify import acceptable

__all__ = ["OVERLAP_PX", "conflicts", "settle"]

OVERLAP_PX = 1e-6
"""Square pixels that two outlines may share: what rounding leaves along a common wall."""

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Polygons = NDArray[np.object_]

# How much more than what two share a straight wall may cost one of them, as a share of its area.
_EXTRA = 0.01
# Vertices nearer than this are one, and holes of less are none.
_SPECK_PX = 1e-7
# Boxes that are looked up at a time.
_AT_ONCE = 1 << 16
_POLYGON = shapely.GeometryType.POLYGON


def conflicts(bounds: Floats) -> Ints:
    """Pairs whose boxes overlap: all that `settle` has to look at.

    Args:
        bounds: (n, 4) left, top, right and bottom of each one's raw and proposed outline together.

    Returns:
        (m, 2) indices, the lower one first, ascending.
    """
    by_top = np.argsort(bounds[:, 1], kind="stable")
    rank = np.empty(len(bounds), np.int64)
    rank[by_top] = np.arange(len(bounds))
    found = [np.zeros((0, 2), np.int64)]
    reaching = by_top[:0]
    # From top to bottom, so that only a part of the boxes is held at a time.
    for first in range(0, len(bounds), _AT_ONCE):
        part = by_top[first : first + _AT_ONCE]
        reaching = reaching[bounds[reaching, 3] > bounds[part[0], 1]]
        reaching = np.concatenate([reaching, part])
        asked = np.asarray(shapely.box(*bounds[reaching].T), np.object_)
        one, other = shapely.STRtree(asked[-len(part) :]).query(asked)
        one, other = reaching[one], part[other]
        above = rank[one] < rank[other]
        one, other = one[above], other[above]
        low, high = bounds[:, :2], bounds[:, 2:]
        overlap = (low[one] < high[other]) & (low[other] < high[one])
        pairs = np.stack([one, other], axis=1)[overlap.all(axis=1)]
        found.append(np.sort(pairs, axis=1))
    pairs = np.concatenate(found)
    return pairs[np.lexsort(pairs.T[::-1])]


def settle(raw_px: Polygons, proposed_px: Polygons, pairs: Ints | None = None) -> Polygons:
    """Outlines of which no two overlap.

    The result does not depend on the order of the polygons, nor on those that lie farther away than
    a chain of conflicts reaches.

    Args:
        raw_px: (n,) valid shapely polygons of which no two overlap.
        proposed_px: (n,) valid ones in their place, with an IoU of `MIN_IOU` or more with them.
        pairs: (m, 2) what `conflicts` gives, where it is known already.

    Returns:
        (n,) valid polygons: as proposed where nothing is in the way, or parted from a neighbour,
        with an IoU of at least `MIN_IOU` with the raw one, or else the raw one itself. Two share at
        most `OVERLAP_PX`.
    """
    if pairs is None:
        both = np.stack([shapely.bounds(raw_px), shapely.bounds(proposed_px)])
        pairs = conflicts(
            np.concatenate([both[..., :2].min(axis=0), both[..., 2:].max(axis=0)], axis=1)
        )
    shape, fallen = proposed_px.copy(), np.zeros(len(proposed_px), np.bool_)
    result = shape.copy()
    active = np.ones(len(shape), np.bool_)
    while True:
        near = pairs[active[pairs].any(axis=1) & ~fallen[pairs].all(axis=1)]
        cuts, stuck = _cuts(raw_px, shape, fallen, near)
        cuts = cuts.take(active[cuts.owner])
        result[active] = shape[active]
        cut = cuts.apply(result)
        good = acceptable(result[cut], raw_px[cut])
        holes = [shapely.get_num_interior_rings(those[cut]) for those in (result, shape)]
        lost = np.zeros(len(shape), np.bool_)
        lost[cut[~good | (holes[0] != holes[1])]] = True
        lost[stuck] = True
        lost &= ~fallen
        if not lost.any():
            return result
        # The neighbours' shares change with it, and nobody else's do.
        shape[lost], fallen[lost] = raw_px[lost], True
        active = lost.copy()
        active[pairs[lost[pairs].any(axis=1)]] = True


@dataclass(frozen=True, slots=True)
class _Cuts:
    """What polygons have to give up.

    Args:
        owner: (k,) whose cut it is.
        region: (k,) what bounds it.
        keeps: (k,) True where the owner keeps what lies in the region, False where it loses that.
    """

    owner: Ints
    region: Polygons
    keeps: Bools

    def take(self, which: Bools | Ints) -> _Cuts:
        """Those that are chosen."""
        return _Cuts(self.owner[which], self.region[which], self.keeps[which])

    def apply(self, shape: Polygons) -> Ints:
        """Cuts the shapes in place; of what falls apart the largest part stays.

        Returns:
            Which were cut, ascending.
        """
        # One after the other of each, in an order that is theirs and not that of the polygons.
        bounds = shapely.bounds(self.region)
        mine = self.take(np.lexsort((*bounds.T, self.owner)))
        turn = np.arange(len(mine.owner)) - np.searchsorted(mine.owner, mine.owner)
        for number in range(int(turn.max(initial=-1)) + 1):
            for keeps, cut in ((True, shapely.intersection), (False, shapely.difference)):
                now = (turn == number) & (mine.keeps == keeps)
                shape[mine.owner[now]] = cut(shape[mine.owner[now]], mine.region[now])
        touched = np.unique(mine.owner)
        shape[touched] = _cleaned(shape[touched])
        return touched


def _cuts(raw: Polygons, shape: Polygons, fallen: Bools, pairs: Ints) -> tuple[_Cuts, Ints]:
    """What has to go so that no pair overlaps, and those that no line parts from a neighbour."""
    shared = np.asarray(shapely.intersection(*shape[pairs].T), np.object_)
    overlaps = shapely.area(shared) > OVERLAP_PX
    pairs, shared = pairs[overlaps], shared[overlaps]
    # Pixels stay as they are, and the other one makes room.
    one_fell = fallen[pairs].any(axis=1)
    gives = np.where(fallen[pairs[:, 0]], pairs[:, 1], pairs[:, 0])[one_fell]
    free, common = pairs[~one_fell], shared[~one_fell]
    one, other, apart = _split(raw, shape, free, common)
    parts = [
        _Cuts(gives, shared[one_fell], np.zeros(len(gives), np.bool_)),
        one.take(apart),
        other.take(apart),
    ]
    cuts = _Cuts(
        np.concatenate([part.owner for part in parts]),
        np.concatenate([part.region for part in parts]),
        np.concatenate([part.keeps for part in parts]),
    )
    return cuts, np.unique(free[~apart])


def _split(
    raw: Polygons, shape: Polygons, pairs: Ints, shared: Polygons
) -> tuple[_Cuts, _Cuts, Bools]:
    """Pairs (m, 2) parted by the principal axis of the points in which their outlines cross.

    Returns:
        (m,) the cut of the first ones, that of the others, and whether there is such a line.
    """
    outlines = shapely.boundary(shape[pairs])
    crossing = shapely.intersection(outlines[:, 0], outlines[:, 1])
    point, of = shapely.get_coordinates(crossing, return_index=True)
    centre = shapely.get_coordinates(shapely.centroid(raw[pairs])).reshape(-1, 2, 2)
    # Near the origin squares of coordinates keep their digits.
    middle = centre.mean(axis=1)
    x, y = (point - middle[of]).T
    moments = np.zeros((len(pairs), 6))
    np.add.at(moments, of, np.stack([np.ones(len(x)), x, y, x * x, x * y, y * y], axis=1))
    crossed = moments[:, 0] > 1
    moments[~crossed] = (1, 0, 0, 1, 0, 1)
    mean, along = principal_axes(moments)
    mean = mean + middle
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    # Across the line to the side of the first one.
    towards = ((centre[:, 0] - centre[:, 1]) * across).sum(axis=1)
    across *= np.sign(towards)[:, None]
    box = shapely.bounds(shape[pairs])
    reach = 2 * np.hypot(*(box[..., 2:].max(axis=1) - box[..., :2].min(axis=1)).T)[:, None]
    ends = mean - reach * along, mean + reach * along
    halves = []
    for side in (1, -1):
        far = side * reach * across
        corners = np.stack([*ends, ends[1] + far, ends[0] + far], axis=1)
        halves.append(np.asarray(shapely.polygons(corners), np.object_))
    cuts = (
        _parted(pairs[:, side], shape[pairs[:, side]], halves[side], halves[1 - side], shared)
        for side in (0, 1)
    )
    return *cuts, crossed & (np.abs(towards) > 0)


def _parted(
    owner: Ints, shape: Polygons, own: Polygons, other: Polygons, shared: Polygons
) -> _Cuts:
    """The cuts that part shapes (n,) from neighbours with which they share something.

    A shape keeps its own half plane, so that the cut is straight. Where it would lose much more
    than what the two share, it loses the part of that in the other half plane.
    """
    least = np.asarray(shapely.intersection(shared, other), np.object_)
    lost = shapely.area(shape) - shapely.area(shapely.intersection(shape, own))
    straight = lost <= shapely.area(least) + _EXTRA * shapely.area(shape)
    return _Cuts(owner, np.where(straight, own, least), straight)


def _cleaned(shape: Polygons) -> Polygons:
    """The largest part of each, without the threads and specks that rounding leaves."""
    parts, owner = shapely.get_parts(shape, return_index=True)
    polygon = shapely.get_type_id(parts) == _POLYGON
    rings, part = shapely.get_rings(parts[polygon], return_index=True)
    owner = owner[polygon]
    area = shapely.area(shapely.polygons(rings))
    # A ring that is thinner has less than three vertices when those are one that lie together.
    solid = area > _SPECK_PX * np.maximum(shapely.length(rings), 1)
    is_shell = np.diff(part, prepend=-1) > 0
    solid &= solid[is_shell][part]
    left, number = np.unique(part[solid], return_inverse=True)
    made = np.asarray(shapely.polygons(rings[solid], indices=number), np.object_)
    owner = owner[left]
    order = np.lexsort((-shapely.area(made), owner))
    largest = order[np.diff(owner[order], prepend=-1) > 0]
    cleaned = np.full(len(shape), shapely.Polygon(), np.object_)
    cleaned[owner[largest]] = shapely.remove_repeated_points(made[largest], _SPECK_PX)
    return cleaned
