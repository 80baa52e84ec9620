"""Overlaps of two layers of polygons, and pairs of polygons that show the same building.

`PolygonOverlaps` has the pairs that intersect. `PackedPolygons` and `find_overlaps` do the same for
layers of millions of polygons, block of ground by block of ground: only the polygons of the blocks
at work are in memory, the others in a temporary file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.arrays import in_steps, numbered
from rooftrace.core.errors import DataError
from rooftrace.core.types import BoolArray, Floats, Ints, Polygons
from rooftrace.io.spill_file import SpillFile


def one_to_one(one: Ints, other: Ints, cost: Floats) -> Ints:
    """Choose pairs so that each end occurs once: the pair with the lowest cost first.

    Args:
        one, other: (pairs,) ends of each pair in the two layers.
        cost: (pairs,) cost; of equal costs the lower end in `one`, then in `other`, comes first.

    Returns:
        (m,) indices of the chosen pairs, ordered by their end in `one`.
    """
    # A pair whose ends occur in no other pair is chosen in any order.
    single = np.ones(len(one), np.bool_)
    for ends in (one, other):
        if len(ends):
            single &= np.bincount(ends)[ends] == 1
    kept = np.flatnonzero(single).tolist()
    rest = np.flatnonzero(~single)
    taken: tuple[set[int], set[int]] = set(), set()
    for pair in rest[np.lexsort((other[rest], one[rest], cost[rest]))].tolist():
        ends_of = int(one[pair]), int(other[pair])
        if ends_of[0] not in taken[0] and ends_of[1] not in taken[1]:
            taken[0].add(ends_of[0])
            taken[1].add(ends_of[1])
            kept.append(pair)
    chosen = np.array(kept, np.int64)
    return chosen[np.argsort(one[chosen], kind="stable")]


def shifted(geometry: Polygons, by: Floats) -> Polygons:
    """Return the (n,) polygons after a shift by (n, 2) in x and y."""
    xy, owner = shapely.get_coordinates(geometry, return_index=True)
    # shapely replaces the elements of the array that it is given.
    return np.asarray(shapely.set_coordinates(geometry.copy(), xy + by[owner]), np.object_)


def common_area(one: Polygons, other: Polygons) -> Floats:
    """Return the (n,) area of the intersection of each pair of valid polygons.

    Of some outlines that are equal but for the last digits, GEOS finds no intersection in one order
    of the two. Pairs without one are therefore tried in the other order as well.
    """
    area = np.asarray(shapely.area(shapely.intersection(one, other)))
    none = np.flatnonzero(area == 0)
    area[none] = shapely.area(shapely.intersection(other[none], one[none]))
    return area


def pair_iou(one: Polygons, other: Polygons) -> Floats:
    """Return the (n,) intersection over union of each pair of valid polygons."""
    common = common_area(one, other)
    return np.asarray(common / (shapely.area(one) + shapely.area(other) - common))


@dataclass(frozen=True)
class PolygonOverlaps:
    """All pairs of a polygon of one layer and a polygon of another layer that intersect.

    Args:
        area, area_other: (n,) and (k,) area of each polygon.
        one, other: (pairs,) indices in the two layers.
        common: (pairs,) area of the intersection.
    """

    area: Floats
    area_other: Floats
    one: Ints
    other: Ints
    common: Floats

    @classmethod
    def of(cls, one: Polygons, other: Polygons) -> PolygonOverlaps:
        """Find the pairs among (n,) and (k,) valid polygons of the same plane."""
        index, index_other = shapely.STRtree(one).query(other, predicate="intersects")[::-1]
        common = common_area(one[index], other[index_other])
        return cls(shapely.area(one), shapely.area(other), index, index_other, common)

    @property
    def share(self) -> Floats:
        """(pairs,) part of the first polygon's area that lies in the second one."""
        return np.asarray(self.common / self.area[self.one])

    @property
    def share_other(self) -> Floats:
        """(pairs,) part of the second polygon's area that lies in the first one."""
        return np.asarray(self.common / self.area_other[self.other])

    @property
    def iou(self) -> Floats:
        """(pairs,) intersection over union."""
        union = self.area[self.one] + self.area_other[self.other] - self.common
        return np.asarray(self.common / union)

    def where(self, kept: BoolArray | Ints) -> PolygonOverlaps:
        """Return some of the pairs, of the same layers."""
        return PolygonOverlaps(
            self.area, self.area_other, self.one[kept], self.other[kept], self.common[kept]
        )

    def matches(self, min_iou: float) -> PolygonOverlaps:
        """Return pairs with an IoU of at least `min_iou`: largest IoU first, each polygon once.

        They are ordered by the index in the first layer.
        """
        near = self.where(self.iou >= min_iou)
        # Pairs above a half are unique where neither layer overlaps itself; layers may do so.
        return near.where(one_to_one(near.one, near.other, -near.iou))

    def without(self, usable: BoolArray, usable_other: BoolArray) -> tuple[BoolArray, BoolArray]:
        """Return the polygons left in both layers after unusable ones are removed.

        Polygons with more than half of their area in an unusable polygon of the other layer are
        removed, too. A match lies in its partner by more than that.
        """
        inside = self.common > self.area[self.one] / 2
        inside_other = self.common > self.area_other[self.other] / 2
        left, left_other = usable.copy(), usable_other.copy()
        left[self.one[inside & ~usable_other[self.other]]] = False
        left_other[self.other[inside_other & ~usable[self.one]]] = False
        return left, left_other


_PACKED_AT_ONCE = 50_000


@dataclass(frozen=True)
class SpilledPolygons:
    """Polygons in a temporary file.

    Args:
        start, stop: (n,) offsets of each polygon in the file.
        is_multi: (n,) True for multipolygons.
    """

    spill: SpillFile
    start: Ints
    stop: Ints
    is_multi: BoolArray

    @classmethod
    def of(cls, chunks: Iterable[Polygons], folder: Path | None = None) -> SpilledPolygons:
        """Store chunks of polygons and multipolygons in a temporary file of a folder."""
        spill = SpillFile(folder)
        none = np.zeros(0, np.int64)
        parts: list[tuple[Ints, Ints, BoolArray]] = [(none, none, np.zeros(0, np.bool_))]
        for geometry in chunks:
            offsets = spill.append(geometry)
            is_multi = shapely.get_type_id(geometry) == shapely.GeometryType.MULTIPOLYGON
            parts.append((offsets[:-1], offsets[1:], is_multi))
        start, stop, multi = (np.concatenate(column) for column in zip(*parts))
        return cls(spill, start, stop, multi)

    def __len__(self) -> int:
        return len(self.start)

    def unpack(self, index: Ints | slice | BoolArray) -> Polygons:
        """Return some of the polygons."""
        return self.spill.read(self.start[index], self.stop[index])

    def take(self, index: Ints | BoolArray) -> SpilledPolygons:
        """Return some of the polygons, in the same file."""
        return SpilledPolygons(
            self.spill, self.start[index], self.stop[index], self.is_multi[index]
        )

    def chunks(self) -> Iterator[tuple[slice, Polygons]]:
        """Yield all polygons in their order, and where they are."""
        for start in range(0, len(self), _PACKED_AT_ONCE):
            rows = slice(start, start + _PACKED_AT_ONCE)
            yield rows, self.unpack(rows)


@dataclass(frozen=True)
class PackedPolygons:
    """Polygons of a plane in a temporary file, and a few numbers of each in memory.

    Args:
        bounds: (n, 4) left, bottom, right and top.
        area: (n,) areas.
        centre: (n, 2) x and y of the centroids.
    """

    outlines: SpilledPolygons
    bounds: Floats
    area: Floats
    centre: Floats

    @classmethod
    def of(cls, geometry: Polygons, folder: Path | None = None) -> PackedPolygons:
        """Pack (n,) valid polygons with an area."""
        return cls.of_stored(SpilledPolygons.of([geometry], folder))

    @classmethod
    def of_stored(cls, outlines: SpilledPolygons) -> PackedPolygons:
        """Measure valid polygons with an area."""
        count = len(outlines)
        bounds, area, centre = np.empty((count, 4)), np.empty(count), np.empty((count, 2))
        for rows, geometry in outlines.chunks():
            bounds[rows] = shapely.bounds(geometry)
            area[rows] = shapely.area(geometry)
            centre[rows] = shapely.get_coordinates(shapely.centroid(geometry))
        return cls(outlines, bounds, area, centre)

    def __len__(self) -> int:
        return len(self.outlines)

    def unpack(self, index: Ints | slice | BoolArray) -> Polygons:
        """Return some of the polygons."""
        return self.outlines.unpack(index)

    def take(self, index: Ints) -> PackedPolygons:
        """Return some of the polygons as a layer of their own."""
        return PackedPolygons(
            self.outlines.take(index), self.bounds[index], self.area[index], self.centre[index]
        )

    def shifted(self, by: Floats) -> PackedPolygons:
        """Return the polygons after a shift by (n, 2) in x and y."""
        moved = (shifted(geometry, by[rows]) for rows, geometry in self.outlines.chunks())
        outlines = SpilledPolygons.of(moved, self.outlines.spill.folder)
        return PackedPolygons(outlines, self.bounds + np.tile(by, 2), self.area, self.centre + by)


_PER_BLOCK = 4000
"""Mean number of polygons of both layers in a block of ground."""

_MOST_COPIES = 3
"""Maximum number of blocks, on average, in which a polygon lies."""

_CANDIDATES_AT_ONCE = 2_000_000
_MOST_PER_POLYGON = 200
"""Maximum number of polygons, on average, whose bounds overlap those of one polygon in a block."""

BlockWork = Callable[[Ints, Ints], tuple[Ints, Ints, Floats]]
"""Function from the (n,) and (k,) indices of the polygons in a block to the pairs among them: their
(pairs,) indices in both layers, and a value of each."""


def find_overlaps(one: PackedPolygons, other: PackedPolygons, workers: int = 1) -> PolygonOverlaps:
    """Find all pairs that have an area in common, block by block of ground.

    Args:
        one, other: Polygons of the same plane; of one layer twice, each pair is found once.
        workers: Number of threads; the result does not depend on it.

    Returns:
        The pairs, ordered by their indices.
    """

    def work(index: Ints, index_other: Ints) -> tuple[Ints, Ints, Floats]:
        geometry = one.unpack(index)
        geometry_other = geometry if other is one else other.unpack(index_other)
        tree = shapely.STRtree(geometry_other)
        found: list[tuple[Ints, Ints, Floats]] = []
        most = _MOST_PER_POLYGON * (len(index) + len(index_other)) + _CANDIDATES_AT_ONCE
        step = max(1, _CANDIDATES_AT_ONCE // len(index_other))
        seen = 0
        for start in range(0, len(index), step):
            near, near_other = tree.query(geometry[start : start + step])
            near += start
            seen += len(near)
            if seen > most:
                x, y = one.centre[index[0]]
                raise DataError(
                    f"Around {x:.0f}, {y:.0f} on the plane of the comparison, {len(index):,} and "
                    f"{len(index_other):,} polygons lie on top of each other; expected buildings "
                    "side by side.",
                    remedy="Remove polygons that cover others from the two layers.",
                )
            if other is one:
                near, near_other = near[near < near_other], near_other[near < near_other]
            common = common_area(geometry[near], geometry_other[near_other])
            kept = common > 0
            found.append((index[near[kept]], index_other[near_other[kept]], common[kept]))
        return _concat(found)

    pairs = join_by_block(one.bounds, other.bounds, work, workers)
    return PolygonOverlaps(one.area, other.area, *pairs)


def join_by_block(
    bounds: Floats, bounds_other: Floats, work: BlockWork, workers: int = 1
) -> tuple[Ints, Ints, Floats]:
    """Join two layers by blocks of ground: a pair is found where the bounds of both overlap.

    A polygon lies in all blocks that its bounds overlap. A pair belongs to the block of the lower
    left corner of the overlap of its bounds, so it is found once.

    Args:
        bounds, bounds_other: (n, 4) and (k, 4) left, bottom, right and top.

    Returns:
        (pairs,) indices in both layers and values, ordered by the indices.
    """
    if not len(bounds) or not len(bounds_other):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    side = _block_side(bounds, bounds_other)
    (code, owner), (code_other, owner_other) = (
        _grouped(edges, side) for edges in (bounds, bounds_other)
    )
    common = np.intersect1d(code, code_other)
    first, last = np.searchsorted(code, [common, common + 1])
    first_other, last_other = np.searchsorted(code_other, [common, common + 1])

    def run(block: int) -> tuple[Ints, Ints, Floats]:
        near, near_other, value = work(
            owner[first[block] : last[block]], owner_other[first_other[block] : last_other[block]]
        )
        corner = np.maximum(bounds[near, :2], bounds_other[near_other, :2])
        own = _code(*np.floor(corner / side).astype(np.int64).T) == common[block]
        return near[own], near_other[own], value[own]

    with ThreadPoolExecutor(workers) as pool:
        found = _concat(list(pool.map(run, range(len(common)))))
    order = np.lexsort((found[1], found[0]))
    return found[0][order], found[1][order], found[2][order]


def _block_side(bounds: Floats, bounds_other: Floats) -> float:
    """Return the side of blocks in which there are some thousands of polygons."""
    both = np.concatenate([bounds, bounds_other])
    # A polygon far away, such as one at 0, 0, does not count.
    low, high = np.quantile((both[:, :2] + both[:, 2:]) / 2, (0.01, 0.99), axis=0)
    side = float(np.sqrt(np.prod(np.maximum(high - low, 1.0)) * _PER_BLOCK / len(both)))
    while True:
        span = np.floor(both[:, 2:] / side) - np.floor(both[:, :2] / side) + 1
        if np.prod(span, axis=1).sum() <= _MOST_COPIES * len(both):
            return side
        side *= 2


def _grouped(bounds: Floats, side: float) -> tuple[Ints, Ints]:
    """Return the codes of blocks, ascending, and the index of the polygon that lies in each."""
    low = np.floor(bounds[:, :2] / side).astype(np.int64)
    span = np.floor(bounds[:, 2:] / side).astype(np.int64) - low + 1
    times = span[:, 0] * span[:, 1]
    owner, place = numbered(times)
    row, col = np.divmod(place, span[owner, 0])
    code = _code(low[owner, 0] + col, low[owner, 1] + row)
    order = np.argsort(code, kind="stable")
    return code[order], owner[order]


def _code(col: Ints, row: Ints) -> Ints:
    return (row << 32) + col


def _concat(parts: list[tuple[Ints, Ints, Floats]]) -> tuple[Ints, Ints, Floats]:
    none = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    one, other, value = (np.concatenate(column) for column in zip(none, *parts))
    return one, other, value


_READ_AT_ONCE = 50_000
"""Number of polygons with the bounds of another one that are read at once."""


def first_of_equal(
    bounds: NDArray[np.float64], read: Callable[[NDArray[np.int64]], NDArray[np.object_]]
) -> NDArray[np.bool_]:
    """Return (n,) False for each polygon with the same vertices as an earlier one.

    Where a ring begins, its direction, and whether a polygon is the only part of a multipolygon,
    which depends on the format of its file, make no difference.

    Args:
        bounds: (n, 4) bounds of the polygons.
        read: Function that returns polygons by their indices; only those are read whose bounds are
            those of another one.
    """
    first = np.ones(len(bounds), np.bool_)
    # Stable, so that of polygons with equal bounds the earliest comes first.
    order = np.lexsort(bounds.T)
    is_new = np.r_[True, (np.diff(bounds[order], axis=0) != 0).any(axis=1)][: len(order)]
    alike = np.flatnonzero(~is_new)
    group = np.cumsum(is_new)
    chosen = np.union1d(alike, alike - 1)
    seen: set[bytes] = set()
    before = 0
    for places in in_steps(chosen, _READ_AT_ONCE):
        polygons = read(order[places]).copy()
        is_multi = shapely.get_type_id(polygons) == shapely.GeometryType.MULTIPOLYGON
        single = is_multi & (shapely.get_num_geometries(polygons) == 1)
        polygons[single] = shapely.get_geometry(polygons[single], 0)
        encoded = shapely.to_wkb(shapely.normalize(polygons))
        for index, of, one in zip(order[places].tolist(), group[places].tolist(), encoded.tolist()):
            if of != before:
                seen.clear()
                before = of
            first[index] = one not in seen
            seen.add(one)
    return first
