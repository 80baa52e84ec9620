"""The summits of a raster of heights, and the passes between them.

Whoever goes up from a pixel, always to the highest of its four neighbours, ends on a summit. Above
any height, two summits lie on one island where a way leads from one to the other over passes that
are higher: so a few numbers say of all heights at once what a search for islands says of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rooftrace.vector.corners import Ints

__all__ = ["Summits", "parted"]

Heights = NDArray[np.uint8]
Numbers = NDArray[np.int32]

_NEVER = 256
"""Higher than any summit."""


@dataclass(frozen=True, slots=True)
class Summits:
    """Where all ways up lead.

    A plateau may have several, with passes between them that are as high.

    Args:
        land: (pixels,) the flat indices of what is higher than 0, ascending.
        of_land: (pixels,) the summit that the way up from each leads to.
        pixel: (n,) the flat index of each summit, ascending.
        one, other: (passes,) the summits that each pass lies between, each pair once.
        height: (passes,) of the highest pass between the two.
    """

    land: Ints
    of_land: Numbers
    pixel: Ints
    one: Ints
    other: Ints
    height: Ints

    @classmethod
    def of(cls, height: Heights) -> Summits:
        """Of a raster (y, x) with a rim of 0."""
        width, flat = height.shape[1], height.reshape(-1)
        land = np.flatnonzero(flat)
        summit_of = _climbed(flat, land, width)
        own = np.flatnonzero(summit_of == np.arange(len(land)))
        number = np.empty(len(land), np.int32)
        number[own] = np.arange(len(own))
        of_land = number[summit_of]
        return cls(land, of_land, land[own], *_passes(flat, land, of_land, width, len(own)))

    def __len__(self) -> int:
        return len(self.pixel)


def _climbed(flat: Heights, land: Ints, width: int) -> Numbers:
    """(pixels,) which of the land each way up ends on.

    Of neighbours that are as high the first is taken, and of equals only one that comes before:
    so no way leads in a circle.
    """
    here, around = flat[width:-width], len(flat) - width
    above, below = flat[: -2 * width], flat[2 * width :]
    left, right = flat[width - 1 : around - 1], flat[width + 1 : around + 1]
    highest = np.maximum(np.maximum(above, below), np.maximum(left, right))
    np.maximum(highest, here, out=highest)
    turn = np.zeros(len(here), np.uint8)
    for number, side in enumerate((right, here, left, above), start=1):
        np.maximum(turn, (side == highest).view(np.uint8) * np.uint8(number), out=turn)
    step = np.array([width, 1, 0, -1, -width])
    place = np.empty(len(flat), np.int32)
    place[land] = np.arange(len(land))
    way: Numbers = place[land + step[turn[land - width]]]
    while True:
        further = way[way]
        if np.array_equal(further, way):
            return way
        way = further


def _passes(
    flat: Heights, land: Ints, of_land: Numbers, width: int, count: int
) -> tuple[Ints, Ints, Ints]:
    """Between which summits there are passes, and the height of the highest of each two."""
    summit = np.zeros(len(flat), np.int32)
    summit[land] = of_land + 1
    keys = []
    for aside in (1, width):
        pixel = np.flatnonzero(summit[aside:] != summit[:-aside])
        one, other = summit[pixel], summit[pixel + aside]
        both = np.flatnonzero((one > 0) & (other > 0))
        pixel, one, other = pixel[both], one[both] - 1, other[both] - 1
        keys.append(_key(one, other, np.minimum(flat[pixel], flat[pixel + aside]), count))
    return _highest(np.concatenate(keys), count)


def _key(one: Numbers | Ints, other: Numbers | Ints, height: Heights | Ints, count: int) -> Ints:
    """Numbers of which the least of each two summits stands for the highest pass."""
    pair = np.minimum(one, other).astype(np.int64) * count + np.maximum(one, other)
    return np.asarray((pair << 8) + (_NEVER - 1 - height), np.int64)


def _highest(key: Ints, count: int) -> tuple[Ints, Ints, Ints]:
    """Two summits and the height of the highest pass between them, from the highest down."""
    key = np.sort(key)
    key = key[np.flatnonzero(np.diff(key >> 8, prepend=-1))]
    one, other = np.divmod(key >> 8, max(count, 1))
    height = _NEVER - 1 - (key & 255)
    order = np.argsort(-height, kind="stable")
    return one[order], other[order], height[order]


def parted(
    rank: Ints, limit: Ints, one: Ints, other: Ints, height: Ints
) -> tuple[Ints, Ints, Ints]:
    """Which summits passes part from one another.

    As the water falls, islands become one at the passes between them. The lower summit is forgotten
    there, unless the pass is low enough to part the two.

    Args:
        rank: (n,) the heights of the summits.
        limit: (n,) how high a pass is at most that parts each from a higher one.
        one, other: (passes,) the summits that each pass lies between.
        height: (passes,) of them.

    Returns:
        (n,) the height down to which each is an island of its own, -1 where nothing parts it from
        others; (n,) of which of those that are parted it is a part, if of any; and (n,) the height
        of the lowest pass on the way there.
    """
    count = len(rank)
    into, fell = np.arange(count), np.full(count, _NEVER)
    # Most are forgotten at their own highest pass: all of these at once, so that few remain.
    best = np.full(count, -1)
    for here, there in ((one, other), (other, one)):
        # Of passes that are as high, that to the highest, and of these to the first.
        np.maximum.at(best, here, (height << 48) + (rank[there] << 40) + count - there)
    summit = np.flatnonzero(best >= 0)
    passed, to = best[summit] >> 48, count - (best[summit] & ((1 << 40) - 1))
    goes = (rank[to] > rank[summit]) | ((rank[to] == rank[summit]) & (to < summit))
    goes &= passed > limit[summit]
    into[summit[goes]], fell[summit[goes]] = to[goes], passed[goes]
    top = _ends(into)
    one, other = top[one], top[other]
    left = one != other
    one, other, height = _highest(_key(one[left], other[left], height[left], count), count)
    level = _joined(rank, limit, one, other, height, into, fell)
    into[level >= 0] = np.flatnonzero(level >= 0)
    fell[level >= 0] = _NEVER
    while True:
        further = into[into]
        if np.array_equal(further, into):
            return level, into, fell
        fell = np.minimum(fell, fell[into])
        into = further


def _ends(into: Ints) -> Ints:
    """(n,) where the ways end on which each leads to the next."""
    while True:
        further = into[into]
        if np.array_equal(further, into):
            return into
        into = further


def _joined(
    rank: Ints, limit: Ints, one: Ints, other: Ints, height: Ints, into: Ints, fell: Ints
) -> Ints:
    """(n,) the level that `parted` gives, of passes from the highest down, one after the other.

    Args:
        into, fell: (n,) of those that go; in place.
    """
    ranks, limits = rank.tolist(), limit.tolist()
    top, level = into.tolist(), [-1] * len(rank)
    gone: list[tuple[int, int, int]] = []
    for here, there, pass_ in zip(one.tolist(), other.tolist(), height.tolist()):
        while top[here] != here:
            top[here] = here = top[top[here]]
        while top[there] != there:
            top[there] = there = top[top[there]]
        if here == there:
            continue
        if ranks[here] < ranks[there]:
            here, there = there, here
        if pass_ <= limits[there]:
            # Those that were parted from others before stay as they were then.
            for summit in (here, there):
                if level[summit] < 0:
                    level[summit] = pass_
        top[there] = here
        gone.append((there, here, pass_))
    summit, to, passed = np.array(gone, np.int64).reshape(-1, 3).T
    into[summit], fell[summit] = to, passed
    return np.array(level, np.int64)
