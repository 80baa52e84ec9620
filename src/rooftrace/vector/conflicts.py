"""Which footprints run into a neighbour, found a part of the scene at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice, starmap
from typing import TypeVar, TypeVarTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.vector.corners import Ints
from rooftrace.vector.frontier import components
from rooftrace.vector.prepare import Records
from rooftrace.vector.settle import settle
from rooftrace.vector.spool import Spool

__all__ = ["settle_neighbours"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Polygons = NDArray[np.object_]

_AT_ONCE = 2000
"""Footprints that a thread works on."""

_WORKERS = min(4, os.cpu_count() or 1)

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
    pairs = list(_in_threads(_overlapping, _parts(own, spool)))
    if not any(one.size for one in pairs):
        return records
    one, other = np.concatenate(pairs, axis=1)
    start, stop = records.proposed.copy(), records.stop.copy()
    accepted, area = records.accepted.copy(), records.area_m2.copy()
    groups = (
        (group, *_read(spool, own.of_numbers(group))) for group in _groups(len(own), one, other)
    )
    for group, raw, proposed, settled in _in_threads(_settled, groups):
        changed = ~_same(settled, proposed)
        places = number[group[changed]]
        offsets = spool.append(settled[changed])
        start[places], stop[places] = offsets[:-1], offsets[1:]
        # What was parted from its neighbour is regular still; what fell back to its pixels is not.
        accepted[places] &= ~_same(settled[changed], raw[changed])
        area[places] = area_m2(settled[changed])
    return replace(records, proposed=start, stop=stop, accepted=accepted, area_m2=area)


def _in_threads(work: Callable[[*Ts], T], given: Iterable[tuple[*Ts]]) -> Iterator[T]:
    """What `work` makes of each, in their order; one alone needs no thread.

    What is given is made in the calling thread, for a few of them ahead.
    """
    given = iter(given)
    first = list(islice(given, 2))
    if len(first) < 2:
        yield from starmap(work, first)
        return
    with ThreadPoolExecutor(_WORKERS, "settle") as pool:
        waiting: deque[Future[T]] = deque()
        for one in chain(first, given):
            waiting.append(pool.submit(work, *one))
            if len(waiting) > _WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _parts(records: Records, spool: Spool) -> Iterator[tuple[Ints, Ints, Ints, Polygons, Polygons]]:
    """Footprints whose rectangles overlap, a part of the scene at a time.

    From top to bottom; those that reach down to the next part come along to it.

    Yields:
        (n,) the numbers of some, (pairs,) which two of them, and (n,) raw and proposed.
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
        used, pair = np.unique(np.stack([one[new], other[new]]), return_inverse=True)
        yield (
            together[used],
            *pair.reshape(2, -1),
            *_read(spool, records.of_numbers(together[used])),
        )
        carried = together


def _overlapping(number: Ints, a: Ints, b: Ints, raw: Polygons, proposed: Polygons) -> Ints:
    """(2, pairs) of footprints one of which, raw or proposed, overlaps the other's proposal."""
    hit = _meet(proposed[a], proposed[b])
    for mine, theirs in ((a, b), (b, a)):
        todo = np.flatnonzero(~hit)
        hit[todo] = _meet(raw[mine[todo]], proposed[theirs[todo]])
    return np.stack([number[a[hit]], number[b[hit]]])


def _settled(
    group: Ints, raw: Polygons, proposed: Polygons
) -> tuple[Ints, Polygons, Polygons, Polygons]:
    return group, raw, proposed, settle(raw, proposed)


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
