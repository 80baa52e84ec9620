"""Compare two layers of buildings: the status of each building of a new and of an old layer.

`compare_layers` gives `same`, `changed`, `moved`, `split`, `merged`, `new`, `gone`. The page
docs/compare.md has the conditions as a table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.arrays import in_steps
from rooftrace.core.types import BoolArray, Floats, Ints
from rooftrace.vector.match import (
    PackedPolygons,
    PolygonOverlaps,
    find_overlaps,
    join_by_block,
    one_to_one,
    pair_iou,
    shifted,
)

Codes = NDArray[np.uint8]

STATUSES = ("same", "changed", "moved", "split", "merged", "new", "gone", "outside")
"""Names of the statuses by code."""

SAME, CHANGED, MOVED, SPLIT, MERGED, NEW, GONE, OUTSIDE = range(8)

MAP_WORDS = {"new": "only found", "gone": "only in the map"}
"""Statuses in the results of a comparison with a map, where nothing was built or torn down."""

_MOST_PILED = 1.05
"""Maximum total area of the pieces of a building, as a share of its area; pieces that cover each
other are no pieces."""

_DIGITS = 9
"""Number of decimals to which shares, areas and distances are compared, so that swapped layers have
mirrored statuses."""

_PAIRS_AT_ONCE = 50_000


@dataclass(frozen=True)
class CompareRules:
    """Limits of the statuses.

    Args:
        same_iou: Minimum IoU of a pair that is the same.
        shape_iou: Minimum IoU of the outlines of a moved building, once their centroids lie upon
            each other.
        match_iou: Minimum IoU of a pair, and of a building with its pieces.
        piece_share: Minimum share of a building that each of two pieces covers where the building
            was split or merged.
        move_m: Minimum distance of the centroids of a building that has moved.
        max_move_m: Maximum distance of the centroids of a building that has moved.
        left_share: Minimum share of a building that the other layer covers, if it has changed; of
            others, a remnant is left, or they were built over a shed.
        wall_m, wall_share: Minimum share of the walls of such a remnant or shed that lie within
            `wall_m` metres of those of the other building; with less, one has replaced the other.
    """

    same_iou: float = 0.6
    shape_iou: float = 0.7
    match_iou: float = 0.5
    piece_share: float = 0.1
    move_m: float = 3.0
    max_move_m: float = 10.0
    left_share: float = 0.2
    wall_m: float = 1.5
    wall_share: float = 0.4


@dataclass(frozen=True)
class SideStatus:
    """Status of each of the (n,) buildings of one layer, and its partner in the other layer.

    Args:
        status: Code of the status, an index of `STATUSES`.
        partner: Index of the partner in the other layer, -1 without one. The partner of a piece is
            the building that it is a piece of; the partner of that building is its largest piece.
            A building without a match has the one that it overlaps most, if any.
        iou: IoU with the partner, of a building with pieces with all of them together; 0 without.
        overlap: Share of the building's own area that lies in the partner, in all pieces, or, where
            neither it nor the partner lies in the other by more than half, in the other layer.
        overlap_other: Share of the partner's, or of all pieces' area that lies in the building.
        is_whole: True if the edge of the other date's image cuts the building there: this outline
            is the whole one.
    """

    status: Codes
    partner: Ints
    iou: Floats
    overlap: Floats
    overlap_other: Floats
    is_whole: BoolArray

    @classmethod
    def empty(cls, count: int, status: int) -> SideStatus:
        """Return `count` buildings without a partner."""
        return cls(
            np.full(count, status, np.uint8), np.full(count, -1, np.int64), np.zeros(count),
            np.zeros(count), np.zeros(count), np.zeros(count, np.bool_),
        )  # fmt: skip

    @property
    def is_covered(self) -> BoolArray:
        """(n,) True if more than half of the building lies in its partner: see `overlap`."""
        return self.overlap > 0.5

    @property
    def is_linked(self) -> BoolArray:
        """(n,) True if more than half of the building, or of its partner, lies in the other."""
        return self.is_covered | (self.overlap_other > 0.5)

    def counts(self) -> dict[str, int]:
        """Return the number of buildings by name of the status."""
        found = np.bincount(self.status, minlength=len(STATUSES)).tolist()
        return dict(zip(STATUSES, found))

    def put(
        self, index: Ints, status: int | Ints, partner: Ints, figures: tuple[Floats, ...]
    ) -> None:
        """Set the status, the partner and the figures of some buildings."""
        self.status[index] = status
        self.partner[index] = partner
        for column, values in zip((self.iou, self.overlap, self.overlap_other), figures):
            column[index] = values


@dataclass(frozen=True)
class LayerComparison:
    """Result of `compare_layers`.

    Args:
        new, old: Statuses of both layers; none is `outside`.
        pairs: (pairs,) indices in the new and in the old layer of the pairs with an IoU of at
            least `match_iou`, each building in one pair at most, as `metrics.boundary` counts them.
    """

    new: SideStatus
    old: SideStatus
    pairs: tuple[Ints, Ints]

    @property
    def matched(self) -> int:
        """Number of pairs on ground that was seen."""
        one, other = self.pairs
        seen = (self.new.status[one] != OUTSIDE) & (self.old.status[other] != OUTSIDE)
        return int(seen.sum())


def compare_layers(
    new: PackedPolygons, old: PackedPolygons, rules: CompareRules | None = None, workers: int = 1
) -> LayerComparison:
    """Find the status of each building of two layers.

    Args:
        new, old: Buildings on the same plane in metres.
        workers: Number of threads; the result does not depend on it.

    Raises:
        DataError: Hundreds of polygons lie on top of each other.
    """
    rules = rules or CompareRules()
    pairs = find_overlaps(new, old, workers)
    sides = SideStatus.empty(len(new), NEW), SideStatus.empty(len(old), GONE)
    free = np.ones(len(new), np.bool_), np.ones(len(old), np.bool_)
    _put_groups(pairs, rules, sides, free)
    left = pairs.where(free[0][pairs.one] & free[1][pairs.other])
    matches = left.matches(rules.match_iou)
    status = _status_of_matches(matches, new, old, rules)
    _put_pairs(matches, status, sides, free)
    moves = _moves(new, old, free, rules, workers)
    _put_pairs(_with_common(moves, left), np.full(len(moves[0]), MOVED, np.uint8), sides, free)
    linked = _put_linked(pairs, (new, old), rules, sides, free)
    _put_replaced(linked, (new, old), rules, sides)
    every = pairs.matches(rules.match_iou)
    return LayerComparison(*sides, (every.one, every.other))


def shape_ious(new: PackedPolygons, old: PackedPolygons, one: Ints, other: Ints) -> Floats:
    """Return the IoU of each pair after a shift that makes their centroids equal.

    Args:
        new, old: Buildings on the same plane.
        one, other: (pairs,) indices in the two layers.
    """
    found = [np.zeros(0)]
    for start in range(0, len(one), _PAIRS_AT_ONCE):
        part, part_other = (ends[start : start + _PAIRS_AT_ONCE] for ends in (one, other))
        aligned = shifted(new.unpack(part), old.centre[part_other] - new.centre[part])
        found.append(pair_iou(aligned, old.unpack(part_other)))
    return np.concatenate(found)


Sides = tuple[SideStatus, SideStatus]
Free = tuple[BoolArray, BoolArray]


@dataclass(frozen=True)
class _Groups:
    """Buildings of one layer (`whole`) that consist of two or more of the other layer.

    Args:
        side: Layer of the wholes: 0 for the new one, where buildings merged; 1 for the old one.
        whole: (n,) index of each building.
        pairs: (members,) pairs of the buildings and each piece, building after building.
        starts: (n + 1,) place of the first pair of each building, and the end of the last.
        iou: (n,) IoU of each building and all its pieces together.
        overlap: (n,) share of the building that lies in the pieces.
        overlap_pieces: (n,) share of the pieces' area that lies in the building.
    """

    side: int
    whole: Ints
    pairs: Ints
    starts: Ints
    iou: Floats
    overlap: Floats
    overlap_pieces: Floats

    def __len__(self) -> int:
        return len(self.whole)

    def pieces(self, overlaps: PolygonOverlaps) -> Ints:
        """(members,) index of each piece."""
        return (overlaps.one if self.side else overlaps.other)[self.pairs]

    def take(self, index: Ints) -> _Groups:
        """Return some of the groups."""
        size = np.diff(self.starts)[index]
        starts = np.concatenate([[0], np.cumsum(size)])
        place = np.arange(starts[-1]) + np.repeat(self.starts[index] - starts[:-1], size)
        return _Groups(
            self.side, self.whole[index], self.pairs[place], starts, self.iou[index],
            self.overlap[index], self.overlap_pieces[index],
        )  # fmt: skip


def _put_groups(pairs: PolygonOverlaps, rules: CompareRules, sides: Sides, free: Free) -> None:
    """Set the status of buildings that were split or merged: the group of the largest IoU first.

    A building belongs to one group.
    """
    found = [_groups(pairs, rules, side) for side in (0, 1)]
    times = [np.zeros(len(is_free), np.int64) for is_free in free]
    for groups in found:
        np.add.at(times[groups.side], groups.whole, 1)
        np.add.at(times[1 - groups.side], groups.pieces(pairs), 1)
    shared: list[tuple[float, float, int, int, int]] = []
    for groups in found:
        alone = times[groups.side][groups.whole] == 1
        piece_alone = times[1 - groups.side][groups.pieces(pairs)] == 1
        if len(groups):
            alone &= np.logical_and.reduceat(piece_alone, groups.starts[:-1])
        # Groups whose buildings are in no other group are put in any order.
        _put_wholes(groups.take(np.flatnonzero(alone)), pairs, sides, free)
        for number in np.flatnonzero(~alone).tolist():
            iou = round(float(groups.iou[number]), _DIGITS)
            own = (pairs.area_other if groups.side else pairs.area)[groups.whole[number]]
            order = -iou, -round(float(own), _DIGITS), 1 - groups.side, int(groups.whole[number])
            shared.append((*order, number))
    for *_, other_side, _, number in sorted(shared):
        group = found[1 - other_side].take(np.array([number]))
        if free[group.side][group.whole].all() and free[other_side][group.pieces(pairs)].all():
            _put_wholes(group, pairs, sides, free)


def _put_wholes(groups: _Groups, pairs: PolygonOverlaps, sides: Sides, free: Free) -> None:
    """Set the status of the buildings and the pieces of groups that share none."""
    if not len(groups):
        return
    side, pieces, at = groups.side, groups.pieces(pairs), pairs.where(groups.pairs)
    status = SPLIT if side else MERGED
    own, other = (at.share, at.share_other) if side else (at.share_other, at.share)
    number = np.repeat(np.arange(len(groups)), np.diff(groups.starts))
    sides[1 - side].put(pieces, status, groups.whole[number], (at.iou, own, other))
    largest = np.lexsort((np.arange(len(pieces)), -at.common, number))[groups.starts[:-1]]
    figures = groups.iou, groups.overlap, groups.overlap_pieces
    sides[side].put(groups.whole, status, pieces[largest], figures)
    free[side][groups.whole] = False
    free[1 - side][pieces] = False


def _groups(pairs: PolygonOverlaps, rules: CompareRules, side: int) -> _Groups:
    """Return the buildings of one side that hold the larger part of two or more of the other side.

    This is how `ObjectCounts` counts them, but two of the pieces must be large. A piece in several
    buildings, which then overlap, belongs to the first one that holds most of it.
    """
    if side:
        piece, whole, area, area_piece = pairs.one, pairs.other, pairs.area_other, pairs.area
    else:
        piece, whole, area, area_piece = pairs.other, pairs.one, pairs.area, pairs.area_other
    near = np.flatnonzero(pairs.common > area_piece[piece] / 2)
    # The last digits of an intersection depend on which layer comes first.
    share = np.round(pairs.common[near] / area_piece[piece[near]], _DIGITS)
    near = near[np.lexsort((whole[near], -share, piece[near]))]
    near = near[np.diff(piece[near], prepend=-1) != 0]
    near = near[np.lexsort((piece[near], whole[near]))]
    starts = np.flatnonzero(np.diff(whole[near], prepend=-1) != 0)
    common = np.add.reduceat(pairs.common[near], starts) if len(near) else np.zeros(0)
    pieces = np.add.reduceat(area_piece[piece[near]], starts) if len(near) else np.zeros(0)
    is_large = pairs.common[near] >= rules.piece_share * area[whole[near]]
    large = np.add.reduceat(is_large.astype(np.int64), starts) if len(near) else starts
    own = area[whole[near[starts]]]
    iou = common / (own + pieces - common)
    good = (large > 1) & (iou >= rules.match_iou) & (common <= _MOST_PILED * own)
    every = _Groups(
        side, whole[near[starts]], near, np.append(starts, len(near)), iou, common / own,
        common / pieces,
    )  # fmt: skip
    return every.take(np.flatnonzero(good))


def _status_of_matches(
    matches: PolygonOverlaps, new: PackedPolygons, old: PackedPolygons, rules: CompareRules
) -> Codes:
    """Return the status of each matched pair: same, changed or moved.

    A building has moved if its shift explains at least half of the difference of the outlines.
    """
    iou = matches.iou
    status = np.where(iou >= rules.same_iou, SAME, CHANGED).astype(np.uint8)
    away = np.hypot(*(new.centre[matches.one] - old.centre[matches.other]).T)
    far = np.flatnonzero((away >= rules.move_m) & (away <= rules.max_move_m))
    aligned = shape_ious(new, old, matches.one[far], matches.other[far])
    moved = (aligned >= rules.shape_iou) & (1 - aligned <= (1 - iou[far]) / 2)
    status[far[moved]] = MOVED
    return status


def _moves(
    new: PackedPolygons, old: PackedPolygons, free: Free, rules: CompareRules, workers: int
) -> tuple[Ints, Ints]:
    """Return pairs of buildings without a match that have one shape: the nearest pair first."""
    index, index_other = np.flatnonzero(free[0]), np.flatnonzero(free[1])

    def work(near: Ints, near_other: Ints) -> tuple[Ints, Ints, Floats]:
        one, other = index[near], index_other[near_other]
        places = np.asarray(shapely.points(new.centre[one]), np.object_)
        tree = shapely.STRtree(np.asarray(shapely.points(old.centre[other]), np.object_))
        at, at_other = tree.query(places, predicate="dwithin", distance=rules.max_move_m)
        # The IoU of two polygons is at most the ratio of their areas.
        areas = new.area[one[at]], old.area[other[at_other]]
        alike = np.minimum(*areas) >= rules.shape_iou * np.maximum(*areas)
        at, at_other = at[alike], at_other[alike]
        aligned = shape_ious(new, old, one[at], other[at_other])
        kept = aligned >= rules.shape_iou
        at, at_other = at[kept], at_other[kept]
        away = np.hypot(*(new.centre[one[at]] - old.centre[other[at_other]]).T)
        return near[at], near_other[at_other], away

    # A little more than the maximum, so that rounding loses no pair.
    reach = 1.001 * rules.max_move_m
    boxes = np.tile(new.centre[index], 2) + np.array([-reach, -reach, reach, reach])
    points = np.tile(old.centre[index_other], 2)
    one, other, away = join_by_block(boxes, points, work, workers)
    chosen = one_to_one(one, other, np.round(away, _DIGITS))
    return index[one[chosen]], index_other[other[chosen]]


def _with_common(moves: tuple[Ints, Ints], pairs: PolygonOverlaps) -> PolygonOverlaps:
    """Return pairs with the area that they have in common, 0 where they do not overlap."""
    count = np.int64(max(len(pairs.area_other), 1))
    codes, wanted = pairs.one * count + pairs.other, moves[0] * count + moves[1]
    common = np.zeros(len(wanted))
    if len(codes):
        # The codes are ordered, as the pairs are.
        place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        common = np.where(codes[place] == wanted, pairs.common[place], 0.0)
    return PolygonOverlaps(pairs.area, pairs.area_other, *moves, common)


def _put_pairs(pairs: PolygonOverlaps, status: Codes, sides: Sides, free: Free) -> None:
    iou, share, share_other = pairs.iou, pairs.share, pairs.share_other
    for code in np.unique(status).tolist():
        kept = status == code
        one, other = pairs.one[kept], pairs.other[kept]
        sides[0].put(one, code, other, (iou[kept], share[kept], share_other[kept]))
        sides[1].put(other, code, one, (iou[kept], share_other[kept], share[kept]))
    free[0][pairs.one] = False
    free[1][pairs.other] = False


Layers = tuple[PackedPolygons, PackedPolygons]


def _put_linked(
    pairs: PolygonOverlaps, layers: Layers, rules: CompareRules, sides: Sides, free: Free
) -> list[Ints]:
    """Set the partner of all others: the building of the other layer with the largest IoU.

    They have changed if more than half of one of the two lies in the other, or more than half of
    the building in several buildings together, and if the other layer covers enough of them. Two or
    more houses in the place of a hall cover nothing of it.

    Returns:
        Buildings of each side that have changed and lie in their partner, or it in them.
    """
    changed = []
    iou, share, share_other = pairs.iou, pairs.share, pairs.share_other
    linked = np.maximum(share, share_other) > 0.5
    columns = (pairs.one, pairs.other, share, share_other), (
        pairs.other, pairs.one, share_other, share,
    )  # fmt: skip
    is_left = free[0][pairs.one] & free[1][pairs.other]
    for number, (own, others, overlap, overlap_other) in enumerate(columns):
        side, is_free = sides[number], free[number]
        order = np.lexsort((others, -iou, ~linked, own))
        order = order[np.diff(own[order], prepend=-1) != 0]
        best = order[is_free[own[order]]]
        index, covered = own[best], np.bincount(own, overlap, len(is_free))
        part = np.where(linked[best], overlap[best], covered[index])
        houses = np.flatnonzero(is_left & (overlap_other > 0.5) & (overlap <= 0.5))
        houses = _several(houses, own)
        in_place = _has_other_walls(layers, 1 - number, others[houses], own[houses], rules)
        houses = _several(houses[in_place], own)
        covered -= np.bincount(own[houses], overlap[houses], len(is_free))
        has_changed = linked[best] | (part > 0.5)
        has_changed &= np.round(covered[index], _DIGITS) >= rules.left_share
        status = np.where(has_changed, CHANGED, side.status[index])
        side.put(index, status, others[best], (iou[best], part, overlap_other[best]))
        changed.append(index[has_changed & linked[best]])
    return changed


def _several(pairs: Ints, own: Ints) -> Ints:
    """Return the pairs of buildings that are in several of the pairs."""
    return pairs[np.bincount(own[pairs])[own[pairs]] > 1]


def _put_replaced(
    linked: list[Ints], layers: Layers, rules: CompareRules, sides: Sides
) -> None:  # fmt: skip
    """Set the status of buildings with other walls than a partner that is gone, or new.

    Houses in the place of a hall are not what is left of it, and sheds below a hall have not grown
    into it.
    """
    replaced = []
    for number, index in enumerate(linked):
        partner = sides[number].partner[index]
        index = index[sides[1 - number].status[partner] == (GONE, NEW)[number]]
        partner = sides[number].partner[index]
        replaced.append(index[_has_other_walls(layers, number, index, partner, rules)])
    for side, index, status in zip(sides, replaced, (NEW, GONE)):
        side.status[index] = status


def _has_other_walls(
    layers: Layers, number: int, index: Ints, partner: Ints, rules: CompareRules
) -> BoolArray:
    """Return (n,) True for buildings of layer `number` whose walls are not those of a partner."""
    share = [np.zeros(0)]
    for some in in_steps(np.arange(len(index)), _PAIRS_AT_ONCE):
        walls = shapely.boundary(layers[number].unpack(index[some]))
        others = shapely.boundary(layers[1 - number].unpack(partner[some]))
        near = shapely.intersection(walls, shapely.buffer(others, rules.wall_m))
        share.append(shapely.length(near) / shapely.length(walls))
    return np.asarray(np.concatenate(share) < rules.wall_share)
