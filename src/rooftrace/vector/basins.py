"""Basins of a raster of heights: its peaks, the saddles between them, and which of them remain
separate as the water falls.

`Peaks` finds the peaks and saddles, so that a few numbers replace a search for connected components
at each level of a flood. `merge_basins` decides which peaks remain separate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.vector.trace import Ints, Labels

__all__ = ["Heights", "Peaks", "merge_basins"]

Heights = NDArray[np.uint8]

_ABOVE_ALL = 256
"""Height above any peak."""


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peaks of a raster of heights, to which every ascending path leads.

    From each pixel a path ascends to the highest of its four neighbours until it ends on a peak.
    Above a given height two peaks are connected if a path between them has only higher saddles. A
    plateau may have several peaks, with saddles of the same height between them.

    Args:
        land: (pixels,) flat indices of pixels higher than 0, ascending.
        of_land: (pixels,) peak that the path from each of these pixels leads to.
        pixel: (n,) flat index of each peak, ascending.
        one, other: (saddles,) the two peaks on either side of each saddle; each pair once.
        height: (saddles,) height of the highest saddle between the two.
    """

    land: Ints
    of_land: Labels
    pixel: Ints
    one: Ints
    other: Ints
    height: Ints

    @classmethod
    def of(cls, height: Heights) -> Peaks:
        """Return the peaks of a raster (y, x) with a border of 0."""
        width, flat = height.shape[1], height.reshape(-1)
        land = np.flatnonzero(flat)
        peak_of = _climbed(flat, land, width)
        own = np.flatnonzero(peak_of == np.arange(len(land)))
        number = np.empty(len(land), np.int32)
        number[own] = np.arange(len(own))
        of_land = number[peak_of]
        return cls(land, of_land, land[own], *_saddles(flat, land, of_land, width, len(own)))

    def __len__(self) -> int:
        return len(self.pixel)


def _ends(into: NDArray[Any]) -> NDArray[Any]:
    """Return (n,) where each path of successors ends, in the type of the successors."""
    while True:
        further = into[into]
        if np.array_equal(further, into):
            return into
        into = further


def _climbed(flat: Heights, land: Ints, width: int) -> Labels:
    """Return (pixels,) the index of the pixel on which each path ends.

    Among equal neighbours the first is taken, and among pixels as high as the current one only
    those that come before it, so that no path is a cycle.
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
    ends: Labels = _ends(place[land + step[turn[land - width]]])
    return ends


def _saddles(
    flat: Heights, land: Ints, of_land: Labels, width: int, count: int
) -> tuple[Ints, Ints, Ints]:
    """Return pairs of peaks with a saddle between them, and the height of each pair's highest
    saddle.
    """
    peak = np.zeros(len(flat), np.int32)
    peak[land] = of_land + 1
    keys = []
    for aside in (1, width):
        pixel = np.flatnonzero(peak[aside:] != peak[:-aside])
        one, other = peak[pixel], peak[pixel + aside]
        both = np.flatnonzero((one > 0) & (other > 0))
        pixel, one, other = pixel[both], one[both] - 1, other[both] - 1
        keys.append(_key(one, other, np.minimum(flat[pixel], flat[pixel + aside]), count))
    return _highest(np.concatenate(keys), count)


def _key(one: Labels | Ints, other: Labels | Ints, height: Heights | Ints, count: int) -> Ints:
    """Return numbers of which the smallest for each pair stands for its highest saddle."""
    pair = np.minimum(one, other).astype(np.int64) * count + np.maximum(one, other)
    return np.asarray((pair << 8) + (_ABOVE_ALL - 1 - height), np.int64)


def _highest(key: Ints, count: int) -> tuple[Ints, Ints, Ints]:
    """Return pairs of peaks and the heights of their highest saddles, in descending order of
    height.
    """
    key = np.sort(key)
    key = key[np.flatnonzero(np.diff(key >> 8, prepend=-1))]
    one, other = np.divmod(key >> 8, max(count, 1))
    height = _ABOVE_ALL - 1 - (key & 255)
    order = np.argsort(-height, kind="stable")
    return one[order], other[order], height[order]


def merge_basins(
    rank: Ints, limit: Ints, one: Ints, other: Ints, height: Ints
) -> tuple[Ints, Ints, Ints]:
    """Decide which peaks stay separate from one another.

    As the water level falls, islands join at the saddles between them. The lower peak then merges
    into the higher one, unless the saddle is low enough to keep the two apart from each other.

    Args:
        rank: (n,) heights of the peaks.
        limit: (n,) maximum height of a saddle that separates each peak from a higher one.
        one, other: (saddles,) the two peaks of each saddle.
        height: (saddles,) heights of the saddles.

    Returns:
        (n,) the height down to which each peak is an island of its own, -1 where nothing separates
        it; (n,) the separated peak that each peak belongs to, if any; and (n,) the height of the
        lowest saddle on the way there.
    """
    count = len(rank)
    into, fell = np.arange(count), np.full(count, _ABOVE_ALL)
    # Most peaks merge at their own highest saddle: all of these at once, so that few remain.
    best = np.full(count, -1)
    for here, there in ((one, other), (other, one)):
        # Among equal saddles the one to the highest peak is taken, and among these the first.
        np.maximum.at(best, here, (height << 48) + (rank[there] << 40) + count - there)
    peak = np.flatnonzero(best >= 0)
    passed, to = best[peak] >> 48, count - (best[peak] & ((1 << 40) - 1))
    goes = (rank[to] > rank[peak]) | ((rank[to] == rank[peak]) & (to < peak))
    goes &= passed > limit[peak]
    into[peak[goes]], fell[peak[goes]] = to[goes], passed[goes]
    top = _ends(into)
    one, other = top[one], top[other]
    left = one != other
    one, other, height = _highest(_key(one[left], other[left], height[left], count), count)
    level = _joined(rank, limit, one, other, height, into, fell)
    into[level >= 0] = np.flatnonzero(level >= 0)
    fell[level >= 0] = _ABOVE_ALL
    while True:
        further = into[into]
        if np.array_equal(further, into):
            return level, into, fell
        fell = np.minimum(fell, fell[into])
        into = further


def _joined(
    rank: Ints, limit: Ints, one: Ints, other: Ints, height: Ints, into: Ints, fell: Ints
) -> Ints:
    """Return (n,) the levels of `merge_basins`, processing saddles one by one from the highest
    down.

    Args:
        rank, limit, one, other, height: See `merge_basins`.
        into, fell: (n,) peak that each merged peak goes to and height of that saddle; changed in
            place.
    """
    ranks, limits = rank.tolist(), limit.tolist()
    top, level = into.tolist(), [-1] * len(rank)
    gone: list[tuple[int, int, int]] = []
    for here, there, saddle in zip(one.tolist(), other.tolist(), height.tolist()):
        while top[here] != here:
            top[here] = here = top[top[here]]
        while top[there] != there:
            top[there] = there = top[top[there]]
        if here == there:
            continue
        if ranks[here] < ranks[there]:
            here, there = there, here
        if saddle <= limits[there]:
            # Peaks that were separated before keep their level.
            for peak in (here, there):
                if level[peak] < 0:
                    level[peak] = saddle
        top[there] = here
        gone.append((there, here, saddle))
    peak, to, passed = np.array(gone, np.int64).reshape(-1, 3).T
    into[peak], fell[peak] = to, passed
    return np.array(level, np.int64)
