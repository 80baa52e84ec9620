"""Which footprints run into a neighbour, found a part of the scene at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.vector.corners import Ints
from rooftrace.vector.frontier import components
from rooftrace.vector.prepare import Records
from rooftrace.vector.settle import settle
from rooftrace.vector.spool import Spool

__all__ = ["settle_neighbours"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Polygons = NDArray[np.object_]

_AT_ONCE = 20_000
"""Footprints whose polygons are in memory together."""

_INTERIORS_MEET = "T********"


def settle_neighbours(
    records: Records, chosen: Bools, spool: Spool, area_m2: Callable[[Polygons], Floats]
) -> Records:
    """The records, those that ran into one another pointing at what `settle` makes of them.

    `settle` is given those that overlap and no others, in groups that have nothing to do with one
    another; so it makes the same of them as of all footprints at once.

    Args:
        records: of all footprints.
        chosen: (n,) those that must not overlap each other.
        spool: in which the polygons lie, and to which new ones are added.
        area_m2: of polygons in pixels.
    """
    number = np.flatnonzero(chosen)
    own = records.of_numbers(number)
    pairs = list(_overlapping(own, spool))
    if not pairs:
        return records
    one, other = np.concatenate(pairs, axis=1)
    start, stop = records.proposed.copy(), records.stop.copy()
    accepted, area = records.accepted.copy(), records.area_m2.copy()
    for group in _groups(len(own), one, other):
        here = own.of_numbers(group)
        raw, proposed = _read(spool, here)
        settled = settle(raw, proposed)
        changed = ~_same(settled, proposed)
        places = number[group[changed]]
        offsets = spool.append(settled[changed])
        start[places], stop[places] = offsets[:-1], offsets[1:]
        # What was parted from its neighbour is regular still; what fell back to its pixels is not.
        accepted[places] &= ~_same(settled[changed], raw[changed])
        area[places] = area_m2(settled[changed])
    return replace(records, proposed=start, stop=stop, accepted=accepted, area_m2=area)


def _overlapping(records: Records, spool: Spool) -> Iterator[Ints]:
    """(2, pairs) of footprints one of which, raw or proposed, overlaps the other's proposal.

    From top to bottom; those that reach down to the next part come along to it.
    """
    top, bottom = records.bounds[:, 1], records.bounds[:, 3]
    order = np.argsort(top, kind="stable")
    carried = order[:0]
    for first in range(0, len(order), _AT_ONCE):
        fresh = order[first : first + _AT_ONCE]
        carried = carried[bottom[carried] > top[fresh[0]]]
        together = np.concatenate([carried, fresh])
        one, other = _near(records.bounds[together])
        # Two that were both carried have met before.
        new = (other >= len(carried)) | (one >= len(carried))
        one, other = one[new], other[new]
        used = np.unique(np.concatenate([one, other]))
        raw, proposed = _read(spool, records.of_numbers(together[used]))
        a, b = np.searchsorted(used, one), np.searchsorted(used, other)
        hit = _meet(proposed[a], proposed[b])
        for mine, theirs in ((a, b), (b, a)):
            todo = np.flatnonzero(~hit)
            hit[todo] = _meet(raw[mine[todo]], proposed[theirs[todo]])
        yield np.stack([together[one[hit]], together[other[hit]]])
        carried = together


def _near(bounds: NDArray[np.float32]) -> tuple[Ints, Ints]:
    """Pairs of rectangles that overlap, each once."""
    boxes = np.asarray(shapely.box(*bounds.T.astype(np.float64)), np.object_)
    one, other = shapely.STRtree(boxes).query(boxes)
    return one[one < other], other[one < other]


def _same(one: Polygons, other: Polygons) -> Bools:
    return np.asarray(shapely.equals_exact(one, other), np.bool_)


def _meet(one: Polygons, other: Polygons) -> Bools:
    return np.asarray(shapely.relate_pattern(one, other, _INTERIORS_MEET), np.bool_)


def _read(spool: Spool, records: Records) -> tuple[Polygons, Polygons]:
    """Raw and proposed."""
    raw = spool.read(records.raw, records.proposed)
    return raw, spool.read(records.proposed, records.stop)


def _groups(count: int, one: Ints, other: Ints) -> Iterator[Ints]:
    """Numbers of those that pairs join, whole connected components at a time."""
    label = components(count, one, other)
    joined = np.unique(np.concatenate([one, other]))
    joined = joined[np.argsort(label[joined], kind="stable")]
    starts = np.flatnonzero(np.diff(label[joined], prepend=-1))
    first = 0
    for stop in [*starts[1:].tolist(), len(joined)]:
        if stop - first >= _AT_ONCE or stop == len(joined):
            yield np.sort(joined[first:stop])
            first = stop
