"""Many regions in one raster, apart from each other, so that one call works on all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.vector.corners import Ints

__all__ = ["Labels", "Sheet", "batches", "packed"]

Labels = NDArray[np.int32]

_SIDE_PX = 512
"""A sheet is about so wide, or as its widest region."""


def packed(size_yx: Ints) -> tuple[Ints, tuple[int, int]]:
    """Where rectangles lie in a sheet on which a pixel or more parts each from all others.

    Shelves from the highest rectangles down to the lowest.

    Args:
        size_yx: (n, 2) rows and columns of each.

    Returns:
        (n, 2) row and column of each one's first pixel, and the shape of the sheet, whose rim is
        free.
    """
    order = np.argsort(-size_yx[:, 0], kind="stable")
    height, width = (size_yx[order] + 1).T
    start = np.cumsum(width) - width
    # What begins on a shelf ends on it, too: the sheet is as much wider.
    shelf = start // _SIDE_PX
    first = np.flatnonzero(np.diff(shelf, prepend=-1))
    level, step = np.zeros((2, int(shelf.max(initial=0)) + 1), np.int64)
    step[shelf[first]] = height[first]
    level[1:] = np.cumsum(step)[:-1]
    origin = np.empty_like(size_yx)
    origin[order, 0] = 1 + level[shelf]
    origin[order, 1] = 1 + start - shelf * _SIDE_PX
    rows, columns = (origin + size_yx + 1).max(axis=0, initial=1).tolist()
    return origin, (rows, columns)


def batches(area_px: Ints, most_px: int) -> Iterator[Ints]:
    """Numbers of regions (n,) that share a sheet of about so many pixels, in their order.

    Args:
        area_px: (n,) of the rectangle around each.
        most_px: one that is larger has a sheet of its own.
    """
    total = np.cumsum(area_px)
    first = 0
    while first < len(total):
        before = total[first] - area_px[first]
        stop = max(int(np.searchsorted(total, before + most_px, side="right")), first + 1)
        yield np.arange(first, stop)
        first = stop


@dataclass(frozen=True, slots=True)
class Sheet:
    """The pixels of regions, side by side.

    Args:
        number: (y, x) int32, of the region that a pixel belongs to, from 1; 0 outside of all.
        origin_yx: (n, 2) of each region, the row and column of the sheet's first pixel in the
            region's own coordinates.
    """

    number: Labels
    origin_yx: Ints

    @classmethod
    def of(cls, polygons: NDArray[np.object_], step_px: int = 1) -> Sheet:
        """Of regions (n,) as `trace` makes them, each on a cell of a grid of `step_px` pixels."""
        left, top, right, bottom = shapely.bounds(polygons).astype(np.int64).T
        size = np.stack([bottom - top, right - left], axis=1)
        place, cells = packed(-(-size // step_px))
        moved = place * step_px - np.stack([top, left], axis=1)
        rings, owner = shapely.get_rings(polygons, return_index=True)
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        kept = np.diff(ring, append=-1) == 0
        col, row = xy[kept].astype(np.int64).T
        region = owner[ring[kept]]
        down, along = moved[region].T
        # The vertices are corners in turn of weight 1 and -1 (`vector.corners`), and those are the
        # second differences of the pixels.
        sign = np.ones(len(row), np.float32)
        sign[1::2] = -1
        height, width = cells[0] * step_px, cells[1] * step_px
        weight = np.zeros(height * width, np.float32)
        value = (region + 1).astype(np.float32) * sign
        np.add.at(weight, (row + down) * width + col + along, value)
        number = cv2.integral(weight.reshape(height, width), sdepth=cv2.CV_32F)[1:, 1:]
        return cls(number.astype(np.int32), -moved)
