"""Straight outlines from polygons that run along pixel edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.vector.corners import Ints
from rooftrace.vector.loops import Loops, find_vertices, moments_between, principal_axes
from rooftrace.vector.overlaps import common_area

__all__ = ["MIN_IOU", "Drawn", "acceptable", "meet", "simplify_staircase"]

Floats = NDArray[np.float64]
Polygons = NDArray[np.object_]

# A simpler outline has to remain the same building.
MIN_IOU = 0.85
# Neighbours that meet at a flatter angle than this have no well-placed intersection.
_MIN_SINE = 0.3
# How far a fitted corner may lie from the pixel corner it stands for, in tolerances.
_MAX_SHIFT = 1.5


def simplify_staircase(
    polygons: Polygons, tolerance_px: float, drawn: Drawn | None = None
) -> Polygons:
    """Outlines with few vertices instead of stairs.

    Douglas-Peucker finds which pixel corners are corners of the building. A line is then fitted to
    the stairs between every two of them (least squares over the outline's length), and corners move
    to where the lines meet, so that an edge runs through the middle of its stairs. A polygon whose
    fit is not valid or has an IoU below `MIN_IOU` with its pixels stays with Douglas-Peucker, and
    where that fails too, as it came.

    Args:
        polygons: (n,) valid shapely polygons on whole pixel coordinates, as `trace` makes them.
        tolerance_px: of Douglas-Peucker, at least 0; 1.25 to 1.5 takes the stairs away.
        drawn: `Drawn.of` them, where it is known already.

    Returns:
        (n,) valid polygons in the same order.
    """
    result = polygons.copy()
    if tolerance_px <= 0 or not len(polygons):
        return result
    drawn = drawn or Drawn.of(polygons, tolerance_px)
    todo = np.arange(len(polygons))
    for candidate in (_fitted(drawn, tolerance_px), drawn.polygons):
        good = acceptable(candidate[todo], polygons[todo])
        result[todo[good]] = candidate[todo[good]]
        todo = todo[~good]
    return result


@dataclass(frozen=True, slots=True)
class Drawn:
    """Outlines whose vertices are some of those of the stairs.

    Args:
        polygons: (n,) as shapely's.
        owner: (rings,) whose ring each is.
        origin: (rings, 2) near which squares of coordinates keep their digits.
        outline: the rings relative to that.
        moments: (corners, 6) of the stairs from each corner to the next, see `moments_between`.
    """

    polygons: Polygons
    owner: Ints
    origin: Floats
    outline: Loops
    moments: Floats

    @classmethod
    def of(cls, raw: Polygons, tolerance_px: float) -> Drawn:
        """By Douglas-Peucker, for stairs (n,) as `trace` makes them."""
        polygons = _douglas_peucker(raw, tolerance_px)
        rings, owner = shapely.get_rings(raw, return_index=True)
        stairs, outline = Loops.of(rings), Loops.of(shapely.get_rings(polygons))
        at = find_vertices(stairs, outline)
        mended = np.unique(owner[_out_of_order(stairs, outline, at)])
        if len(mended):
            polygons[mended] = shapely.simplify(raw[mended], tolerance_px)
            outline = Loops.of(shapely.get_rings(polygons))
            at = find_vertices(stairs, outline)
        origin = stairs.vertex[stairs.first[:-1]]
        stairs, outline = stairs.moved(-origin), outline.moved(-origin)
        return cls(polygons, owner, origin, outline, moments_between(stairs, outline, at))

    def chosen(self, kept: NDArray[np.bool_]) -> Drawn:
        """Some of the polygons (n,)."""
        rings = kept[self.owner]
        number = np.cumsum(kept) - 1
        return Drawn(
            self.polygons[kept], number[self.owner[rings]], self.origin[rings],
            self.outline.chosen(rings), self.moments[rings[self.outline.ring]],
        )  # fmt: skip

    def made(self, vertex: Floats, ring: Ints) -> Polygons:
        """(n,) polygons of new vertices (m, 2), each of a ring (m,) of these."""
        rings = np.asarray(
            shapely.linearrings(vertex + self.origin[ring], indices=ring), np.object_
        )
        return np.asarray(shapely.polygons(rings, indices=self.owner), np.object_)


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


def _out_of_order(stairs: Loops, outline: Loops, at: Ints) -> Ints:
    """Rings that do not go the way of their stairs: a crossing was mended between whole numbers.

    GEOS gives such a ring another beginning, maybe another direction and place among the holes.
    """
    strange = (stairs.vertex[at] != outline.vertex).any(axis=1) | (stairs.ring[at] != outline.ring)
    back = at[outline.after] <= at
    times = np.bincount(outline.ring[back], minlength=len(outline.first) - 1)
    return np.union1d(outline.ring[strange], np.flatnonzero(times != 1))


def acceptable(candidate: Polygons, raw: Polygons) -> NDArray[np.bool_]:
    """(n,) whether each is valid and has an IoU of `MIN_IOU` with its stairs."""
    good = np.asarray(shapely.is_valid(candidate) & ~shapely.is_empty(candidate))
    candidate, raw = candidate[good], raw[good]
    common = common_area(candidate, raw)
    together = shapely.area(candidate) + shapely.area(raw) - common
    good[good] = common >= MIN_IOU * together
    return good


def _fitted(drawn: Drawn, tolerance_px: float) -> Polygons:
    """(n,) with corners where lines meet that were fitted to the stairs."""
    mean, direction = principal_axes(drawn.moments)
    outline = drawn.outline
    before, after, corner = outline.before, outline.after, outline.vertex
    moved = meet(corner, mean[before], direction[before], mean, direction, tolerance_px)
    # A cut corner, or an edge that the fit turned round: its neighbours meet without it.
    edge, chord = moved[after] - moved, corner[after] - corner
    length = np.hypot(chord[:, 0], chord[:, 1])
    short = (edge * chord).sum(axis=1) < tolerance_px * length
    short &= ~short[before] & (np.diff(outline.first) > 4)[outline.ring]
    met = meet(
        *((corner + corner[after]) / 2, mean[before], direction[before]),
        *(mean[after], direction[after], tolerance_px),
    )
    moved[after[short]] = moved[short] = met[short]
    return drawn.made(moved[~short], outline.ring[~short])


def meet(
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
