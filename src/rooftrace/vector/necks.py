"""Buildings that touch, cut apart at their necks, where no model tells one from the other.

The watershed of the distance to the outline (Beucher and Lantuéjoul 1979), flooded level by level
from the deepest (Vincent and Soille 1991, doi:10.1109/34.87344). Two basins stay two where the
neck between them is narrow in proportion to both; elsewhere the shallower one drowns, so that the
flood's usual crumbs do not come up. Each region is flooded in a raster of its own, so it does not
matter how the scene was cut into blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.types import Window
from rooftrace.vector.polygonize import TracedPolygons
from rooftrace.vector.separate import pieces_of, with_pieces

__all__ = ["Necks", "separate_at_necks"]

Floats32 = NDArray[np.float32]
Labels = NDArray[np.int32]

_MAX_SIDE_PX = 4096
"""Larger regions stay whole: their raster would take more memory than all the rest."""

_MAX_LEVELS = 64
"""Of a flood; the halls that are deeper have no need of finer ones."""

_CONVEX = 0.98
"""Of its convex hull: a region that fills so much has no neck."""


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
    possible = buildings.area_px >= 2 * (2 * necks.smallest_depth_px) ** 2
    possible &= np.maximum(right - left, bottom - top) <= _MAX_SIDE_PX
    chosen = np.flatnonzero(possible)
    polygons = buildings.polygons[chosen]
    filled = shapely.polygons(shapely.get_exterior_ring(polygons))
    # A court is no neck: its width is not what the outline's notches say.
    hull = shapely.area(shapely.convex_hull(polygons))
    chosen = chosen[shapely.area(filled) < _CONVEX * hull]
    cut = {}
    for index in chosen.tolist():
        pieces = list(_pieces(buildings.polygons[index], necks))
        if len(pieces) > 1:
            score = float(buildings.score[index])
            cut[index] = [(np.array(pieces, np.object_), score)]
    return with_pieces(buildings, cut)


def _pieces(building: shapely.Polygon, necks: Necks) -> Iterator[shapely.Polygon]:
    left, top, right, bottom = (int(edge) for edge in building.bounds)
    extent = Window(top, left, bottom - top, right - left)
    labels = _flood(_pixels(building, extent), necks)
    if labels.max() > 1:
        for _, polygon in pieces_of(labels, extent):
            # Its ring turns as those of `trace`.
            yield shapely.reverse(shapely.normalize(polygon))


def _pixels(building: shapely.Polygon, extent: Window) -> NDArray[np.uint8]:
    """(y, x) 1 inside of a polygon that `trace` made, whose vertices are corners in turn of weight
    1 and -1, and those are the second differences of its pixels (`vector.corners`).
    """
    xy, ring = shapely.get_coordinates(shapely.get_rings(building), return_index=True)
    col, row = xy[np.diff(ring, append=-1) == 0].astype(np.int64).T
    weight = np.zeros((extent.height + 1, extent.width + 1), np.int8)
    np.add.at(
        weight,
        (row - extent.row, col - extent.col),
        np.resize(np.array([1, -1], np.int8), len(row)),
    )
    pixels = weight.cumsum(axis=0, dtype=np.int8).cumsum(axis=1, dtype=np.int8)
    return np.ascontiguousarray(pixels[:-1, :-1]).view(np.uint8)


def _flood(mask: NDArray[np.uint8], necks: Necks) -> Labels:
    """(y, x) the number of the basin of each pixel of a connected mask, from 1; 0 outside."""
    around = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    distance = cv2.distanceTransform(around, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    depth = np.asarray(distance, np.float32)
    basins = _basins(depth, necks)
    labels = np.zeros(depth.shape, np.int32)
    if len(basins) > 1:
        for level in sorted({basin.level for basin in basins}, reverse=True):
            island = _islands(depth, level)
            for number, basin in enumerate(basins, start=1):
                if basin.level == level:
                    labels[island == island.flat[basin.pixel]] = number
            _grow(labels, island > 0)
        _grow(labels, around > 0)
    return labels[1:-1, 1:-1]


@dataclass
class _Basin:
    """What water gathers in.

    Args:
        pixel: one of its deepest, as a flat index.
        peak: how deep that is.
        level: down to which it is an island of its own; infinite while no neck parts it from
            another.
    """

    pixel: int
    peak: float
    level: float = np.inf


def _basins(depth: Floats32, necks: Necks) -> list[_Basin]:
    """Those that necks part, from the levels at which islands become one."""
    top = float(depth.max())
    step = max(necks.level_px, top / _MAX_LEVELS)
    # One list for each island, in the order in which they came up.
    islands: list[list[_Basin]] = []
    for level in (np.arange(np.ceil(top / step) - 1, -1, -1) * step).tolist():
        island = _islands(depth, level)
        joined: dict[int, list[list[_Basin]]] = {}
        for basins in islands:
            joined.setdefault(int(island.flat[basins[0].pixel]), []).append(basins)
        count = int(island.max())
        if len(joined) < count:
            some = np.zeros(count + 1, np.int64)
            some[island] = np.arange(island.size).reshape(island.shape)
            for number in range(1, count + 1):
                if number not in joined:
                    joined[number] = [[_Basin(int(some[number]), level + step)]]
        islands = [_parted(those, level, step, necks) for those in joined.values()]
    return islands[0]


def _parted(islands: list[list[_Basin]], level: float, step: float, necks: Necks) -> list[_Basin]:
    """The basins of islands that become one: the deepest, and those that a neck keeps apart."""
    if len(islands) == 1:
        return islands[0]
    together = [basin for basins in islands for basin in basins]
    deepest = max(together, key=lambda basin: basin.peak)
    kept = [
        basin
        for basin in together
        if basin is deepest
        or (level <= necks.ratio * basin.peak and basin.peak >= necks.smallest_depth_px)
    ]
    if len(kept) > 1:
        for basin in kept:
            # One that was parted from others before stays as it was then.
            if np.isinf(basin.level):
                basin.level = level + step
    return kept


def _islands(depth: Floats32, level: float) -> Labels:
    """(y, x) the number of the island that each pixel above a level lies on; 0 below."""
    above = (depth > level).view(np.uint8)
    return np.asarray(cv2.connectedComponents(above, connectivity=4)[1], np.int32)


def _grow(labels: Labels, above: NDArray[np.bool_]) -> None:
    """Basins grow along rows and columns over what is above water, in place.

    Nothing is above water at the rim.
    """
    width = labels.shape[1]
    flat, free = labels.reshape(-1), (above & (labels == 0)).reshape(-1)
    front = np.flatnonzero(flat)
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
