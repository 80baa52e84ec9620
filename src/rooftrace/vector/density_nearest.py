"""How far it is from each point to its nearest neighbour."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

__all__ = ["nearest_neighbour"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_PAIRS = 2**18
"""Of points and candidates that are looked at together, 60 bytes for each."""

_AT_ONCE = 2**16
"""Points that are looked for together."""

_FINEST = 2.0**-24
"""Of the extent: bins are no smaller, however many points lie in one place."""


def nearest_neighbour(xy: Floats) -> Floats:
    """The distance of each point to the nearest other one; exact.

    Points are looked for in square bins around each (3 × 3, which hold all that is nearer than the
    side of a bin), first in small ones and then, where none was found near enough, in bins twice
    as large.

    Args:
        xy: (n, 2), finite.

    Returns:
        (n,) distances; 0 where points coincide, and infinite for a single one.
    """
    found = np.full(len(xy), np.inf)
    if len(xy) < 2:
        return found
    low = xy.min(axis=0)
    extent = float((xy.max(axis=0) - low).max())
    if extent == 0:
        return np.zeros(len(xy))
    side = _first_side(xy - low, extent)
    pending: Ints = np.arange(len(xy))
    while len(pending):
        bins = _Bins(xy, low, side)
        found[pending] = bins.nearest(pending)
        pending = pending[found[pending] > side]
        if side > extent:
            break
        side *= 2
    return found


def _first_side(xy: Floats, extent: float) -> float:
    """The side of bins of which at least a third as many are taken as there are points."""
    side = extent / sqrt(len(xy))
    while side > extent * _FINEST:
        key = _key(xy, side)
        if 3 * (np.count_nonzero(np.diff(np.sort(key))) + 1) >= len(xy):
            break
        side /= 2
    return side


def _key(xy: Floats, side: float) -> Ints:
    """A number for each bin; those of a row follow one another, with a gap between rows."""
    cell = np.floor(xy / side).astype(np.int64)
    return np.asarray(cell[:, 1] * (cell[:, 0].max() + 3) + cell[:, 0] + 1)


class _Bins:
    """Points sorted by their bins."""

    def __init__(self, xy: Floats, low: Floats, side: float) -> None:
        self._xy = xy
        self._key = _key(xy - low, side)
        self._stride = int(np.floor((xy[:, 0].max() - low[0]) / side)) + 3
        self._order = np.argsort(self._key, kind="stable")
        self._sorted = self._key[self._order]

    def nearest(self, chosen: Ints) -> Floats:
        """(k,) the distance to the nearest other point in the 3 × 3 bins around."""
        best = np.empty(len(chosen))
        for at in range(0, len(chosen), _AT_ONCE):
            best[at : at + _AT_ONCE] = self._nearest(chosen[at : at + _AT_ONCE])
        return best

    def _nearest(self, chosen: Ints) -> Floats:
        rows = self._key[chosen][:, None] + np.array([-self._stride, 0, self._stride])
        start = np.searchsorted(self._sorted, rows - 1, side="left")
        stop = np.searchsorted(self._sorted, rows + 1, side="right")
        times = stop - start
        many = np.cumsum(times.sum(axis=1))
        best = np.empty(len(chosen))
        at = 0
        while at < len(chosen):
            before = int(many[at - 1]) if at else 0
            end = max(int(np.searchsorted(many, before + _MOST_PAIRS, side="right")), at + 1)
            best[at:end] = self._among(chosen[at:end], start[at:end], times[at:end])
            at = end
        return best

    def _among(self, chosen: Ints, start: Ints, times: Ints) -> Floats:
        flat, begins = times.ravel(), start.ravel()
        steps = np.arange(flat.sum()) - np.repeat(np.cumsum(flat) - flat - begins, flat)
        other = self._order[steps]
        each = times.sum(axis=1)
        one = np.repeat(chosen, each)
        apart = np.hypot(*(self._xy[one] - self._xy[other]).T)
        apart[one == other] = np.inf
        # Every point is in its own bin, so that none is without a candidate.
        return np.minimum.reduceat(apart, np.cumsum(each) - each)
