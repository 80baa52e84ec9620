"""Let neighbouring outlines share walls, and resolve their overlaps, after simplification.

The walls of two buildings that face each other along most of their length, closer than the mask can
tell, become one: each moves to the line between them, the shorter wall further. Corners of
neighbours that lie together become one, and a corner beside a longer wall becomes a corner of it.
`shapely.coverage_clean` was measured first: with a snapping distance it gives most touching pairs a
common wall, too, but bends walls to the corners nearby (C-IoU less by 0.017 in a dense quarter).

Regions of a mask share no pixel, but simplified outlines may cross. Where two do, they are
separated by one straight line through their intersection points, like a shared wall on a map; each
gives up the part beyond it. An outline that cannot be separated this way is reverted to its pixels,
and its neighbours give way.

`resolve_overlaps` treats polygons in memory; `resolve_scene_overlaps` lets the footprints of a
scene share walls, and then finds those that overlap, one part of the scene at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.arrays import components
from rooftrace.core.parallel import Workers, in_order
from rooftrace.core.types import BoolArray, Floats, Ints, Polygons
from rooftrace.io.spill_file import SpillFile
from rooftrace.vector.prepare import FootprintRecords, encode_pairs
from rooftrace.vector.simplify import GRID_PX, MIN_IOU, resembles
from rooftrace.vector.trace import Columns, ring_vertices

OVERLAP_PX = 1e-6
"""Maximum area in square pixels that two outlines may share, as left by rounding along a
common wall.
"""


# Maximum loss beyond the common area for which an outline is cut straight, as a share of its area.
_EXTRA = 0.01
# Distance in pixels below which vertices are merged and holes are removed.
_SPECK_PX = 1e-7
# Width in pixels of needles and slits that vanish: rounding leaves them along a cut, valid in these
# coordinates, but no longer on a map or in another CRS.
_NEEDLE_PX = 1e-8
_POLYGON = shapely.GeometryType.POLYGON
_INTERIORS_MEET = "T********"


def _near_pairs(bounds: Floats | NDArray[np.float32]) -> Ints:
    """Return (2, k) pairs of indices of bounding boxes (n, 4) that overlap or touch, the lower
    index first.
    """
    boxes = np.asarray(shapely.box(*bounds.T.astype(np.float64)), np.object_)
    pairs = shapely.STRtree(boxes).query(boxes)
    return np.asarray(pairs[:, pairs[0] < pairs[1]], np.int64)


def resolve_overlaps(
    raw_px: Polygons, proposed_px: Polygons, *, min_iou: float = MIN_IOU
) -> Polygons:
    """Return outlines of which no two overlap.

    The result does not depend on the order of the polygons, nor on polygons that no chain of
    conflicts connects.

    Args:
        raw_px: (n,) valid shapely polygons of which no two overlap.
        proposed_px: (n,) valid polygons to replace them, each of which `resembles` the raw one.
        min_iou: Minimum IoU of a polygon with the raw one, see `resembles`.

    Returns:
        (n,) valid polygons: the proposed one where nothing conflicts; or the one separated from its
        neighbours, which `resembles` the raw one; or else the raw one. Two share at most
        `OVERLAP_PX`.
    """
    both = np.stack([shapely.bounds(raw_px), shapely.bounds(proposed_px)])
    bounds = np.concatenate([both[..., :2].min(axis=0), both[..., 2:].max(axis=0)], axis=1)
    pairs = _near_pairs(bounds).T
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    shape, reverted = proposed_px.copy(), np.zeros(len(proposed_px), np.bool_)
    result = shape.copy()
    active = np.ones(len(shape), np.bool_)
    while True:
        near = pairs[active[pairs].any(axis=1) & ~reverted[pairs].all(axis=1)]
        cuts, stuck = _cuts(raw_px, shape, reverted, near)
        result[active] = shape[active]
        cut = _apply(cuts.of(active[cuts.owner]), result)
        good = resembles(result[cut], raw_px[cut], min_iou=min_iou)
        lost = np.zeros(len(shape), np.bool_)
        lost[cut[~good]] = True
        lost[stuck] = True
        lost &= ~reverted
        if not lost.any():
            return result
        # A reverted outline changes the shares of its neighbours only.
        shape[lost], reverted[lost] = raw_px[lost], True
        active = lost.copy()
        active[pairs[lost[pairs].any(axis=1)]] = True


@dataclass(frozen=True)
class _Cuts(Columns):
    """Parts that polygons have to give up.

    Args:
        owner: (k,) polygon that each cut applies to.
        region: (k,) region of the cut.
        keeps: (k,) True where the owner keeps its part in the region, False where it loses that
            part.
    """

    owner: Ints
    region: Polygons
    keeps: BoolArray


def _cuts(raw: Polygons, shape: Polygons, reverted: BoolArray, pairs: Ints) -> tuple[_Cuts, Ints]:
    """Return the cuts after which no pair (m, 2) overlaps, and the polygons that no line separates.

    Pairs are separated by the principal axis of the points in which their outlines cross. A shape
    keeps its own half plane, so that the cut is straight. If it would lose much more than the
    common area, it loses only the part of that area in the other half plane. Reverted polygons are
    not cut; the other one gives way.
    """
    # Most pairs only touch, which is found faster than what they share.
    one, other = shape[pairs].T
    pairs = pairs[shapely.relate_pattern(one, other, _INTERIORS_MEET)]
    shared = np.asarray(shapely.intersection(*shape[pairs].T), np.object_)
    overlaps = shapely.area(shared) > OVERLAP_PX
    pairs, shared = pairs[overlaps], shared[overlaps]
    one_reverted = reverted[pairs].any(axis=1)
    gives = np.where(reverted[pairs[:, 0]], pairs[:, 1], pairs[:, 0])[one_reverted]
    parts = [_Cuts(gives, shared[one_reverted], np.zeros(len(gives), np.bool_))]
    pairs, shared = pairs[~one_reverted], shared[~one_reverted]
    halves, separable = _half_planes(raw[pairs], shape[pairs])
    for own, other in ((0, 1), (1, 0)):
        owner = pairs[:, own]
        least = np.asarray(shapely.intersection(shared, halves[other]), np.object_)
        kept = shapely.area(shapely.intersection(shape[owner], halves[own]))
        area = shapely.area(shape[owner])
        straight = area - kept <= shapely.area(least) + _EXTRA * area
        parts.append(_Cuts(owner, np.where(straight, halves[own], least), straight).of(separable))
    return _Cuts.joined(parts), np.unique(pairs[~separable])


def _half_planes(raw: Polygons, shape: Polygons) -> tuple[list[Polygons], BoolArray]:
    """Return the half planes of the first and of the second polygon of pairs (m, 2), which touch
    along the line between them, and (m,) True where there is such a line.
    """
    outlines = shapely.boundary(shape)
    crossing = shapely.intersection(outlines[:, 0], outlines[:, 1])
    point, of = shapely.get_coordinates(crossing, return_index=True)
    centre = shapely.get_coordinates(shapely.centroid(raw)).reshape(-1, 2, 2)
    # Squares of coordinates keep their precision near the origin.
    middle = centre.mean(axis=1)
    x, y = (point - middle[of]).T
    moments = np.zeros((len(raw), 6))
    np.add.at(moments, of, np.stack([np.ones(len(x)), x, y, x * x, x * y, y * y], axis=1))
    crossed = moments[:, 0] > 1
    moments[~crossed] = (1, 0, 0, 1, 0, 1)
    # The principal axis of the points.
    mean = moments[:, 1:3] / moments[:, :1]
    xx, xy, yy = (moments[:, 3:] / moments[:, :1]).T
    x, y = mean.T
    angle = np.arctan2(2 * (xy - x * y), (xx - x * x) - (yy - y * y)) / 2
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    mean = mean + middle
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    # Normal of the line, on the side of the first polygon.
    towards = ((centre[:, 0] - centre[:, 1]) * across).sum(axis=1)
    across *= np.sign(towards)[:, None]
    box = shapely.bounds(shape)
    reach = 2 * np.hypot(*(box[..., 2:].max(axis=1) - box[..., :2].min(axis=1)).T)[:, None]
    ends = mean - reach * along, mean + reach * along
    halves = []
    for side in (1, -1):
        far = side * reach * across
        corners = np.stack([*ends, ends[1] + far, ends[0] + far], axis=1)
        halves.append(np.asarray(shapely.polygons(corners), np.object_))
    return halves, crossed & (np.abs(towards) > 0)


def _apply(cuts: _Cuts, shape: Polygons) -> Ints:
    """Apply cuts to shapes in place, and return the indices of those that were cut, ascending.

    Of a shape that falls into parts the largest remains, without the slivers that rounding leaves.
    """
    # Cuts of a polygon are applied in an order that does not depend on the order of the polygons.
    cuts = cuts.of(np.lexsort((*shapely.bounds(cuts.region).T, cuts.owner)))
    turn = np.arange(len(cuts)) - np.searchsorted(cuts.owner, cuts.owner)
    for number in range(int(turn.max(initial=-1)) + 1):
        for keeps, cut in ((True, shapely.intersection), (False, shapely.difference)):
            now = cuts.of((turn == number) & (cuts.keeps == keeps))
            shape[now.owner] = cut(shape[now.owner], now.region)
    touched = np.unique(cuts.owner)
    shape[touched] = shapely.set_precision(shape[touched], _NEEDLE_PX)
    parts, owner = shapely.get_parts(shape[touched], return_index=True)
    # A cut may take a whole shape, which is then an empty polygon, without any ring.
    polygon = (shapely.get_type_id(parts) == _POLYGON) & ~shapely.is_empty(parts)
    rings, part = shapely.get_rings(parts[polygon], return_index=True)
    owner = owner[polygon]
    area = shapely.area(shapely.polygons(rings))
    # A thinner ring has less than three vertices after vertices that lie together are merged.
    solid = area > _SPECK_PX * np.maximum(shapely.length(rings), 1)
    is_shell = np.diff(part, prepend=-1) > 0
    solid &= solid[is_shell][part]
    left, polygon_of = np.unique(part[solid], return_inverse=True)
    made = np.asarray(shapely.polygons(rings[solid], indices=polygon_of), np.object_)
    owner = owner[left]
    order = np.lexsort((-shapely.area(made), owner))
    largest = order[np.diff(owner[order], prepend=-1) > 0]
    shape[touched] = shapely.Polygon()
    shape[touched[owner[largest]]] = shapely.remove_repeated_points(made[largest], _SPECK_PX)
    return touched


_BOXES_AT_ONCE = 1 << 14
"""Number of bounding boxes that are compared at once."""

_FOOTPRINTS_AT_ONCE = 2000
"""Number of footprints, or of their pairs, that a worker processes at once."""


def resolve_scene_overlaps(
    records: FootprintRecords,
    chosen: BoolArray,
    spill: SpillFile,
    area_m2: Callable[[Polygons], Floats],
    workers: Workers | None = None,
    min_iou: float = MIN_IOU,
    sharing: WallSharing | None = None,
) -> FootprintRecords:
    """Return the records of a scene after overlaps between neighbours were resolved.

    `sharing` receives only footprints that are neighbours, and then `resolve_overlaps` only those
    that overlap, in groups that share no pair. So the result equals that of one call of each with
    all footprints.

    Args:
        chosen: (n,) True for footprints that must not overlap each other.
        spill: File that holds the polygons, and to which new ones are added.
        area_m2: Function that returns the areas of polygons in pixels.
        workers: Workers that compare and separate the footprints; default: threads.
        min_iou: See `resolve_overlaps`.
        sharing: What makes neighbours share walls, before overlaps are resolved.
    """
    number = np.flatnonzero(chosen)
    # In the order of their places: that of the records depends on the division into blocks, and
    # the last digits of a line between two footprints on which of them comes first.
    number = number[np.argsort(records["first"][number], kind="stable")]
    records = records.copy()
    if sharing is not None:
        # A wall that moves may reach a building that was no neighbour.
        change, reach_px = sharing.shared, _GAP * sharing.unit_px
        _change(records, number, spill, area_m2, workers, change, reach_px)
    _change(records, number, spill, area_m2, workers, partial(resolve_overlaps, min_iou=min_iou))
    return records


def _change(
    records: FootprintRecords,
    number: Ints,
    spill: SpillFile,
    area_m2: Callable[[Polygons], Floats],
    workers: Workers | None,
    change: Callable[[Polygons, Polygons], Polygons],
    reach_px: float = 0.0,
) -> None:
    """Change records in place by a function of the raw and the proposed outlines of a group.

    Args:
        records, spill, area_m2, workers: See `resolve_scene_overlaps`.
        number: (n,) footprints that are compared.
        change: Function that returns the new outlines; picklable.
        reach_px: See `_neighbours`.
    """
    own = records[number]
    pairs = [*in_order(_neighbours, _candidates(own, spill, reach_px), workers)]
    one, other = np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1)
    groups = (
        (group, own[group], *_encoded(own[group], spill), area_m2, change)
        for group in _groups(len(own), one, other)
    )
    for changed, made, encoded in in_order(_changed, groups, workers):
        offset = spill.append_bytes([encoded])[0]
        for field in ("raw", "proposed", "stop"):
            made[field] += offset
        records[number[changed]] = made


def _encoded(records: FootprintRecords, spill: SpillFile) -> tuple[Polygons, Polygons]:
    """Return the raw and the proposed polygons (n,) as WKB."""
    raw = spill.read_bytes(records["raw"], records["proposed"])
    return raw, spill.read_bytes(records["proposed"], records["stop"])


def _candidates(
    records: FootprintRecords, spill: SpillFile, reach_px: float
) -> Iterator[tuple[Ints, Ints, Polygons, Polygons, float]]:
    """Yield footprints whose bounding boxes are within reach, some pairs at a time, for
    `_neighbours`.

    The parts of the scene run from top to bottom. Footprints that reach the next part are carried
    over to it.
    """
    half = np.float32(reach_px / 2)
    bounds = records["bounds"] + np.array([-half, -half, half, half])
    order = np.argsort(bounds[:, 1], kind="stable")
    carried = order[:0]
    for first in range(0, len(order), _BOXES_AT_ONCE):
        fresh = order[first : first + _BOXES_AT_ONCE]
        carried = carried[bounds[carried, 3] > bounds[fresh[0], 1]]
        together = np.concatenate([carried, fresh])
        pairs = _near_pairs(bounds[together])
        pairs = together[pairs[:, pairs[1] >= len(carried)]]
        carried = together
        for start in range(0, pairs.shape[1], _FOOTPRINTS_AT_ONCE):
            used, pair = np.unique(
                pairs[:, start : start + _FOOTPRINTS_AT_ONCE], return_inverse=True
            )
            yield used, pair.reshape(2, -1), *_encoded(records[used], spill), reach_px


def _neighbours(
    number: Ints, pairs: Ints, raw_wkb: Polygons, proposed_wkb: Polygons, reach_px: float
) -> Ints:
    """Return (2, k) numbers of the footprints whose pixels are within `reach_px`; if that is 0, of
    those of which one, raw or proposed, overlaps the other's proposal.

    Args:
        number: (n,) numbers of the footprints.
        pairs: (2, m) pairs of indices to examine.
        raw_wkb, proposed_wkb: (n,) polygons.
    """
    raw = shapely.from_wkb(raw_wkb)
    # An index of edges makes comparisons faster, but some of those below not by what it takes.
    shapely.prepare(raw[shapely.get_num_coordinates(raw) > (0 if reach_px else 256)])
    a, b = pairs
    if reach_px:
        return number[pairs[:, shapely.dwithin(raw[a], raw[b], reach_px)]]
    proposed = shapely.from_wkb(proposed_wkb)
    shapely.prepare(proposed)
    hit = np.zeros(len(a), np.bool_)
    for mine, theirs, shape in ((a, b, proposed), (a, b, raw), (b, a, raw)):
        todo = np.flatnonzero(~hit)
        # Most pairs are apart, which is found faster than how they meet.
        todo = todo[shapely.intersects(shape[mine[todo]], proposed[theirs[todo]])]
        hit[todo] = shapely.relate_pattern(
            shape[mine[todo]], proposed[theirs[todo]], _INTERIORS_MEET
        )
    return number[pairs[:, hit]]


def _groups(count: int, one: Ints, other: Ints) -> Iterator[Ints]:
    """Yield the members of pairs in groups that consist of complete connected components."""
    label = components(count, one, other)
    joined = np.unique(np.concatenate([one, other]))
    joined = joined[np.argsort(label[joined], kind="stable")]
    starts = np.flatnonzero(np.diff(label[joined], prepend=-1))
    first = 0
    for stop in [*starts[1:].tolist(), len(joined)]:
        if stop - first >= _FOOTPRINTS_AT_ONCE or stop == len(joined):
            yield np.sort(joined[first:stop])
            first = stop


def _changed(
    group: Ints,
    records: FootprintRecords,
    raw_wkb: Polygons,
    proposed_wkb: Polygons,
    area_m2: Callable[[Polygons], Floats],
    change: Callable[[Polygons, Polygons], Polygons],
) -> tuple[Ints, FootprintRecords, bytes]:
    """Return the footprints of a group whose outlines change, with their records and polygons as
    `encode_pairs` makes them.
    """
    raw, proposed = shapely.from_wkb(raw_wkb), shapely.from_wkb(proposed_wkb)
    outlines = change(raw, proposed)
    changed = ~shapely.equals_exact(outlines, proposed)
    raw, outlines, records = raw[changed], outlines[changed], records[changed]
    encoded = encode_pairs(records, raw, outlines)
    # An outline that was separated from its neighbour is still regular; one reverted to pixels is
    # not.
    records["accepted"] &= ~shapely.equals_exact(outlines, raw)
    records["area_m2"] = area_m2(outlines)
    return group[changed], records, encoded


# Shared walls.
#
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

    def shared(self, raw: Polygons, proposed: Polygons) -> Polygons:
        """Return outlines in which neighbours share walls and corners.

        A building that would then differ from its pixels stays as proposed, and its neighbours keep
        away from it. The result does not depend on polygons that no chain of neighbours connects.

        Args:
            raw: (n,) polygons along pixel edges.
            proposed: (n,) valid polygons to replace them.
        """
        pairs = shapely.STRtree(raw).query(raw, "dwithin", distance=_GAP * self.unit_px)
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
        corner, ring, polygon = ring_vertices(shape)
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


def _are_pairs(one: Ints, other: Ints, pairs: Ints) -> BoolArray:
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
