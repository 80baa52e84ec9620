"""Each building once, where several scenes show it.

Scenes that overlap see a building twice, and one on the edge of a scene is cut by it. The rule:

1.  A polygon is *cut* where it comes within 1.5 px of the edge of its scene's valid data, else
    *whole*. Only polygons that lie within 2 px of another scene's valid data are compared at all.
2.  Polygons of different scenes that have half of the smaller one in common, or more, show the same
    building, unless both are cut. Of these, whole ones go before cut ones, then the one that is
    farther from its scene's edge, then the one of the finer scene, then that of the earlier scene
    of the catalogue. Taken in that order, each is kept unless one that is kept shows the same.
3.  Kept polygons of different scenes that are both cut, and lie side by side along 3 px or more or
    on each other, are pieces of one building: their union, the gap between them closed.
4.  What is kept and still overlaps by less than half loses the common part to the one that goes
    before; a rest of less than a quarter goes, too. So no ground is counted twice.

What is decided depends on the polygons that are connected by such pairs, never on the order in
which scenes come. Polygons of one scene are not compared with each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.types import GeoGrid
from rooftrace.vector.footprints import make_footprints, metres_per_px

__all__ = [
    "CUT_PX",
    "NEAR_PX",
    "Pairs",
    "Sightings",
    "components",
    "distances_m",
    "find_pairs",
    "metres_per_degree",
    "settle",
]

CUT_PX = 1.5
NEAR_PX = 2.0
_SAME = 0.5
_MEET_PX = 3.0
_LEAST_REST = 0.25

_DEGREES = GeoGrid((1, 1), Affine.identity(), CRS.from_user_input("OGC:CRS84"))

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Polygons = NDArray[np.object_]


@dataclass(frozen=True)
class Sightings:
    """Polygons of any scenes, in degrees of longitude and latitude.

    Args:
        geometry: (n,) polygons.
        scene: (n,) the place of each one's scene in the catalogue.
        number: (n,) of each in its scene.
        score: (n,) float32, as in `Footprints`.
        class_id: (n,) uint8; those of different classes are not compared.
        area_m2, perimeter_m, orientation_deg, rectangularity: (n,) as in `Footprints`.
        cut: (n,) bool.
        edge_m: (n,) from the edge of the valid data, where another scene is near; else NaN.
        gsd_m: (n,) of the scene.
        seen: (n,) how many scenes show it.
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
    cut: Bools
    edge_m: Floats
    gsd_m: Floats
    seen: Ints

    def __len__(self) -> int:
        return len(self.geometry)

    def of(self, chosen: Ints | Bools) -> Sightings:
        """Some of them."""
        return Sightings(*(getattr(self, one.name)[chosen] for one in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Sightings]) -> Sightings:
        """One or more, one after the other."""
        columns = ([getattr(part, one.name) for part in parts] for one in fields(cls))
        return cls(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True)
class Pairs:
    """Polygons that have to do with each other.

    Args:
        one, other: (m,) positions.
        same: (m,) whether they show one building.
        meet: (m,) whether they are pieces of one; else they overlap a little.
    """

    one: Ints
    other: Ints
    same: Bools
    meet: Bools

    def __len__(self) -> int:
        return len(self.one)

    def of(self, chosen: Bools) -> Pairs:
        """Some of them."""
        return Pairs(*(getattr(self, one.name)[chosen] for one in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        """One or more, one after the other."""
        columns = ([getattr(part, one.name) for part in parts] for one in fields(cls))
        return cls(*(np.concatenate(column) for column in columns))


def find_pairs(new: Sightings, known: Sightings) -> Pairs:
    """Which polygons of a scene have to do with which ones of others.

    Args:
        new: of one scene.
        known: of others.

    Returns:
        `one` in `new`, `other` in `known`.
    """
    if not len(new) or not len(known):
        none = np.zeros(0, np.int64)
        return Pairs(none, none, none.astype(np.bool_), none.astype(np.bool_))
    reach = CUT_PX * max(new.gsd_m.max(), known.gsd_m.max())
    steps = _steps(new.geometry[:1])[0]
    low, high = np.split(shapely.bounds(new.geometry), 2, axis=1)
    # Twice as far as needed, since a degree of longitude is not as long everywhere.
    boxes = shapely.box(*(low - 2 * reach / steps).T, *(high + 2 * reach / steps).T)
    one, other = shapely.STRtree(known.geometry).query(boxes)
    alike = (new.class_id[one] == known.class_id[other]) & (new.scene[one] != known.scene[other])
    one, other = one[alike], other[alike]
    first, second = new.geometry[one], known.geometry[other]
    common = shapely.area(shapely.intersection(first, second))
    smaller = np.minimum(shapely.area(first), shapely.area(second))
    same = common >= _SAME * smaller
    meet = np.zeros(len(one), np.bool_)
    both = np.flatnonzero(new.cut[one] & known.cut[other])
    if len(both):
        gsd_m = np.maximum(new.gsd_m[one[both]], known.gsd_m[other[both]])
        meet[both] = _contact_m(first[both], second[both], gsd_m) >= _MEET_PX * gsd_m
    same &= ~meet
    chosen = same | meet | (common > 0)
    return Pairs(one[chosen], other[chosen], same[chosen], meet[chosen])


def settle(known: Sightings, pairs: Pairs) -> Sightings:
    """One polygon for each building.

    Args:
        known: polygons of some scenes.
        pairs: all that there are among them.
    """
    kept = np.ones(len(known), np.bool_)
    seen = known.seen.copy()
    partners: dict[int, list[tuple[int, bool, bool]]] = {}
    for one, other, same, meet in zip(
        pairs.one.tolist(), pairs.other.tolist(), pairs.same.tolist(), pairs.meet.tolist()
    ):
        partners.setdefault(one, []).append((other, same, meet))
        partners.setdefault(other, []).append((one, same, meet))
    keys = (known.number, known.scene, known.gsd_m, -known.edge_m, known.cut)
    rank = np.empty(len(known), np.int64)
    rank[np.lexsort(keys)] = np.arange(len(known))
    scenes: dict[int, set[int]] = {}
    for index in sorted(partners, key=lambda at: int(rank[at])):
        before = [
            other
            for other, same, _ in partners[index]
            if same and rank[other] < rank[index] and kept[other]
        ]
        if before:
            kept[index] = False
            first = min(before, key=lambda at: int(rank[at]))
            shown = scenes.setdefault(first, {int(known.scene[first])})
            shown.add(int(known.scene[index]))
            seen[first] = len(shown)
    known = replace(known, seen=seen)
    groups = _pieces(partners, kept)
    merged = _merged(known, groups)
    alone = kept.copy()
    for group in groups:
        alone[group] = False
    rest = _without_common(known, partners, kept, alone, rank)
    parts = [rest, *([merged] if len(merged) else [])]
    return Sightings.joined(parts)


def _pieces(partners: dict[int, list[tuple[int, bool, bool]]], kept: Bools) -> list[list[int]]:
    """Kept polygons that are pieces of one, two or more together."""
    found: list[list[int]] = []
    visited: set[int] = set()
    for index in partners:
        if index in visited or not kept[index]:
            continue
        group, todo = [], [index]
        visited.add(index)
        while todo:
            at = todo.pop()
            group.append(at)
            for other, _, meet in partners[at]:
                if meet and kept[other] and other not in visited:
                    visited.add(other)
                    todo.append(other)
        if len(group) > 1:
            found.append(sorted(group))
    return found


def _merged(known: Sightings, groups: Sequence[list[int]]) -> Sightings:
    """One polygon for each group of pieces."""
    made = []
    for group in groups:
        own = known.of(np.array(group))
        reach = CUT_PX * float(own.gsd_m.max()) / 2
        steps = np.tile(_steps(own.geometry[:1]), (len(own), 1))
        grown = shapely.buffer(_scaled(own.geometry, steps), reach, join_style="mitre")
        closed = shapely.buffer(shapely.union_all(grown), -reach, join_style="mitre")
        pieces = shapely.get_parts(np.array([closed], np.object_))
        whole = _scaled(pieces, np.tile(1 / steps[:1], (len(pieces), 1)))
        for piece in whole:
            # Of the piece that goes before the others; scores by area.
            first = int(np.lexsort((own.number, own.scene))[0])
            score = float(np.average(own.score, weights=np.maximum(own.area_m2, 1e-9)))
            one = own.of(np.array([first]))
            made.append(
                replace(
                    one,
                    geometry=np.array([piece], np.object_),
                    score=np.array([score], np.float32),
                    cut=np.zeros(1, np.bool_),
                    seen=np.array([len(set(own.scene.tolist()))]),
                )
            )
    if not made:
        return known.of(np.zeros(0, np.int64))
    return _measured(Sightings.joined(made))


def _without_common(
    known: Sightings, partners: dict[int, list[tuple[int, bool, bool]]], kept: Bools,
    alone: Bools, rank: Ints,
) -> Sightings:  # fmt: skip
    """What is kept as it is, without what it has in common with those that go before."""
    geometry = known.geometry.copy()
    changed: list[int] = []
    lost: list[int] = []
    for index in sorted(partners, key=lambda at: int(rank[at])):
        if not alone[index]:
            continue
        others = [
            other
            for other, same, _ in partners[index]
            if not same and kept[other] and (rank[other] < rank[index] or not alone[other])
        ]
        if not others:
            continue
        rest = geometry[index]
        for other in others:
            rest = shapely.difference(rest, geometry[other])
        polygons = [one for one in shapely.get_parts(rest) if one.geom_type == "Polygon"]
        largest = max(polygons, key=lambda one: float(one.area), default=None)
        if largest is None or largest.area < _LEAST_REST * geometry[index].area:
            lost.append(index)
        elif not largest.equals(geometry[index]):
            geometry[index] = largest
            changed.append(index)
    alone = alone.copy()
    alone[lost] = False
    as_it_is = alone.copy()
    as_it_is[changed] = False
    known = replace(known, geometry=geometry)
    parts = [known.of(as_it_is)]
    if changed:
        parts.append(_measured(known.of(np.array(changed))))
    return Sightings.joined(parts)


def _measured(sightings: Sightings) -> Sightings:
    """With the figures of what the polygons are now."""
    made = make_footprints(sightings.geometry, sightings.score, _DEGREES)
    assert made.perimeter_m is not None
    assert made.orientation_deg is not None
    assert made.rectangularity is not None
    return replace(
        sightings, area_m2=made.area_m2, perimeter_m=made.perimeter_m,
        orientation_deg=made.orientation_deg, rectangularity=made.rectangularity,
    )  # fmt: skip


def _contact_m(first: Polygons, second: Polygons, gsd_m: Floats) -> Floats:
    """(n,) along how much of their outlines two polygons lie side by side, in metres.

    Of those that overlap it is more.
    """
    # The same for both, whichever comes first.
    places = (shapely.bounds(first) + shapely.bounds(second))[:, :2] / 2
    steps = metres_per_degree(places)
    one, other = (_scaled(polygons, steps) for polygons in (first, second))
    reach = CUT_PX * gsd_m
    near = shapely.intersection(shapely.buffer(one, reach, join_style="mitre"), other)
    back = shapely.intersection(shapely.buffer(other, reach, join_style="mitre"), one)
    return np.asarray((shapely.area(near) + shapely.area(back)) / (2 * reach), np.float64)


def _scaled(polygons: Polygons, steps: Floats) -> Polygons:
    xy, owner = shapely.get_coordinates(polygons, return_index=True)
    return np.asarray(shapely.set_coordinates(polygons.copy(), xy * steps[owner]), np.object_)


def _steps(polygons: Polygons) -> Floats:
    return metres_per_degree(shapely.bounds(polygons)[:, :2])


def metres_per_degree(lonlat: Floats) -> Floats:
    """(n, 2) of longitude and of latitude, on the ellipsoid."""
    local = metres_per_px(_DEGREES, lonlat)
    return np.stack([local[:, 0, 0], local[:, 1, 1]], axis=1)


def distances_m(polygons: Polygons, edge: shapely.Geometry) -> Floats:
    """(n,) from polygons to a line, all of them in degrees, in metres near the first polygon."""
    if not len(polygons):
        return np.zeros(0)
    steps = _steps(polygons[:1])[0]
    line = shapely.transform(edge, lambda xy: xy * steps)
    return np.asarray(
        shapely.distance(_scaled(polygons, np.tile(steps, (len(polygons), 1))), line), np.float64
    )


def components(count: int, edges: Iterable[tuple[int, int]]) -> Ints:
    """(count,) a number for each node, the same for those that edges connect."""
    parent = list(range(count))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for one, other in edges:
        first, second = root(one), root(other)
        if first != second:
            parent[max(first, second)] = min(first, second)
    return np.array([root(at) for at in range(count)], np.int64)
