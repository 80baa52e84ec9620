"""Walls and corners that neighbours share, so that touching buildings are a coverage.

The walls of two buildings that face each other along most of their length, closer than the mask can
tell, become one: each moves to the line between them, the shorter wall further. Corners of
neighbours that lie together become one, and a corner beside a longer wall becomes a corner of it.
`shapely.coverage_clean` was measured first: with a snapping distance it gives most touching pairs a
common wall, too, but bends walls to the corners nearby (C-IoU less by 0.017 in a dense quarter).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from rooftrace.vector.contours import GRID_PX
from rooftrace.vector.simplify import resembles
from rooftrace.vector.trace import Bools, Floats, Ints, Polygons
from rooftrace.vector.trace_blocks import components

# The values below were chosen on six places and on generated shapes. Lengths are in units, see
# `simplify.unit_of`.
#
# Maximum gap between facing walls, and between the pixels of neighbours; maximum overlap. A whole
# pixel of the model is an alley: to close it (1.5) cost 0.006 of C-IoU on coarse images.
_GAP, _OVERLAP = 1.0, 2.0
# Minimum length along which two walls face each other: in units, and as a share of the shorter one.
_FACING, _FACING_SHARE = 2.0, 0.5
# Minimum cosine of the angle between them.
_PARALLEL = np.cos(np.radians(15))
# Distance of corners of neighbours that become one, and of a corner from a wall that passes it.
_TOGETHER, _BESIDE = 1.2, 0.25
# Regularization of the movement of a corner whose two walls have nearly the same direction.
_RIDGE = 0.005


@dataclass(frozen=True)
class WallSharing:
    """Makes neighbours share walls; picklable.

    Args:
        unit_px: Pixels of a unit, see `simplify.unit_of`.
        shape_yx: Rows and columns of the scene, which no corner leaves.
    """

    unit_px: float
    shape_yx: tuple[int, int]

    @property
    def reach_px(self) -> float:
        """Maximum distance between the pixels of neighbours."""
        return _GAP * self.unit_px

    def shared(self, raw: Polygons, proposed: Polygons) -> Polygons:
        """Return outlines in which neighbours share walls and corners.

        A building that would then differ from its pixels stays as proposed, and its neighbours keep
        away from it. The result does not depend on polygons that no chain of neighbours connects.

        Args:
            raw: (n,) polygons along pixel edges.
            proposed: (n,) valid polygons to replace them.
        """
        pairs = shapely.STRtree(raw).query(raw, "dwithin", distance=self.reach_px)
        pairs = pairs[:, pairs[0] < pairs[1]]
        result = proposed.copy()
        while pairs.size:
            members, own = np.unique(pairs, return_inverse=True)
            shape = np.asarray(shapely.orient_polygons(proposed[members]), np.object_)
            moved = self._moved(shape, own.reshape(2, -1))
            changed = ~shapely.equals_exact(moved, shape)
            good = resembles(moved[changed], raw[members[changed]], self.unit_px)
            is_bad = np.zeros(len(raw), np.bool_)
            is_bad[members[changed][~good]] = True
            # Only chains of neighbours with a bad one are joined again, without it.
            chain = components(len(raw), *pairs)
            again = np.isin(chain, chain[is_bad])
            done = changed & ~again[members]
            result[members[done]] = moved[done]
            pairs = pairs[:, again[pairs[0]] & ~is_bad[pairs].any(axis=0)]
        return result

    def _moved(self, shape: Polygons, pairs: Ints) -> Polygons:
        """Return polygons after walls and corners of pairs (2, m) were joined."""
        walls = _Walls.of(shape)
        one, other = walls.facing(pairs, self.unit_px)
        places, place = np.unique(walls.corner, axis=0, return_inverse=True)
        height, width = self.shape_yx
        target = (places + walls.shifts(one, other, place, places)).clip(0, (width, height))
        place_of, owner_of = place[walls.first], walls.owner
        label = _together(target, place_of, owner_of, pairs, _TOGETHER * self.unit_px)
        size = np.bincount(label, minlength=len(places)).clip(min=1)
        mean = np.stack([np.bincount(label, axis, len(places)) / size for axis in target.T], axis=1)
        target = np.rint(mean[label] / GRID_PX) * GRID_PX
        moved = np.asarray(shapely.set_coordinates(shape.copy(), target[place]), np.object_)
        # Corners of the walls that a wall faces become its own.
        mine, theirs = np.concatenate([one, other]), np.concatenate([other, one])
        ends = np.concatenate([place_of[theirs], place[walls.first[theirs] + 1]])
        owner, end = np.unique(np.stack([np.tile(owner_of[mine], 2), ends]), axis=1)
        at, index = np.unique(owner, return_inverse=True)
        corners = shapely.multipoints(shapely.points(target[end]), indices=index)
        moved[at] = shapely.snap(moved[at], corners, _BESIDE * self.unit_px)
        return moved


@dataclass(frozen=True, slots=True)
class _Walls:
    """Walls of polygons, which lie at their left.

    Args:
        corner: (vertices, 2) all vertices, those of closed rings one after the other.
        first: (n,) vertex at which each wall begins; it ends at the next one.
        owner: (n,) polygon of each wall.
        along: (n, 2) unit vectors.
        length: (n,) lengths.
    """

    corner: Floats
    first: Ints
    owner: Ints
    along: Floats
    length: Floats

    @classmethod
    def of(cls, shape: Polygons) -> _Walls:
        """Return the walls of oriented polygons."""
        rings, polygon = shapely.get_rings(shape, return_index=True)
        corner, ring = shapely.get_coordinates(rings, return_index=True)
        first = np.flatnonzero(ring[1:] == ring[:-1])
        span = corner[first + 1] - corner[first]
        length = np.hypot(*span.T)
        return cls(
            corner, first, polygon[ring[first]], span / length.clip(min=GRID_PX)[:, None], length
        )

    def facing(self, pairs: Ints, unit: float) -> tuple[Ints, Ints]:
        """Return the walls (k,) and (k,) that face each other, of pairs (2, m) of polygons."""
        begin, end = self.corner[self.first], self.corner[self.first + 1]
        lines = np.asarray(shapely.linestrings(np.stack([begin, end], axis=1)), np.object_)
        one, other = shapely.STRtree(lines).query(lines, "dwithin", distance=_GAP * unit)
        near = _are_pairs(self.owner[one], self.owner[other], pairs)
        one, other = one[near], other[near]
        along = self.along[one]
        opposite = (along * self.along[other]).sum(axis=1) < -_PARALLEL
        one, other, along = one[opposite], other[opposite], along[opposite]
        # In the frame of the first wall, whose outside is at larger `away`.
        from_begin, to_end = begin[other] - begin[one], end[other] - begin[one]
        start, stop = (from_begin * along).sum(axis=1), (to_end * along).sum(axis=1)
        low, high = stop.clip(min=0), np.minimum(start, self.length[one])
        away, away_end = (
            gap[:, 0] * along[:, 1] - gap[:, 1] * along[:, 0] for gap in (from_begin, to_end)
        )
        gap = away + (away_end - away) * ((low + high) / 2 - start) / (stop - start)
        shorter = np.minimum(self.length[one], self.length[other])
        faces = high - low >= np.maximum(_FACING_SHARE * shorter, _FACING * unit)
        faces &= (gap < _GAP * unit) & (gap > -_OVERLAP * unit)
        return one[faces], other[faces]

    def shifts(self, one: Ints, other: Ints, place: Ints, places: Floats) -> Floats:
        """Return (places, 2) the movements of corners that bring walls to the line between them.

        Args:
            one, other: (k,) walls that face each other.
            place: (vertices,) place of each vertex.
            places: (places, 2) their positions.
        """
        facing = np.unique(np.concatenate([one, other]))
        _, line = np.unique(components(len(self.first), one, other)[facing], return_inverse=True)
        count = int(line.max(initial=-1)) + 1
        first, length = self.first[facing], self.length[facing]
        # Directions modulo a half turn.
        x, y = self.along[facing].T * length
        cosine, sine = np.bincount(line, x * x - y * y, count), np.bincount(line, 2 * x * y, count)
        angle = np.arctan2(sine, cosine) / 2
        across = np.stack([-np.sin(angle), np.cos(angle)], axis=1)
        middle = (self.corner[first] + self.corner[first + 1]) / 2
        away = length * (middle * across[line]).sum(axis=1)
        away = np.bincount(line, away, count) / np.bincount(line, length, count)
        # Each line draws a corner once.
        ends = place[np.concatenate([first, first + 1])]
        at, line = np.unique(np.stack([ends, np.tile(line, 2)]), axis=1)
        across, left = across[line], away[line] - (places[at] * across[line]).sum(axis=1)
        x, y = across.T
        xx, xy, yy, dx, dy = (
            np.bincount(at, term, len(places)) for term in (x * x, x * y, y * y, x * left, y * left)
        )
        # The smallest movement that brings the corner to all lines (ridge regression).
        square = np.array([[xx + _RIDGE, xy], [xy, yy + _RIDGE]]).T
        shift = np.linalg.solve(square, np.stack([dx, dy], axis=1)[:, :, None])
        return np.asarray(shift[:, :, 0], np.float64)


def _are_pairs(one: Ints, other: Ints, pairs: Ints) -> Bools:
    """Return (k,) True where one (k,) and other (k,) are among pairs (2, m), in this order."""
    count = max(other.max(initial=0), pairs.max(initial=0)) + 1
    return np.asarray(np.isin(one * count + other, pairs[0] * count + pairs[1]), np.bool_)


def _together(target: Floats, place: Ints, owner: Ints, pairs: Ints, reach_px: float) -> Ints:
    """Return (places,) a number that corners of neighbours that lie together have in common.

    Args:
        target: (places, 2) positions.
        place, owner: (n,) place and polygon of each corner.
        pairs: (2, m) pairs of polygons that are neighbours.
        reach_px: Maximum distance between two of them.
    """
    points = np.asarray(shapely.points(target[place]), np.object_)
    one, other = shapely.STRtree(points).query(points, "dwithin", distance=reach_px)
    near = _are_pairs(owner[one], owner[other], pairs)
    label = components(len(target), place[one[near]], place[other[near]])
    # Corners of one building stay apart.
    of, corner = np.unique(np.stack([owner, place]), axis=1)
    (_, corner), times = np.unique(np.stack([of, label[corner]]), axis=1, return_counts=True)
    twice = np.zeros(len(target), np.bool_)
    twice[corner[times > 1]] = True
    return np.where(twice[label], np.arange(len(target)), label)
