"""Systematic offset between two layers of buildings, such as imagery against a map.

It is the median shift of buildings with one shape in both layers. Where it varies over the ground,
each cell of a grid has its own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from rooftrace.core.types import Floats, Ints
from rooftrace.vector.compare import shape_ious
from rooftrace.vector.match import PackedPolygons, find_overlaps, join_by_block

NEAR_M, _FAR_M, _FAR_SHARE = 15.0, 150.0, 0.25
"""Maximum offsets in x and in y: of imagery, and, if this share agrees, between datums."""

_BIN_M = 0.5
_VOTERS = 20_000
"""Maximum number of new buildings whose neighbours vote for the first estimate."""

_SAMPLE = 100_000
"""Maximum number of new buildings that are matched, evenly chosen in the order of the layer."""

_LIKE_AREA = 0.8
"""Minimum ratio of the areas of two buildings that may be one."""

_LIKE_SHAPE = 0.8
"""Minimum IoU of two outlines on each other that may be one."""

_LEAST_PAIRS = 20
"""Minimum number of pairs for an estimate, and for that of a cell."""

_LEAST_AGREED = 5
"""Minimum number of pairs for an estimate where they agree, as in a block of a camp."""

_AGREED_M = 0.6
"""Maximum spread in metres of pairs that agree."""

_MIN_IOU = 0.3
_CELL_M = 500.0
_MAX_CELLS = 10_000

_VARIES = 2.0
"""Ratio of the spread of the cells' offsets to that expected by chance, from which it varies."""

_MIN_SPREAD_M = 0.3
"""Minimum spread of the cells' offsets that is removed cell by cell."""


@dataclass(frozen=True)
class LayerOffset:
    """Shift from the old to the new layer, in metres on the plane of the comparison.

    Args:
        xy: (2,) median shift to the east and to the north.
        spread: Median absolute deviation from it, in metres, of the larger of the two axes.
        pairs: Number of buildings that it comes from.
        corner: (2,) lower left corner of the grid of cells.
        cells: (rows, columns, 2) shift of each cell; None where one offset serves everywhere.
    """

    xy: Floats
    spread: float
    pairs: int
    corner: Floats
    cells: Floats | None = None
    cell_m: float = _CELL_M

    @property
    def length_m(self) -> float:
        """Length of the median shift."""
        return float(np.hypot(*self.xy))

    def at(self, places: Floats) -> Floats:
        """Return the (n, 2) shift at (n, 2) places, between cells by bilinear interpolation."""
        if self.cells is None:
            return np.tile(self.xy, (len(places), 1))
        rows, cols = self.cells.shape[:2]
        at = (places - self.corner) / self.cell_m - 0.5
        at = np.clip(at, 0, (cols - 1, rows - 1))
        low = np.minimum(np.floor(at).astype(np.int64), (max(cols - 2, 0), max(rows - 2, 0)))
        high = np.minimum(low + 1, (cols - 1, rows - 1))
        (u, v), shift = (at - low).T[:, :, None], self.cells
        below = shift[low[:, 1], low[:, 0]] * (1 - u) + shift[low[:, 1], high[:, 0]] * u
        above = shift[high[:, 1], low[:, 0]] * (1 - u) + shift[high[:, 1], high[:, 0]] * u
        return np.asarray(below * (1 - v) + above * v)

    def to_json(self) -> dict[str, Any]:
        cells = None
        if self.cells is not None:
            lengths = np.hypot(self.cells[..., 0], self.cells[..., 1])
            cells = {
                "cell_m": self.cell_m,
                "shape": list(lengths.shape),
                "shortest_m": round(float(lengths.min()), 2),
                "longest_m": round(float(lengths.max()), 2),
            }
        return {
            "east_m": round(float(self.xy[0]), 2),
            "north_m": round(float(self.xy[1]), 2),
            "spread_m": round(self.spread, 2),
            "pairs": self.pairs,
            "cells": cells,
        }


def estimate_offset(
    new: PackedPolygons, old: PackedPolygons, workers: int = 1
) -> LayerOffset | None:
    """Return the offset of the new layer from the old one; None with too few pairs.

    A first estimate is the shift for which most neighbours vote. The new layer is moved back by it
    and matched; the offset is the median shift of the pairs with one shape.

    Args:
        new, old: Buildings on the same plane in metres.
        workers: Number of threads; the result does not depend on it.

    Raises:
        DataError: Hundreds of polygons lie on top of each other.
    """
    new = new.take(np.arange(0, len(new), max(1, -(-len(new) // _SAMPLE))))
    in_place, near = _alike(new, old, workers), _alike_after_vote(new, old, NEAR_M, workers)
    one, other = max(in_place, near, key=lambda pairs: len(pairs[0]))
    few = _FAR_SHARE * min(len(new), len(old))
    if len(one) < few:
        far = _alike_after_vote(new, old, _FAR_M, workers)
        if len(far[0]) >= max(_LEAST_PAIRS, few) and len(far[0]) > 2 * len(one):
            one, other = far
    if len(one) < _LEAST_AGREED:
        return None
    shift = new.centre[one] - old.centre[other]
    median = np.median(shift, axis=0)
    spread = float(np.median(np.abs(shift - median), axis=0).max())
    if len(one) < _LEAST_PAIRS and spread > _AGREED_M:
        return None
    corner = new.centre.min(axis=0)
    cells = _by_cell(shift, new.centre[one], corner, spread)
    return LayerOffset(median, spread, len(one), corner, cells)


def _alike(new: PackedPolygons, old: PackedPolygons, workers: int) -> tuple[Ints, Ints]:
    """Return the pairs of buildings that overlap and have one shape."""
    pairs = find_overlaps(new, old, workers).matches(_MIN_IOU)
    areas = new.area[pairs.one], old.area[pairs.other]
    pairs = pairs.where(np.minimum(*areas) >= _LIKE_AREA * np.maximum(*areas))
    pairs = pairs.where(shape_ious(new, old, pairs.one, pairs.other) >= _LIKE_SHAPE)
    return pairs.one, pairs.other


def _alike_after_vote(
    new: PackedPolygons, old: PackedPolygons, reach_m: float, workers: int
) -> tuple[Ints, Ints]:
    """Return the pairs of `_alike` after the shift that most vote for; none if it is short."""
    voted = _voted_shift(new, old, reach_m, workers)
    if voted is None or np.hypot(*voted) <= 2 * _BIN_M:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return _alike(new.shifted(np.tile(-voted, (len(new), 1))), old, workers)


def _voted_shift(
    new: PackedPolygons, old: PackedPolygons, reach_m: float, workers: int
) -> Floats | None:
    """Return the shift that most pairs of neighbours of one size have; None without neighbours."""
    chosen = np.arange(0, len(new), max(1, -(-len(new) // _VOTERS)))
    reach = np.array([-reach_m, -reach_m, reach_m, reach_m])

    def work(index: Ints, index_other: Ints) -> tuple[Ints, Ints, Floats]:
        places = np.asarray(shapely.points(old.centre[index_other]), np.object_)
        boxes = shapely.box(*(np.tile(new.centre[chosen[index]], 2) + reach).T)
        at, at_other = shapely.STRtree(places).query(np.asarray(boxes, np.object_))
        near, near_other = index[at], index_other[at_other]
        areas = new.area[chosen[near]], old.area[near_other]
        alike = np.minimum(*areas) >= _LIKE_AREA * np.maximum(*areas)
        return near[alike], near_other[alike], np.zeros(int(alike.sum()))

    boxes = np.tile(new.centre[chosen], 2) + reach
    one, other, _ = join_by_block(boxes, np.tile(old.centre, 2), work, workers)
    if len(one) < _LEAST_AGREED:
        return None
    shift = new.centre[chosen[one]] - old.centre[other]
    edges = np.arange(-reach_m, reach_m + _BIN_M, _BIN_M)
    votes, _, _ = np.histogram2d(shift[:, 0], shift[:, 1], bins=[edges, edges])
    # Each bin with its neighbours, so that a peak on an edge between bins counts as a whole.
    around = np.lib.stride_tricks.sliding_window_view(np.pad(votes, 1), (3, 3)).sum((2, 3))
    peak = np.unravel_index(int(np.argmax(around)), votes.shape)
    return edges[list(peak)] + _BIN_M / 2


def _by_cell(shift: Floats, places: Floats, corner: Floats, spread: float) -> Floats | None:
    """Return the (rows, columns, 2) median shift of cells; None where it does not vary.

    Cells with few pairs get the shift of the nearest other cell.
    """
    index = np.floor((places - corner) / _CELL_M).astype(np.int64)
    index = np.maximum(index, 0)
    cols, rows = (index.max(axis=0) + 1).tolist()
    if rows * cols < 2 or rows * cols > _MAX_CELLS:
        return None
    code = index[:, 1] * cols + index[:, 0]
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    own = [part for part in np.split(order, starts[1:]) if len(part) >= _LEAST_PAIRS]
    if len(own) < 2:
        return None
    medians = np.array([np.median(shift[part], axis=0) for part in own])
    count = np.median([len(part) for part in own])
    # A median of n values deviates by about 1.25 times their standard deviation over √n.
    chance = 1.25 * 1.48 * spread / np.sqrt(count)
    varies = float(medians.std(axis=0).max())
    if varies < max(_VARIES * chance, _MIN_SPREAD_M):
        return None
    known = np.array([index[part[0]] for part in own])
    tree = shapely.STRtree(np.asarray(shapely.points(known.astype(np.float64)), np.object_))
    every = np.stack(np.meshgrid(np.arange(cols), np.arange(rows)), -1).astype(np.float64)
    nearest = tree.nearest(np.asarray(shapely.points(every.reshape(-1, 2)), np.object_))
    return np.asarray(medians[nearest].reshape(rows, cols, 2))
