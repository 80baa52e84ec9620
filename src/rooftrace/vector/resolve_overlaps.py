"""Resolve overlaps between neighbouring outlines after simplification.

Regions of a mask share no pixel, but simplified outlines may cross. Where two do, they are
separated by one straight line through their intersection points, like a shared wall on a map; each
gives up the part beyond it. An outline that cannot be separated this way is reverted to its pixels,
and its neighbours give way.

`resolve_overlaps` treats polygons in memory; `resolve_scene_overlaps` finds the footprints of a
scene that overlap, one part of the scene at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.parallel import Workers, in_order
from rooftrace.io.spill_file import SpillFile
from rooftrace.vector.overlap_pairs import near_pairs, overlapping_pairs
from rooftrace.vector.prepare import FootprintRecords
from rooftrace.vector.simplify import MIN_IOU, acceptable, principal_axes
from rooftrace.vector.staircases import decode_staircases
from rooftrace.vector.trace import Bools, Floats, Ints, Polygons
from rooftrace.vector.trace_blocks import components

__all__ = [
    "OVERLAP_PX",
    "ComparedBatches",
    "overlapping_boxes",
    "resolve_overlaps",
    "resolve_scene_overlaps",
]

OVERLAP_PX = 1e-6
"""Maximum area in square pixels that two outlines may share, as left by rounding along a
common wall.
"""


# Maximum loss beyond the common area for which an outline is cut straight, as a share of its area.
_EXTRA = 0.01
# Distance in pixels below which vertices are merged and holes are removed.
_SPECK_PX = 1e-7
# Number of boxes that are queried at once.
_AT_ONCE = 1 << 16
_POLYGON = shapely.GeometryType.POLYGON


def overlapping_boxes(bounds: Floats) -> Ints:
    """Return the pairs whose boxes overlap, which are all that `resolve_overlaps` has to examine.

    Args:
        bounds: (n, 4) left, top, right and bottom of each raw and proposed outline together.

    Returns:
        (m, 2) indices, the lower one first, ascending.
    """
    by_top = np.argsort(bounds[:, 1], kind="stable")
    rank = np.empty(len(bounds), np.int64)
    rank[by_top] = np.arange(len(bounds))
    found = [np.zeros((0, 2), np.int64)]
    reaching = by_top[:0]
    # Boxes are processed from top to bottom, so that only a part of them is held at a time.
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


def resolve_overlaps(
    raw_px: Polygons,
    proposed_px: Polygons,
    pairs: Ints | None = None,
    *,
    min_iou: float = MIN_IOU,
) -> Polygons:
    """Return outlines of which no two overlap.

    The result does not depend on the order of the polygons, nor on polygons that no chain of
    conflicts connects.

    Args:
        raw_px: (n,) valid shapely polygons of which no two overlap.
        proposed_px: (n,) valid polygons to replace them, each with an IoU of at least `min_iou`.
        pairs: (m, 2) result of `overlapping_boxes`, if already known.
        min_iou: Minimum IoU of a polygon with the raw one.

    Returns:
        (n,) valid polygons: the proposed one where nothing conflicts; or the one separated from its
        neighbours, with an IoU of at least `min_iou` with the raw one; or else the raw one. Two
        share at most `OVERLAP_PX`.
    """
    if pairs is None:
        both = np.stack([shapely.bounds(raw_px), shapely.bounds(proposed_px)])
        pairs = overlapping_boxes(
            np.concatenate([both[..., :2].min(axis=0), both[..., 2:].max(axis=0)], axis=1)
        )
    shape, reverted = proposed_px.copy(), np.zeros(len(proposed_px), np.bool_)
    result = shape.copy()
    active = np.ones(len(shape), np.bool_)
    while True:
        near = pairs[active[pairs].any(axis=1) & ~reverted[pairs].all(axis=1)]
        cuts, stuck = _cuts(raw_px, shape, reverted, near)
        cuts = cuts.take(active[cuts.owner])
        result[active] = shape[active]
        cut = cuts.apply(result)
        good = acceptable(result[cut], raw_px[cut], min_iou)
        holes = [shapely.get_num_interior_rings(those[cut]) for those in (result, shape)]
        lost = np.zeros(len(shape), np.bool_)
        lost[cut[~good | (holes[0] != holes[1])]] = True
        lost[stuck] = True
        lost &= ~reverted
        if not lost.any():
            return result
        # A reverted outline changes the shares of its neighbours only.
        shape[lost], reverted[lost] = raw_px[lost], True
        active = lost.copy()
        active[pairs[lost[pairs].any(axis=1)]] = True


@dataclass(frozen=True, slots=True)
class _Cuts:
    """Parts that polygons have to give up.

    Args:
        owner: (k,) polygon that each cut applies to.
        region: (k,) region of the cut.
        keeps: (k,) True where the owner keeps its part in the region, False where it loses that
            part.
    """

    owner: Ints
    region: Polygons
    keeps: Bools

    def take(self, which: Bools | Ints) -> _Cuts:
        """Return some of the cuts."""
        return _Cuts(self.owner[which], self.region[which], self.keeps[which])

    def apply(self, shape: Polygons) -> Ints:
        """Apply the cuts to the shapes in place; of a shape that falls into parts the largest
        remains.

        Returns:
            Indices of the shapes that were cut, ascending.
        """
        # Cuts of a polygon are applied in an order that does not depend on the order of the
        # polygons.
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


def _cuts(raw: Polygons, shape: Polygons, reverted: Bools, pairs: Ints) -> tuple[_Cuts, Ints]:
    """Return the cuts after which no pair overlaps, and the polygons that no line separates."""
    shared = np.asarray(shapely.intersection(*shape[pairs].T), np.object_)
    overlaps = shapely.area(shared) > OVERLAP_PX
    pairs, shared = pairs[overlaps], shared[overlaps]
    # Reverted polygons are not cut; the other one gives way.
    one_reverted = reverted[pairs].any(axis=1)
    gives = np.where(reverted[pairs[:, 0]], pairs[:, 1], pairs[:, 0])[one_reverted]
    free, common = pairs[~one_reverted], shared[~one_reverted]
    one, other, separable = _split(raw, shape, free, common)
    parts = [
        _Cuts(gives, shared[one_reverted], np.zeros(len(gives), np.bool_)),
        one.take(separable),
        other.take(separable),
    ]
    cuts = _Cuts(
        np.concatenate([part.owner for part in parts]),
        np.concatenate([part.region for part in parts]),
        np.concatenate([part.keeps for part in parts]),
    )
    return cuts, np.unique(free[~separable])


def _split(
    raw: Polygons, shape: Polygons, pairs: Ints, shared: Polygons
) -> tuple[_Cuts, _Cuts, Bools]:
    """Separate pairs (m, 2) by the principal axis of the points in which their outlines cross.

    Returns:
        (m,) cuts of the first polygons, cuts of the second ones, and whether there is such a line.
    """
    outlines = shapely.boundary(shape[pairs])
    crossing = shapely.intersection(outlines[:, 0], outlines[:, 1])
    point, of = shapely.get_coordinates(crossing, return_index=True)
    centre = shapely.get_coordinates(shapely.centroid(raw[pairs])).reshape(-1, 2, 2)
    # Squares of coordinates keep their precision near the origin.
    middle = centre.mean(axis=1)
    x, y = (point - middle[of]).T
    moments = np.zeros((len(pairs), 6))
    np.add.at(moments, of, np.stack([np.ones(len(x)), x, y, x * x, x * y, y * y], axis=1))
    crossed = moments[:, 0] > 1
    moments[~crossed] = (1, 0, 0, 1, 0, 1)
    mean, along = principal_axes(moments)
    mean = mean + middle
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    # Normal of the line, on the side of the first polygon.
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
        _separating_cuts(
            pairs[:, side], shape[pairs[:, side]], halves[side], halves[1 - side], shared
        )
        for side in (0, 1)
    )
    return *cuts, crossed & (np.abs(towards) > 0)


def _separating_cuts(
    owner: Ints, shape: Polygons, own: Polygons, other: Polygons, shared: Polygons
) -> _Cuts:
    """Return the cuts that separate shapes (n,) from the neighbours with which they share an area.

    A shape keeps its own half plane, so that the cut is straight. If it would lose much more than
    the common area, it loses only the part of that area in the other half plane.
    """
    least = np.asarray(shapely.intersection(shared, other), np.object_)
    lost = shapely.area(shape) - shapely.area(shapely.intersection(shape, own))
    straight = lost <= shapely.area(least) + _EXTRA * shapely.area(shape)
    return _Cuts(owner, np.where(straight, own, least), straight)


def _cleaned(shape: Polygons) -> Polygons:
    """Return the largest part of each shape, without the slivers that rounding leaves."""
    parts, owner = shapely.get_parts(shape, return_index=True)
    # A cut may take a whole shape, which is then an empty polygon, without any ring.
    polygon = (shapely.get_type_id(parts) == _POLYGON) & ~shapely.is_empty(parts)
    rings, part = shapely.get_rings(parts[polygon], return_index=True)
    owner = owner[polygon]
    area = shapely.area(shapely.polygons(rings))
    # A thinner ring has less than three vertices after vertices that lie together are merged.
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


_BOXES_AT_ONCE = 1 << 14
"""Number of bounding boxes that a worker compares at once."""

_FOOTPRINTS_AT_ONCE = 2000
"""Number of footprints, or of their pairs, that a worker processes at once."""


@dataclass(frozen=True, slots=True)
class ComparedBatches:
    """Batches of footprints, each of which was compared in itself when it was made.

    Args:
        batch: (n,) batch of each footprint.
        pairs: (2, k) all pairs of footprints of one batch that overlap.
    """

    batch: Ints
    pairs: Ints


def resolve_scene_overlaps(
    records: FootprintRecords,
    chosen: Bools,
    spill: SpillFile,
    area_m2: Callable[[Polygons], Floats],
    workers: Workers | None = None,
    min_iou: float = MIN_IOU,
    compared: ComparedBatches | None = None,
) -> FootprintRecords:
    """Return the records of a scene after overlaps between neighbours were resolved.

    `resolve_overlaps` receives only footprints that overlap, in groups that share no pair. So its
    result equals that of one call with all footprints.

    Args:
        records: Records of all footprints.
        chosen: (n,) True for footprints that must not overlap each other.
        spill: File that holds the polygons, and to which new ones are added.
        area_m2: Function that returns the areas of polygons in pixels.
        workers: Workers that compare and separate the footprints; default: threads.
        min_iou: See `resolve_overlaps`.
        compared: Batches that need no comparison in themselves; default: none.
    """
    number = np.flatnonzero(chosen)
    # In the order of their places: that of the records depends on the division into blocks, and
    # the last digits of a line between two footprints on which of them comes first.
    number = number[np.argsort(records.first[number], kind="stable")]
    own = records.of_numbers(number)
    batch, pairs = None, [np.zeros((2, 0), np.int64)]
    if compared is not None:
        place = np.zeros(len(records), np.int64)
        place[number] = np.arange(len(number))
        batch = compared.batch[number]
        pairs.append(place[compared.pairs])
    near = in_order(_near, _boxes(own, batch), workers)
    pairs += in_order(_overlapping, _polygons(own, near, spill), workers)
    one, other = np.concatenate(pairs, axis=1)
    if not len(one):
        return records
    start, stop = records.proposed.copy(), records.stop.copy()
    accepted, area = records.accepted.copy(), records.area_m2.copy()
    groups = (
        (group, *_read(spill, own.of_numbers(group)), area_m2, min_iou)
        for group in _groups(len(own), one, other)
    )
    for changed, encoded, is_raw, changed_m2 in in_order(_resolved, groups, workers):
        places = number[changed]
        offsets = spill.append_bytes(encoded)
        start[places], stop[places] = offsets[:-1], offsets[1:]
        # An outline that was separated from its neighbour is still regular; one reverted to pixels
        # is not.
        accepted[places] &= ~is_raw
        area[places] = changed_m2
    return replace(records, proposed=start, stop=stop, accepted=accepted, area_m2=area)


def _boxes(
    records: FootprintRecords, batch: Ints | None
) -> Iterator[tuple[Ints, NDArray[np.float32], int, Ints | None]]:
    """Yield the arguments of `_near`, one part of the scene at a time.

    The parts run from top to bottom. Footprints that reach the next part are carried over to it.
    """
    top, bottom = records.bounds[:, 1], records.bounds[:, 3]
    order = np.argsort(top, kind="stable")
    carried = order[:0]
    for first in range(0, len(order), _BOXES_AT_ONCE):
        fresh = order[first : first + _BOXES_AT_ONCE]
        carried = carried[bottom[carried] > top[fresh[0]]]
        together = np.concatenate([carried, fresh])
        own = None if batch is None else batch[together]
        yield together, records.bounds[together], len(carried), own
        carried = together


def _near(number: Ints, bounds: NDArray[np.float32], carried: int, batch: Ints | None) -> Ints:
    """Return (2, k) pairs of footprints whose bounding boxes overlap and that are not compared.

    Args:
        number: (n,) numbers of the footprints.
        bounds: (n, 4) their bounding boxes.
        carried: Number of footprints at the beginning that have been paired with each other.
        batch: (n,) batches whose footprints have been paired with each other; None if there are
            none.
    """
    one, other = near_pairs(bounds)
    new = other >= carried
    if batch is not None:
        new &= batch[one] != batch[other]
    return np.stack([number[one[new]], number[other[new]]])


def _polygons(
    records: FootprintRecords, near: Iterator[Ints], spill: SpillFile
) -> Iterator[tuple[Ints, Ints, Polygons, Polygons]]:
    """Yield the arguments of `_overlapping`, some pairs at a time."""
    for pairs in near:
        for first in range(0, pairs.shape[1], _FOOTPRINTS_AT_ONCE):
            part = pairs[:, first : first + _FOOTPRINTS_AT_ONCE]
            used, pair = np.unique(part, return_inverse=True)
            yield used, pair.reshape(2, -1), *_read(spill, records.of_numbers(used))


def _overlapping(number: Ints, pairs: Ints, raw: Polygons, proposed_wkb: Polygons) -> Ints:
    """Return (2, k) numbers of the footprints that overlap.

    Args:
        number: (n,) numbers of the footprints.
        pairs: (2, m) pairs of indices to examine.
        raw, proposed_wkb: (n,) encoded polygons, see `_read`.
    """
    found = overlapping_pairs(decode_staircases(raw), shapely.from_wkb(proposed_wkb), pairs)
    return np.asarray(number[found], np.int64)


def _resolved(
    group: Ints,
    raw_encoded: Polygons,
    proposed_wkb: Polygons,
    area_m2: Callable[[Polygons], Floats],
    min_iou: float,
) -> tuple[Ints, list[bytes], Bools, Floats]:
    """Return the footprints of a group whose outlines change.

    Returns:
        (n,) their numbers, their outlines as WKB, (n,) True where it is that of the pixels, and
        (n,) areas.
    """
    raw, proposed = decode_staircases(raw_encoded), shapely.from_wkb(proposed_wkb)
    resolved = resolve_overlaps(raw, proposed, min_iou=min_iou)
    changed = ~_same(resolved, proposed)
    outlines = resolved[changed]
    encoded: list[bytes] = shapely.to_wkb(outlines).tolist()
    return group[changed], encoded, _same(outlines, raw[changed]), area_m2(outlines)


def _same(one: Polygons, other: Polygons) -> Bools:
    return np.asarray(shapely.equals_exact(one, other), np.bool_)


def _read(spill: SpillFile, records: FootprintRecords) -> tuple[Polygons, Polygons]:
    """Return the raw polygons (n,) as `encode_staircases` makes them, and the proposed as WKB."""
    raw = spill.read_bytes(records.raw, records.proposed)
    return raw, spill.read_bytes(records.proposed, records.stop)


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
