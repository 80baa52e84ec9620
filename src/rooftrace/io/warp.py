"""An image on another grid, in another coordinate system."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from rooftrace.core.types import GeoGrid, Raster, RasterSource, Window
from rooftrace.io.reproject import outline_pixels

__all__ = ["warped"]

_MOST_PX = 2**22
"""Of the source that are read at a time."""

_AVERAGE_FROM = 1.5
"""Source pixels to a pixel, from which an interpolation would skip some of them."""


def warped(source: RasterSource, grid: GeoGrid, *, nearest: bool = False) -> Raster:
    """The pixels of `source` on `grid`: bilinear, or averages where it has the finer pixels.

    What is nodata weighs nothing; a pixel is valid if at least half of its weight is. Memory is
    bounded by the size of `grid`, however fine the source.

    Args:
        source: has a CRS.
        grid: has a CRS.
        nearest: each pixel is the one of the source that its centre lies in, as of class indices.

    Raises:
        DataError: the source cannot be read.
        GeoreferenceError: no way leads from one CRS to the other.
    """
    data = np.zeros((source.bands, *grid.shape), source.dtype)
    valid = np.zeros(grid.shape, np.bool_)
    _fill(source, grid, Window.whole(grid.shape), data, valid, nearest)
    return Raster(data, valid, grid)


def _fill(
    source: RasterSource,
    grid: GeoGrid,
    window: Window,
    data: NDArray[Any],
    valid: NDArray[np.bool_],
    nearest: bool,
) -> None:
    target = grid.crop(window)
    area, scale = _source_window(source.grid, target)
    if area is None:
        return
    if area.area_px > _MOST_PX and window.area_px > 1:
        for part in _quarters(window):
            _fill(source, grid, part, data, valid, nearest)
        return
    raster = source.read(area)
    if not raster.valid.any():
        return
    # Numerator and denominator of a weighted mean, under one and the same kernel.
    weighed = np.where(raster.valid, raster.data, 0).astype(np.float32)
    stack = np.concatenate([weighed, raster.valid[None].astype(np.float32)])
    out = np.zeros((len(stack), *window.shape_yx), np.float32)
    assert source.grid.crs is not None
    assert grid.crs is not None
    smooth = Resampling.average if scale > _AVERAGE_FROM else Resampling.bilinear
    reproject(
        stack,
        out,
        src_transform=raster.grid.transform,
        src_crs=_rasterio_crs(source.grid.crs),
        dst_transform=target.transform,
        dst_crs=_rasterio_crs(grid.crs),
        resampling=Resampling.nearest if nearest else smooth,
    )
    known = out[-1] >= 0.5
    mean = out[:-1, known] / out[-1, known]
    if data.dtype.kind in "ui":
        limits = np.iinfo(data.dtype)
        mean = np.rint(mean).clip(limits.min, limits.max)
    rows, cols = window.slices()
    data[:, rows, cols][:, known] = mean.astype(data.dtype)
    valid[rows, cols] = known


def _source_window(source: GeoGrid, target: GeoGrid) -> tuple[Window | None, float]:
    """What of the source a grid is made from, and how many of its pixels go into one of that."""
    pixels = outline_pixels(target, source)
    if not len(pixels):
        return None, 1.0
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    scale = float(max((high - low) / (target.width, target.height)))
    margin = 2 * scale + 2
    col, row = np.floor(low - margin).clip(0).astype(int).tolist()
    stop = np.ceil(high + margin).clip(max=(source.width, source.height)).astype(int).tolist()
    if stop[0] <= col or stop[1] <= row:
        return None, scale
    return Window(row, col, stop[1] - row, stop[0] - col), scale


def _quarters(window: Window) -> list[Window]:
    half = Window(window.row, window.col, -(-window.height // 2), -(-window.width // 2))
    starts = [(row, col) for row in (0, half.height) for col in (0, half.width)]
    parts = (
        Window(window.row + row, window.col + col, half.height, half.width).intersection(window)
        for row, col in starts
    )
    return [part for part in parts if part is not None]


@lru_cache(maxsize=32)
def _rasterio_crs(crs: CRS) -> rasterio.crs.CRS:
    return rasterio.crs.CRS.from_wkt(crs.to_wkt())
