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

__all__ = ["Summits", "Union"]

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
    one: Numbers
    other: Numbers
    height: Heights

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
) -> tuple[Numbers, Numbers, Heights]:
    """Between which summits there are passes, and the height of the highest of each two."""
    summit = np.zeros(len(flat), np.int32)
    summit[land] = of_land + 1
    keys = []
    for aside in (1, width):
        pixel = np.flatnonzero(summit[aside:] != summit[:-aside])
        one, other = summit[pixel], summit[pixel + aside]
        both = (one > 0) & (other > 0)
        pixel, one, other = pixel[both], one[both] - 1, other[both] - 1
        height = np.minimum(flat[pixel], flat[pixel + aside])
        pair = np.minimum(one, other).astype(np.int64) * count + np.maximum(one, other)
        keys.append((pair << 8) + (255 - height))
    key = np.sort(np.concatenate(keys))
    key = key[np.flatnonzero(np.diff(key >> 8, prepend=-1))]
    one, other = np.divmod(key >> 8, max(count, 1))
    return one.astype(np.int32), other.astype(np.int32), (255 - (key & 255)).astype(np.uint8)


class Union:
    """Islands around summits that become one as the water falls.

    Args:
        rank: (n,) the heights of the summits.
        high: (n,) whether each is high enough to be parted from another.
        ratio: of the lower of two summits; a pass that parts them is at most so high, plus 1.
    """

    def __init__(self, rank: list[int], high: list[bool], ratio: float) -> None:
        self._rank = rank
        self._high = high
        self._ratio = ratio
        self._top = list(range(len(rank)))
        self._into = list(range(len(rank)))
        self._fell = [_NEVER] * len(rank)
        self._level = [-1] * len(rank)

    def join(self, one: int, other: int, height: int) -> None:
        """Take a pass between two; passes come from the highest down."""
        one, other = self._top_of(one), self._top_of(other)
        if one == other:
            return
        if self._rank[one] < self._rank[other]:
            one, other = other, one
        rank, level = self._rank[other], self._level
        # What comes up no higher than the pass is a part of its neighbour.
        if height < rank and self._high[other] and height - 1 <= self._ratio * rank:
            # Those that were parted from others before stay as they were then.
            for summit in (one, other):
                if level[summit] < 0:
                    level[summit] = height
        self._top[other] = self._into[other] = one
        self._fell[other] = height

    def _top_of(self, summit: int) -> int:
        top = self._top
        while top[summit] != summit:
            top[summit] = summit = top[top[summit]]
        return summit

    def owners(self) -> tuple[Ints, Ints, Ints]:
        """What became of all.

        Returns:
            (n,) the level down to which each is parted from others, -1 where it is not; (n,) into
            which of those that are it went; and (n,) the height of the lowest pass on the way.
        """
        level, fell = np.array(self._level, np.int64), np.array(self._fell, np.int64)
        stays = level >= 0
        owner = np.where(stays, np.arange(len(level)), np.array(self._into, np.int64))
        fell[stays] = _NEVER
        while True:
            further = owner[owner]
            if np.array_equal(further, owner):
                return level, owner, fell
            fell = np.minimum(fell, fell[owner])
            owner = further
