"""Buildings that touch, cut apart at their necks, where no model tells one from the other.

The watershed of the distance to the outline (Beucher and Lantuéjoul 1979), flooded level by level
from the deepest (Vincent and Soille 1991, doi:10.1109/34.87344). Two basins stay two where the
neck between them is narrow in proportion to both; elsewhere the shallower one drowns, so that the
flood's usual crumbs do not come up. Regions lie side by side in one raster and are flooded
together, each by itself, so it does not matter how the scene was cut into blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.vector.corners import Ints
from rooftrace.vector.polygonize import TracedPolygons, trace
from rooftrace.vector.sheets import Labels, Sheet, batches, packed
from rooftrace.vector.summits import Summits, parted

__all__ = ["Necks", "separate_at_necks"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ranks = NDArray[np.uint8]

_MAX_SIDE_PX = 4096
"""Larger regions stay whole: their raster would take more memory than all the rest."""

_MAX_LEVELS = 64
"""Of a flood; the halls that are deeper have no need of finer ones."""

_SHEET_PX = 1 << 19
"""Regions that are flooded together."""

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))

_CELL_LEVELS = 0.75
"""Of a level: pixels that are finer than their levels say no more than coarse ones."""


@dataclass(frozen=True)
class Necks:
    """Where a region is cut, in pixels of the mask.

    The defaults are for a mask that is as fine as its model saw, and are those with which F1 of
    buildings rose most where it rose at every place that it was measured at (docs/touching.md).

    Args:
        ratio: a neck is at most so wide, as a part of the narrower of the two that it joins.
        smallest_depth_px: half of the width that a building has at least.
        level_px: from one level of the flood to the next.
    """

    ratio: float = 0.6
    smallest_depth_px: float = 5.0
    level_px: float = 0.75

    def scaled(self, px: float) -> Necks:
        """For a mask on which a pixel of the model is `px` pixels large, on either side."""
        return Necks(self.ratio, self.smallest_depth_px * px, self.level_px * px)


def separate_at_necks(buildings: TracedPolygons, necks: Necks) -> TracedPolygons:
    """Cut each building that has a neck into pieces, which tile it.

    Args:
        buildings: the regions of a mask, in pixels.
        necks: where they are cut.

    Returns:
        All buildings, ordered by their first pixel. A piece has the score of the whole.
    """
    left, top, right, bottom = shapely.bounds(buildings.polygons).T
    height, width = bottom - top, right - left
    possible = buildings.area_px >= 2 * (2 * necks.smallest_depth_px) ** 2
    possible &= np.minimum(height, width) > 2 * (necks.smallest_depth_px - necks.level_px)
    possible &= np.maximum(height, width) <= _MAX_SIDE_PX
    chosen = np.flatnonzero(possible)
    around = (height * width).astype(np.int64)
    promising = [
        chosen[part][_Flood.of(buildings.of(chosen[part]), necks).promising()]
        for part in batches(around[chosen], _SHEET_PX)
    ]
    chosen = np.concatenate([chosen[:0], *promising])
    whole = np.ones(len(buildings), np.bool_)
    parts = []
    for part in batches(around[chosen], _SHEET_PX):
        cut, pieces = _pieces(buildings.of(chosen[part]), necks)
        whole[chosen[part][cut]] = False
        parts.append(pieces)
    if whole.all():
        return buildings
    return TracedPolygons.concatenated([buildings.of(whole), *parts])


def _pieces(regions: TracedPolygons, necks: Necks) -> tuple[Bools, TracedPolygons]:
    """(n,) which regions are cut, and the pieces of all of them."""
    flood = _Flood.of(regions, necks)
    basins = flood.basins()
    cut = np.bincount(basins.region, minlength=len(regions) + 1)[1:] > 0
    labels = flood.grown(basins)
    pixel = np.flatnonzero(labels)
    row, col = np.divmod(pixel, labels.shape[1])
    piece = labels.reshape(-1)[pixel] - 1
    # Each piece moves to a place of its own, so that one trace goes around all.
    low = np.full((2, len(basins)), np.iinfo(np.int64).max)
    high = np.zeros((2, len(basins)), np.int64)
    for axis, at in enumerate((row, col)):
        np.minimum.at(low[axis], piece, at)
        np.maximum.at(high[axis], piece, at)
    place, shape = packed((high - low + 1).T)
    moved = place - low.T
    down, along = moved[piece].T
    number = np.zeros(shape, np.int32)
    number[row + down, col + along] = piece + 1
    traced = trace((number > 0).view(np.uint8))
    own = number[tuple(traced.first_pixel_yx.T)] - 1
    region = basins.region[own] - 1
    back = flood.sheet.origin_yx[region] - moved[own]
    xy, owner = shapely.get_coordinates(traced.polygons, return_index=True)
    return cut, TracedPolygons(
        np.asarray(shapely.set_coordinates(traced.polygons, xy + back[owner, ::-1]), np.object_),
        regions.score[region],
        traced.area_px,
        traced.first_pixel_yx + back,
    )


@dataclass(frozen=True)
class _Basins:
    """What water gathers in, where necks part it.

    Args:
        region: (n,) that each lies in, from 1; two or more of each that occurs.
        level: (n,) down to which it is an island of its own.
        island: (y, x) the number, from 1, of the basin on whose island at that level a pixel lies;
            0 on none.
    """

    region: Ints
    level: Ints
    island: Labels

    def __len__(self) -> int:
        return len(self.region)


@dataclass(frozen=True)
class _Flood:
    """Regions under water.

    Args:
        sheet: of all of them.
        cell_px: side of the squares of pixels that are one here: those in the middle of `sheet`'s.
        number: (y, x) of the region that each belongs to, from 1; 0 outside.
        rank: (y, x) how many levels lie below its depth; 0 outside. Above the water of a level are
            those of a higher rank than its number.
        rows: (levels,) how many rows of `rank` there are up to the last that rises above a level.
        step_px: (n + 1,) pixels from one level to the next, of each region by its number.
        necks: where they are cut.
    """

    sheet: Sheet
    cell_px: int
    number: Labels
    rank: Ranks
    rows: list[int]
    step_px: Floats
    necks: Necks

    @classmethod
    def of(cls, regions: TracedPolygons, necks: Necks) -> _Flood:
        cell = max(1, int(necks.level_px / _CELL_LEVELS))
        sheet = Sheet.of(regions.polygons, cell)
        number = np.ascontiguousarray(sheet.number[cell // 2 :: cell, cell // 2 :: cell])
        # Chamfer distances (Borgefors 1986) are within 2 %, in a tenth of the time.
        inside = (number > 0).view(np.uint8)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)
        level = np.float32(necks.level_px / cell)
        step = np.full(len(regions) + 1, level)
        deep = np.flatnonzero(depth > _MAX_LEVELS * level)
        if len(deep):
            np.maximum.at(
                step, number.reshape(-1)[deep], depth.reshape(-1)[deep] / np.float32(_MAX_LEVELS)
            )
            rank = np.ceil(depth / step[number]).astype(np.uint8)
        else:
            rank = np.ceil(depth / level).astype(np.uint8)
        highest = np.maximum.accumulate(rank.max(axis=1)[::-1])
        rows = len(rank) - np.searchsorted(highest, np.arange(int(highest[-1])), side="right")
        return cls(sheet, cell, number, rank, rows.tolist(), step.astype(np.float64) * cell, necks)

    def promising(self) -> Bools:
        """(n,) False for regions without two basins that a neck could part.

        Two such basins are islands of their own at every level from that of the neck to that of
        the shallower one's peak. So a few levels suffice, of which one lies in each such span.
        """
        necks = self.necks
        found = self.step_px > self.step_px[0]
        peak = max(int(np.ceil(necks.smallest_depth_px / self.step_px[0])), 1)
        while peak <= len(self.rows):
            level = peak - 1
            count, island = self._islands(level)
            region = np.zeros(count, np.int32)
            # Where a row enters an island is enough of its pixels.
            enters = np.flatnonzero(island[1:] != island[:-1]) + 1
            region[island[enters]] = self.number.reshape(-1)[enters]
            found |= np.bincount(region[1:], minlength=len(found)) > 1
            peak += 1
            while necks.ratio * peak < level:
                peak += 1
        return np.asarray(found[1:], np.bool_)

    def basins(self) -> _Basins:
        """Those that necks part.

        As the water falls, islands become one at the passes between them, and the shallower basin
        drowns there, unless the pass is narrow in proportion to it.
        """
        summits = Summits.of(self.rank)
        rank = self.rank.reshape(-1)[summits.pixel].astype(np.int64)
        region = self.number.reshape(-1)[summits.pixel].astype(np.int64)
        one, other, height = summits.one, summits.other, summits.height
        if self.cell_px > 1:
            # What only pixels between the cells join is parted there.
            _, first, own = np.unique(region, return_index=True, return_inverse=True)
            one, other = np.append(one, first[own]), np.append(other, np.arange(len(summits)))
            height = np.append(height, np.zeros(len(summits), np.int64))
        # What a pass is the height of lies above the water that it joins two islands at.
        limit = np.minimum(np.floor(self.necks.ratio * rank).astype(np.int64) + 1, rank - 1)
        limit[rank * self.step_px[region] < self.necks.smallest_depth_px] = -1
        level, owner, fell = parted(rank, limit, one, other, height)
        apart = level >= 0
        basin = np.cumsum(apart, dtype=np.int32)
        # The way up from a pixel does not leave its island.
        reached = np.where(apart[owner] & (fell > level[owner]), level[owner], 255)
        seen = self.rank.reshape(-1)[summits.land] > reached[summits.of_land]
        labels = np.zeros(self.rank.shape, np.int32)
        labels.reshape(-1)[summits.land] = np.where(seen, basin[owner][summits.of_land], 0)
        return _Basins(region[apart], level[apart], labels)

    def grown(self, basins: _Basins) -> Labels:
        """(y, x) the number of the basin of each pixel, from 1; 0 in regions that have none."""
        labels, number = basins.island, self.number
        count = len(self.step_px)
        highest = np.full(count, -1)
        np.maximum.at(highest, basins.region, basins.level)
        for level in np.unique(basins.level)[::-1].tolist():
            # Where a region's first basins come up, there is nothing between them that could grow.
            again = np.zeros(count, np.bool_)
            again[basins.region[basins.level == level]] = True
            again &= highest > level
            if again.any():
                rows = slice(self.rows[level] + 1)
                _grow(labels[rows], ((self.rank[rows] > level) & again[number[rows]]).reshape(-1))
        if self.cell_px > 1:
            labels = labels.repeat(self.cell_px, axis=0).repeat(self.cell_px, axis=1)
            labels[self.sheet.number == 0] = 0
        cut = np.zeros(count, np.bool_)
        cut[basins.region] = True
        _grow(labels, cut[self.sheet.number].reshape(-1))
        return labels

    def _islands(self, level: int) -> tuple[int, Labels]:
        """How many numbers there are, and (pixels,) that of the island that each lies on, from 1;
        0 below. Of the first rows, as far as there are any.
        """
        above = (self.rank[: self.rows[level]] > level).view(np.uint8)
        count, island = cv2.connectedComponents(above, connectivity=4)
        return count, np.asarray(island, np.int32).reshape(-1)


def _grow(labels: Labels, above: NDArray[np.bool_]) -> None:
    """Basins grow along rows and columns over what is above water, in place.

    Nothing is above water at the rim.
    """
    width, flat = labels.shape[1], labels.reshape(-1)
    free = above & (flat == 0)
    beside = cv2.dilate(free.view(np.uint8).reshape(labels.shape), _CROSS).reshape(-1)
    front = np.flatnonzero((beside > 0) & (flat > 0))
    while len(front):
        taken = []
        for aside in (-width, -1, 1, width):
            near = front + aside
            found = free[near]
            near = near[found]
            flat[near] = flat[front[found]]
            free[near] = False
            taken.append(near)
        front = np.concatenate(taken)
