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
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from rooftrace.core.types import Window
from rooftrace.vector.polygonize import TracedPolygons
from rooftrace.vector.separate import pieces_of, with_pieces

__all__ = ["Necks", "separate_at_necks"]

Floats32 = NDArray[np.float32]

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))

_MAX_SIDE_PX = 4096
"""Larger regions stay whole: their raster would take more memory than all the rest."""

_MAX_LEVELS = 64
"""Of a flood; the halls that are deeper have no need of finer ones."""

_CONVEX = 0.98
"""Of its convex hull: a region that fills so much has no neck."""


@dataclass(frozen=True)
class Necks:
    """Where a region is cut.

    Args:
        ratio: a neck is at most so wide, as a part of the narrower of the two that it joins.
        smallest_depth_px: half of the width that a building has at least.
        level_px: from one level of the flood to the next.
    """

    ratio: float = 0.6
    smallest_depth_px: float = 3.0
    level_px: float = 0.5


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
    to_scene = Affine.translation(extent.col, extent.row)
    mask = rasterize([building], extent.shape_yx, transform=to_scene, dtype="uint8")
    labels = _flood(mask, necks)
    if labels.max() > 1:
        for _, polygon in pieces_of(labels.astype(np.int32), extent):
            # Its ring turns as those of `trace`.
            yield shapely.reverse(shapely.normalize(polygon))


def _flood(mask: NDArray[np.uint8], necks: Necks) -> Floats32:
    """(y, x) the number of the basin of each pixel of a connected mask, from 1; 0 outside."""
    around = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    depth = cv2.distanceTransform(around, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    top = float(depth.max())
    step = max(necks.level_px, top / _MAX_LEVELS)
    labels = np.zeros(mask.shape, np.float32)
    peaks = [0.0]
    for level in np.arange(np.ceil(top / step) - 1, -1, -1) * step:
        above = (depth > level).astype(np.uint8)
        _, island = cv2.connectedComponents(above, connectivity=4)
        _rise(labels, peaks, island, level + step)
        _drown(labels, peaks, island, float(level), necks)
        _grow(labels, above)
    return labels


def _rise(labels: Floats32, peaks: list[float], island: NDArray[np.int32], peak: float) -> None:
    """Islands that no basin has reached begin one of their own; in place."""
    known = np.zeros(int(island.max()) + 1, np.bool_)
    known[island[labels > 0]] = True
    known[0] = True
    fresh = np.flatnonzero(~known)
    if len(fresh):
        number = np.zeros(len(known), np.float32)
        number[fresh] = np.arange(len(peaks), len(peaks) + len(fresh))
        labels += number[island]
        peaks += [peak] * len(fresh)


def _drown(
    labels: Floats32, peaks: list[float], island: NDArray[np.int32], level: float, necks: Necks
) -> None:
    """Basins of one island that no neck parts give way to the deepest of it; in place."""
    # A basin hangs together, and so it lies in one island.
    home = np.zeros(len(peaks), np.int64)
    home[labels.astype(np.int64)] = island
    home[0] = 0
    by_island: dict[int, list[int]] = {}
    for basin in np.flatnonzero(home).tolist():
        by_island.setdefault(int(home[basin]), []).append(basin)
    gone = [
        basin
        for basins in by_island.values()
        for basin in sorted(basins, key=lambda b: (-peaks[b], b))[1:]
        if level > necks.ratio * peaks[basin] or peaks[basin] < necks.smallest_depth_px
    ]
    if gone:
        drowned = np.zeros(len(peaks), np.bool_)
        drowned[gone] = True
        labels[drowned[labels.astype(np.int64)]] = 0


def _grow(labels: Floats32, above: NDArray[np.uint8]) -> None:
    """Basins grow over what is above the water until all of it is taken; in place."""
    free = (above > 0) & (labels == 0)
    while free.any():
        grown = cv2.dilate(labels, _CROSS)
        taken = free & (grown > 0)
        labels[taken] = grown[taken]
        free &= ~taken
