"""Find the footprints whose outlines overlap, among those whose bounding boxes do."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.vector.trace import Bools, Ints, Polygons

__all__ = ["near_pairs", "overlapping_pairs"]

_INTERIORS_MEET = "T********"


def near_pairs(bounds: NDArray[np.float32]) -> Ints:
    """Return (2, k) pairs of indices of bounding boxes that overlap or touch, the lower one first.

    Args:
        bounds: (n, 4) left, top, right and bottom.
    """
    boxes = np.asarray(shapely.box(*bounds.T.astype(np.float64)), np.object_)
    pairs = shapely.STRtree(boxes).query(boxes)
    return np.asarray(pairs[:, pairs[0] < pairs[1]], np.int64)


def overlapping_pairs(raw: Polygons, proposed: Polygons, pairs: Ints) -> Ints:
    """Return the pairs of which one, raw or proposed, overlaps the other's proposal.

    Args:
        raw: (n,) polygons of which no two overlap.
        proposed: (n,) polygons to replace them.
        pairs: (2, k) pairs of indices to examine.
    """
    a, b = pairs
    hit = _meet(proposed[a], proposed[b])
    for mine, theirs in ((a, b), (b, a)):
        todo = np.flatnonzero(~hit)
        hit[todo] = _meet(raw[mine[todo]], proposed[theirs[todo]])
    return pairs[:, hit]


def _meet(one: Polygons, other: Polygons) -> Bools:
    return np.asarray(shapely.relate_pattern(one, other, _INTERIORS_MEET), np.bool_)
