"""Straight outlines from polygons that run along pixel edges."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.vector.loops import (
    Loops,
    differences,
    find_vertices,
    moments_between,
    principal_axes,
)
from rooftrace.vector.overlaps import common_area

__all__ = ["MIN_IOU", "acceptable", "douglas_peucker", "meet", "simplify_staircase"]

Floats = NDArray[np.float64]
Polygons = NDArray[np.object_]

# A simpler outline has to remain the same building.
MIN_IOU = 0.85
# Neighbours that meet at a flatter angle than this have no well-placed intersection.
_MIN_SINE = 0.3
# How far a fitted corner may lie from the pixel corner it stands for, in tolerances.
_MAX_SHIFT = 1.5


def simplify_staircase(
    polygons: Polygons, tolerance_px: float, drawn: Polygons | None = None
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
        drawn: (n,) what `douglas_peucker` makes of them, where it is known already.

    Returns:
        (n,) valid polygons in the same order.
    """
    result = polygons.copy()
    if tolerance_px <= 0 or not len(polygons):
        return result
    if drawn is None:
        drawn = douglas_peucker(polygons, tolerance_px)
    fitted, apart = _fitted(polygons, drawn, tolerance_px)
    todo = np.arange(len(polygons))
    for candidate, bound in ((fitted, apart), (drawn, np.full(len(drawn), np.inf))):
        good = acceptable(candidate[todo], polygons[todo], bound[todo])
        result[todo[good]] = candidate[todo[good]]
        todo = todo[~good]
    return result


def douglas_peucker(polygons: Polygons, tolerance_px: float) -> Polygons:
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


def acceptable(candidate: Polygons, raw: Polygons, apart: Floats) -> NDArray[np.bool_]:
    """Valid, and the IoU is large enough; `apart` bounds the symmetric difference from above."""
    good = np.asarray(shapely.is_valid(candidate) & ~shapely.is_empty(candidate))
    both = np.asarray(shapely.area(candidate) + shapely.area(raw))
    # IoU = (A + B - D) / (A + B + D), D being the symmetric difference. For most the bound will do.
    unsure = np.flatnonzero(good & ~(both - apart >= MIN_IOU * (both + apart)))
    common = common_area(candidate[unsure], raw[unsure])
    good[unsure] = common >= MIN_IOU * (both[unsure] - common)
    return good


def _fitted(raw: Polygons, drawn: Polygons, tolerance_px: float) -> tuple[Polygons, Floats]:
    """`drawn`, whose vertices are some of those of `raw`, with corners where fitted lines meet.

    Also (n,) a bound from above of the area in which it differs from `raw`.
    """
    rings, owner = shapely.get_rings(raw, return_index=True)
    stairs, outline = Loops.of(rings), Loops.of(shapely.get_rings(drawn))
    at, found = find_vertices(stairs, outline)
    # Near the origin squares of coordinates keep their digits.
    origin = stairs.vertex[stairs.first[:-1]]
    stairs, outline = stairs.moved(-origin), outline.moved(-origin)
    mean, direction = principal_axes(moments_between(stairs, outline, at))
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
    bound = np.zeros(len(raw))
    apart, ends = differences(stairs, outline, at, moved, direction)
    np.add.at(bound, owner[stairs.ring], apart)
    np.add.at(bound, owner[outline.ring], ends)
    bound[owner[outline.ring[~found]]] = np.inf
    ring = outline.ring[~short]
    made = np.asarray(shapely.linearrings((moved + origin[outline.ring])[~short], indices=ring))
    return np.asarray(shapely.polygons(made, indices=owner), np.object_), bound


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
