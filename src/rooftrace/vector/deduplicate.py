"""One polygon for each building that several overlapping scenes show.

Scenes that overlap show a building twice, and a building at the edge of a scene is cut off. The
rules are:

1.  A polygon is *cut* if it comes within 1.5 px of the edge of its scene's valid data, otherwise
    *whole*. Only polygons within 2 px of another scene's valid data are compared.
2.  Polygons of different scenes that share at least half of the smaller one show the same building,
    unless they are pieces (rule 3). Whole polygons rank before cut ones, then the one farther from
    its scene's edge, then the one of the finer scene, then that of the earlier scene of the
    catalogue. In this order each polygon is kept unless a kept one shows the same building.
3.  Kept polygons of different scenes that are both cut, and adjoin along 3 px or more or overlap,
    are pieces of one building, unless a scene sees the other piece itself: it then draws it as a
    building of its own (of two that share half of the smaller one: unless both scenes do). Pieces
    become their union, with the gap between them closed; it is cut by the edge of both scenes.
4.  A kept polygon that still overlaps a higher-ranking one by less than half loses the common part.
    If less than a quarter remains, it is dropped. So no ground is counted twice.

The result depends on the polygons that such pairs connect, never on the order of the scenes.
Polygons of one scene are not compared with each other. `DetectionAccumulator` applies the rules
scene after scene and holds only the polygons that later scenes may still change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from rooftrace.core.arrays import components
from rooftrace.core.types import BoolArray, Floats, GeoGrid, Ints, Polygons
from rooftrace.io.reproject import CRS84
from rooftrace.vector.footprints import CUT_PX, make_footprints, metres_per_px
from rooftrace.vector.trace import Columns

NEAR_PX = 2.0
SAME_SHARE = 0.5
"""Minimum share of the smaller one of two polygons that both have in common, where they show the
same building."""

_MEET_PX = 3.0
_MIN_REST_SHARE = 0.25

_DEGREES = GeoGrid((1, 1), Affine.identity(), CRS84)


@dataclass(frozen=True)
class CandidateDetections(Columns):
    """Polygons of any scenes, in degrees of longitude and latitude.

    Args:
        geometry: (n,) polygons.
        scene: (n,) index of each polygon's scene in the catalogue.
        number: (n,) index of each polygon in its scene.
        score: (n,) float32, as in `Footprints`.
        class_id: (n,) uint8; polygons of different classes are not compared.
        area_m2, perimeter_m, orientation_deg, rectangularity: (n,) as in `Footprints`.
        cut: (n,) bool, True where the edge of the scene cuts the polygon.
        edge_m: (n,) distance to the edge of the valid data where another scene is near, else NaN.
        gsd_m: (n,) metres per pixel of the scene.
        seen: (n,) number of scenes that show the building.
    """

    geometry: Polygons
    scene: Ints
    number: Ints
    score: NDArray[np.float32]
    class_id: NDArray[np.uint8]
    area_m2: Floats
    perimeter_m: Floats
    orientation_deg: Floats
    rectangularity: Floats
    cut: BoolArray
    edge_m: Floats
    gsd_m: Floats
    seen: Ints


@dataclass(frozen=True)
class DetectionPairs(Columns):
    """Pairs of polygons that may show one building.

    Args:
        one, other: (m,) positions of the two polygons.
        same: (m,) True where both show one building.
        meet: (m,) True where they are pieces of one building; otherwise they overlap a little.
    """

    one: Ints
    other: Ints
    same: BoolArray
    meet: BoolArray

    @classmethod
    def none(cls) -> DetectionPairs:
        none = np.zeros(0, np.int64)
        return cls(none, none, none.astype(np.bool_), none.astype(np.bool_))


def match_detections(
    new: CandidateDetections, known: CandidateDetections, outlines: NDArray[np.object_]
) -> DetectionPairs:
    """Return the pairs of a scene's polygons with polygons of other scenes.

    Args:
        new: Polygons of one scene.
        known: Polygons of other scenes.
        outlines: Outlines of the valid data of all scenes, in degrees, by index of the scene.

    Returns:
        Pairs with `one` in `new` and `other` in `known`.
    """
    if not len(new) or not len(known):
        return DetectionPairs.none()
    reach = CUT_PX * max(new.gsd_m.max(), known.gsd_m.max())
    steps = _steps(new.geometry[:1])[0]
    low, high = np.split(shapely.bounds(new.geometry), 2, axis=1)
    # Twice the needed distance, since the length of a degree of longitude varies.
    boxes = shapely.box(*(low - 2 * reach / steps).T, *(high + 2 * reach / steps).T)
    one, other = shapely.STRtree(known.geometry).query(boxes)
    alike = (new.class_id[one] == known.class_id[other]) & (new.scene[one] != known.scene[other])
    one, other = one[alike], other[alike]
    first, second = new.geometry[one], known.geometry[other]
    common = shapely.area(shapely.intersection(first, second))
    smaller = np.minimum(shapely.area(first), shapely.area(second))
    same = common >= SAME_SHARE * smaller
    meet = np.zeros(len(one), np.bool_)
    both = np.flatnonzero(new.cut[one] & known.cut[other])
    if len(both):
        gsd_m = np.maximum(new.gsd_m[one[both]], known.gsd_m[other[both]])
        adjoin = _contact_m(first[both], second[both], gsd_m) >= _MEET_PX * gsd_m
        both, gsd_m = both[adjoin], gsd_m[adjoin]
        seen = (
            _is_in_scene(outlines[known.scene[other[both]]], first[both], gsd_m),
            _is_in_scene(outlines[new.scene[one[both]]], second[both], gsd_m),
        )
        meet[both] = np.where(same[both], ~(seen[0] & seen[1]), ~(seen[0] | seen[1]))
    same &= ~meet
    chosen = same | meet | (common > 0)
    return DetectionPairs(one[chosen], other[chosen], same[chosen], meet[chosen])


def deduplicate(
    known: CandidateDetections, pairs: DetectionPairs, outlines: NDArray[np.object_]
) -> CandidateDetections:
    """Return one polygon for each building.

    Args:
        outlines: Outlines of the valid data of all scenes, in degrees, by index of the scene.
    """
    seen = known.seen.copy()
    partners: dict[int, list[int]] = {}
    different = pairs.of(~pairs.same)
    for one, other in zip(different.one.tolist(), different.other.tolist()):
        partners.setdefault(one, []).append(other)
        partners.setdefault(other, []).append(one)
    keys = (known.number, known.scene, known.gsd_m, -known.edge_m, known.cut)
    rank = np.empty(len(known), np.int64)
    rank[np.lexsort(keys)] = np.arange(len(known))
    best = keep_best(rank, pairs.one[pairs.same], pairs.other[pairs.same])
    kept = best == np.arange(len(known))
    scenes: dict[int, set[int]] = {}
    for index in np.flatnonzero(~kept).tolist():
        first = int(best[index])
        shown = scenes.setdefault(first, {int(known.scene[first])})
        shown.add(int(known.scene[index]))
        seen[first] = len(shown)
    known = replace(known, seen=seen)
    groups = _pieces(pairs, kept)
    merged = _merged(known, groups, outlines)
    alone = kept.copy()
    for group in groups:
        alone[group] = False
    rest = _without_common(known, partners, kept, alone, rank)
    return CandidateDetections.joined([rest, merged])


def keep_best(rank: Ints, one: Ints, other: Ints) -> Ints:
    """Find the polygons that are kept, of pairs that show the same building.

    Each polygon is kept, in the order of their ranks, unless a kept one shows the same building.

    Args:
        rank: (n,) rank of each polygon, the best first; no two are equal.
        one, other: (pairs,) positions of the two polygons.

    Returns:
        (n,) position of the polygon that stands for each one: itself where it is kept.
    """
    best = np.arange(len(rank))
    is_first = rank[one] < rank[other]
    better, worse = np.where(is_first, one, other), np.where(is_first, other, one)
    order = np.lexsort((rank[better], rank[worse]))
    for first, second in zip(better[order].tolist(), worse[order].tolist()):
        if best[second] == second and best[first] == first:
            best[second] = first
    return best


def _pieces(pairs: DetectionPairs, kept: BoolArray) -> list[list[int]]:
    """Return groups of two or more kept polygons (n,) that are pieces of one building."""
    meeting = pairs.of(pairs.meet & kept[pairs.one] & kept[pairs.other])
    label = components(len(kept), meeting.one, meeting.other)
    members = np.flatnonzero(np.bincount(label, minlength=len(kept))[label] > 1)
    members = members[np.argsort(label[members], kind="stable")]
    starts = np.flatnonzero(np.diff(label[members], prepend=-1))
    return [group.tolist() for group in np.split(members, starts[1:]) if len(group)]


def _merged(
    known: CandidateDetections, groups: Sequence[list[int]], outlines: NDArray[np.object_]
) -> CandidateDetections:
    """Return one polygon for each group of pieces, cut where the edge of all their scenes cuts it.

    The arguments are those of `deduplicate`.
    """
    made = []
    for group in groups:
        own = known.of(np.array(group))
        reach = CUT_PX * float(own.gsd_m.max()) / 2
        steps = _steps(own.geometry[:1])[0]
        closed = _joined(own.geometry, steps, reach)
        low, high = np.split(shapely.total_bounds(own.geometry), 2)
        around = shapely.box(*(low - 9 * reach / steps), *(high + 9 * reach / steps))
        scenes = shapely.intersection(outlines[np.unique(own.scene)], around)
        edge = shapely.boundary(_joined(scenes, steps, reach))
        pieces = shapely.get_parts(np.array([closed], np.object_))
        cut = shapely.distance(pieces, edge) <= 2 * reach
        whole = _scaled(pieces, np.tile(1 / steps, (len(pieces), 1)))
        for piece, is_cut in zip(whole, cut):
            # Attributes come from the highest-ranking piece; the score is the mean by area.
            first = int(np.lexsort((own.number, own.scene))[0])
            score = float(np.average(own.score, weights=np.maximum(own.area_m2, 1e-9)))
            one = own.of(np.array([first]))
            made.append(
                replace(
                    one,
                    geometry=np.array([piece], np.object_),
                    score=np.array([score], np.float32),
                    cut=np.array([is_cut]),
                    seen=np.array([len(set(own.scene.tolist()))]),
                )
            )
    if not made:
        return known.of(np.zeros(0, np.int64))
    return measured(CandidateDetections.joined(made))


def _joined(polygons: Polygons, steps: Floats, reach: float) -> shapely.Geometry:
    """Return the union of polygons in metres, with gaps of up to twice `reach` closed."""
    grown = shapely.buffer(_scaled(polygons, np.tile(steps, (len(polygons), 1))), reach,
                           join_style="mitre")  # fmt: skip
    return shapely.buffer(shapely.union_all(grown), -reach, join_style="mitre")


def _without_common(
    known: CandidateDetections,
    partners: dict[int, list[int]],
    kept: BoolArray,
    alone: BoolArray,
    rank: Ints,
) -> CandidateDetections:
    """Return the kept polygons without the parts that higher-ranking ones cover."""
    geometry = known.geometry.copy()
    changed: list[int] = []
    lost: list[int] = []
    for index in sorted(partners, key=lambda at: int(rank[at])):
        if not alone[index]:
            continue
        others = [
            other
            for other in partners[index]
            if kept[other] and (rank[other] < rank[index] or not alone[other])
        ]
        if not others:
            continue
        rest = geometry[index]
        for other in others:
            rest = shapely.difference(rest, geometry[other])
        polygons = [one for one in shapely.get_parts(rest) if one.geom_type == "Polygon"]
        largest = max(polygons, key=lambda one: float(one.area), default=None)
        if largest is None or largest.area < _MIN_REST_SHARE * geometry[index].area:
            lost.append(index)
        elif not largest.equals(geometry[index]):
            geometry[index] = largest
            changed.append(index)
    as_it_is = alone.copy()
    as_it_is[lost + changed] = False
    known = replace(known, geometry=geometry)
    parts = [known.of(as_it_is)]
    if changed:
        parts.append(measured(known.of(np.array(changed))))
    return CandidateDetections.joined(parts)


def measured(detections: CandidateDetections) -> CandidateDetections:
    """Return the polygons with figures of their present shapes."""
    made = make_footprints(detections.geometry, detections.score, _DEGREES)
    assert made.perimeter_m is not None
    assert made.orientation_deg is not None
    assert made.rectangularity is not None
    return replace(
        detections, area_m2=made.area_m2, perimeter_m=made.perimeter_m,
        orientation_deg=made.orientation_deg, rectangularity=made.rectangularity,
    )  # fmt: skip


def _contact_m(first: Polygons, second: Polygons, gsd_m: Floats) -> Floats:
    """Return (n,) lengths in metres along which two polygons lie side by side.

    The length is larger for polygons that overlap.
    """
    # The scale is the same for both polygons, in either order.
    places = (shapely.bounds(first) + shapely.bounds(second))[:, :2] / 2
    steps = metres_per_degree(places)
    one, other = (_scaled(polygons, steps) for polygons in (first, second))
    reach = CUT_PX * gsd_m
    near = shapely.intersection(shapely.buffer(one, reach, join_style="mitre"), other)
    back = shapely.intersection(shapely.buffer(other, reach, join_style="mitre"), one)
    return np.asarray((shapely.area(near) + shapely.area(back)) / (2 * reach), np.float64)


def _is_in_scene(outlines: NDArray[np.object_], polygons: Polygons, gsd_m: Floats) -> BoolArray:
    """Return (n,) True where a scene sees a polygon of another scene.

    At least half of it lies in the scene's valid data, and the rest is at most `CUT_PX` wide.
    """
    outside = shapely.difference(polygons, outlines)
    is_inside = shapely.area(outside) <= shapely.area(polygons) / 2
    rest = _scaled(outside, _steps(polygons))
    is_narrow = shapely.is_empty(shapely.buffer(rest, -CUT_PX * gsd_m / 2))
    return np.asarray(is_inside & is_narrow, np.bool_)


def _scaled(polygons: Polygons, steps: Floats) -> Polygons:
    xy, owner = shapely.get_coordinates(polygons, return_index=True)
    return np.asarray(shapely.set_coordinates(polygons.copy(), xy * steps[owner]), np.object_)


def _steps(polygons: Polygons) -> Floats:
    return metres_per_degree(shapely.bounds(polygons)[:, :2])


def metres_per_degree(lonlat: Floats) -> Floats:
    """Return (n, 2) metres per degree of longitude and of latitude on the ellipsoid."""
    local = metres_per_px(_DEGREES, lonlat)
    return np.stack([local[:, 0, 0], local[:, 1, 1]], axis=1)


def distances_m(polygons: Polygons, edge: shapely.Geometry) -> Floats:
    """Return (n,) distances from polygons to a line in metres; both are in degrees.

    The scale is that at the first polygon.
    """
    if not len(polygons):
        return np.zeros(0)
    steps = _steps(polygons[:1])[0]
    line = shapely.transform(edge, lambda xy: xy * steps)
    return np.asarray(
        shapely.distance(_scaled(polygons, np.tile(steps, (len(polygons), 1))), line), np.float64
    )


_MIN_HELD = 20_000
"""Number of polygons that are held before the first search for final ones."""


class DetectionAccumulator:
    """Accumulate the buildings of scenes, and return those that no later scene can change.

    It holds the polygons that lie near another scene, until all scenes near those connected with
    them have arrived. If scenes arrive in spatial order, these are the polygons along the line
    between scenes that have arrived and scenes that have not.

    Args:
        outlines: (n,) outlines of the valid data of each scene in degrees; None where there is
            none. Longitudes of all scenes, and of their buildings, go on without a jump.
        gsd_m: (n,) metres per pixel of each scene.
    """

    def __init__(self, outlines: Sequence[Any], gsd_m: Sequence[float]) -> None:
        self.most_held = 0
        self._outlines = np.array(
            [shapely.Polygon() if one is None else one for one in outlines], np.object_
        )
        self._gsd_m = np.array(gsd_m, float)
        self._near = self._neighbours()
        self._arrived = np.zeros(len(self._outlines), np.bool_)
        self._held: CandidateDetections | None = None
        self._ids = np.zeros(0, np.int64)
        self._count = 0
        self._pairs: list[DetectionPairs] = []
        """Pairs of polygons by their ids."""

        self._search_at = _MIN_HELD

    def add(self, scene: int, found: CandidateDetections) -> list[CandidateDetections]:
        """Add the buildings of a scene; each scene once.

        Args:
            found: Polygons of the scene; `edge_m` is ignored, and `cut` near another scene.

        Returns:
            Polygons that are final, of this scene and of others.
        """
        assert not self._arrived[scene]
        self._arrived[scene] = True
        contested = self._contested(scene, found)
        final = [found.of(~contested)]
        new = found.of(contested)
        edge_m = distances_m(new.geometry, shapely.boundary(self._outlines[scene]))
        new = replace(new, cut=edge_m <= CUT_PX * self._gsd_m[scene], edge_m=edge_m)
        if len(new):
            ids = np.arange(self._count, self._count + len(new))
            self._count += len(new)
            if self._held is None:
                self._held, self._ids = new, ids
            else:
                pairs = match_detections(new, self._held, self._outlines)
                self._pairs.append(replace(pairs, one=ids[pairs.one], other=self._ids[pairs.other]))
                self._held = CandidateDetections.joined([self._held, new])
                self._ids = np.concatenate([self._ids, ids])
            self.most_held = max(self.most_held, len(self._held))
        if self._held is not None and len(self._held) > self._search_at:
            final += self._take_final()
            self._search_at = max(_MIN_HELD, 2 * len(self._ids))
        return [part for part in final if len(part)]

    def finish(self) -> list[CandidateDetections]:
        """Return the polygons that were held, after all scenes have arrived or failed."""
        self._arrived[:] = True
        return self._take_final()

    def _neighbours(self) -> list[NDArray[np.int64]]:
        """Return, for each scene, the other scenes near it."""
        near: list[list[int]] = [[] for _ in self._outlines]
        known = np.flatnonzero(~shapely.is_empty(self._outlines))
        if len(known):
            bounds = shapely.bounds(self._outlines[known])
            reach = self._reach(known)
            low, high = bounds[:, :2] - reach, bounds[:, 2:] + reach
            boxes: NDArray[np.object_] = np.asarray(shapely.box(*low.T, *high.T))
            for one, other in shapely.STRtree(boxes).query(boxes).T.tolist():
                if one != other:
                    near[known[one]].append(int(known[other]))
        return [np.array(sorted(own), np.int64) for own in near]

    def _reach(self, scenes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (n, 2) distances in degrees within which scenes are near."""
        corners = shapely.bounds(self._outlines[scenes])[:, :2]
        return NEAR_PX * self._gsd_m[scenes, None] / metres_per_degree(corners)

    def _contested(self, scene: int, found: CandidateDetections) -> NDArray[np.bool_]:
        """Return True for polygons of a scene that lie near another scene's valid data."""
        contested = np.zeros(len(found), np.bool_)
        for other in self._near[scene].tolist():
            reach = max(self._reach(np.array([scene, other])).max(axis=1))
            grown = shapely.buffer(self._outlines[other], reach, join_style="mitre")
            shapely.prepare(grown)
            contested |= shapely.intersects(grown, found.geometry)
        return contested

    def _take_final(self) -> list[CandidateDetections]:
        """Return the final polygons: no scene to come is near them or those connected with them."""
        held = self._held
        if held is None:
            return []
        pairs = DetectionPairs.joined([DetectionPairs.none(), *self._pairs])
        complete = np.array([bool(self._arrived[near].all()) for near in self._near])
        place = np.searchsorted(self._ids, np.stack([pairs.one, pairs.other]))
        group = components(len(held), *place)
        open_groups = np.unique(group[~complete[held.scene]])
        ready = ~np.isin(group, open_groups)
        if not ready.any():
            return []
        number = np.cumsum(ready) - 1
        own = ready[place[0]]
        known = replace(pairs.of(own), one=number[place[0][own]], other=number[place[1][own]])
        final = deduplicate(held.of(ready), known, self._outlines)
        left = ~ready
        self._held = held.of(left) if left.any() else None
        self._ids = self._ids[left]
        self._pairs = [pairs.of(~own)]
        return [final]
