"""Pixels of a source on the grid of a tile.

The way of `io.warp.warped`, for small grids and many threads: places are computed at some points of
the tile and interpolated between, as GDAL's approximating transformer does, and pixels are looked
up by OpenCV, which takes no lock of the process.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from rooftrace.core.types import GeoGrid, Raster, RasterSource, Window

__all__ = ["averaged", "sampled", "transformer"]

Floats = NDArray[np.float64]
Maps = NDArray[np.float32]

_EVERY_PX = 8
"""Of a tile, a place is computed."""

_LOOKED_UP = (np.uint8, np.uint16, np.int16, np.float32)
"""What OpenCV interpolates as it is."""


def sampled(source: RasterSource, grid: GeoGrid, *, nearest: bool) -> Raster:
    """The first three bands of `source` on `grid`: bilinear, or means where it is much finer.

    What is nodata weighs nothing; a pixel is valid if at least half of its weight is.

    Args:
        source: has a CRS.
        grid: has a CRS, and a multiple of 8 pixels along each side.
        nearest: each pixel is one of the source, as of class indices.

    Raises:
        DataError: the source cannot be read.
    """
    bands = min(source.bands, 3)
    places = _places(source.grid, grid)
    window = _window(places, source.grid)
    if window is None:
        empty = np.zeros((bands, *grid.shape), source.dtype)
        return Raster(empty, np.zeros(grid.shape, np.bool_), grid)
    cols, rows = (_between(one, grid.shape) for one in places)
    inside = (cols >= 0) & (cols < source.grid.width) & (rows >= 0) & (rows < source.grid.height)
    raster = source.read(window)
    scale = max(np.ptp(places[0][np.isfinite(places[0])]) / grid.width, 1.0)
    step = int(scale)
    data, known = raster.data[:bands], raster.valid
    if step > 1 and nearest:
        data, known = data[:, step // 2 :: step, step // 2 :: step], known[::step, ::step]
        known = known[: data.shape[1], : data.shape[2]]
    elif step > 1:
        data, known = averaged(Raster(data, known, raster.grid), step)
    across = ((cols - window.col) / step - 0.5).astype(np.float32)
    down = ((rows - window.row) / step - 0.5).astype(np.float32)
    values, valid = _looked_up(data, known, across, down, nearest)
    return Raster(values, valid & inside, grid)


def averaged(raster: Raster, step: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Means of squares of pixels, those at the end cut off, and which of them are valid.

    What is nodata weighs nothing; a mean is valid if at least half of its pixels are.
    """
    edges = [np.arange(0, length, step) for length in raster.valid.shape]

    def summed(values: NDArray[Any]) -> Floats:
        # Rows first: numpy adds whole rows at a time, and the second sum is of what is left.
        total = np.add.reduceat(values, edges[0], axis=0, dtype=np.float64)
        return np.asarray(np.add.reduceat(total, edges[1], axis=1))

    weight = summed(raster.valid)
    counts = [np.diff(edge, append=length) for edge, length in zip(edges, raster.valid.shape)]
    known = weight > 0
    means = np.zeros((len(raster.data), *weight.shape))
    whole = bool(raster.valid.all())
    for mean, band in zip(means, raster.data):
        total = summed(band if whole else np.where(raster.valid, band, 0))
        np.divide(total, weight, out=mean, where=known)
    rounded = np.rint(means) if raster.data.dtype.kind in "ui" else means
    return rounded.astype(raster.data.dtype), weight * 2 >= np.outer(*counts)


def _places(source: GeoGrid, grid: GeoGrid) -> tuple[Floats, Floats]:
    """Columns and rows in the source of every eighth corner of the grid's pixels."""
    cols = np.arange(0, grid.width + 1, _EVERY_PX, dtype=np.float64)
    rows = np.arange(0, grid.height + 1, _EVERY_PX, dtype=np.float64)
    x, y = grid.to_world(*np.meshgrid(cols, rows))
    assert source.crs is not None
    assert grid.crs is not None
    if source.crs != grid.crs:
        x, y = transformer(grid.crs, source.crs).transform(x, y)
    to_pixel = ~source.transform
    with np.errstate(invalid="ignore"):
        return (
            np.asarray(to_pixel.a * x + to_pixel.b * y + to_pixel.c),
            np.asarray(to_pixel.d * x + to_pixel.e * y + to_pixel.f),
        )


def _window(places: tuple[Floats, Floats], source: GeoGrid) -> Window | None:
    """What of the source is needed; None where that is nothing."""
    known = np.isfinite(places[0]) & np.isfinite(places[1])
    if not known.any():
        return None
    cols, rows = (one[known] for one in places)
    margin = 2 * max(np.ptp(cols), np.ptp(rows)) / (len(known) * _EVERY_PX) + 2
    low = int(rows.min() - margin), int(cols.min() - margin)
    high = int(rows.max() + margin) + 1, int(cols.max() + margin) + 1
    wanted = Window(*low, high[0] - low[0], high[1] - low[1])
    return wanted.intersection(Window.whole(source.shape))


def _between(corners: Floats, shape: tuple[int, int]) -> Floats:
    """Values at the centres of pixels, from those at every eighth corner."""
    known = np.where(np.isfinite(corners), corners, -1e12)
    for axis, length in enumerate(shape):
        at = (np.arange(length) + 0.5) / _EVERY_PX
        first = at.astype(int)
        share = np.expand_dims(at - first, 1 - axis)
        low, high = known.take(first, axis), known.take(first + 1, axis)
        known = low + (high - low) * share
    return known


def _looked_up(
    data: NDArray[Any],
    known: NDArray[np.bool_],
    across: Maps,
    down: Maps,
    nearest: bool,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    kind = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR

    def looked(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(cv2.remap(values, across, down, kind, borderMode=cv2.BORDER_REPLICATE))

    kept = data if data.dtype in _LOOKED_UP else data.astype(np.float32)
    if known.all():
        made = np.stack([looked(np.ascontiguousarray(band)) for band in kept])
        return made.astype(data.dtype), np.ones(across.shape, np.bool_)
    weight = np.asarray(looked(known.astype(np.float32)), np.float32)
    valid = weight >= 0.5
    if nearest:
        made = np.stack([looked(np.ascontiguousarray(band)) for band in kept])
        return made.astype(data.dtype), valid
    # Numerator and denominator of a weighted mean, under one and the same kernel.
    made = np.zeros((len(data), *across.shape), np.float32)
    for out, band in zip(made, kept):
        total = looked(np.where(known, band, 0).astype(np.float32))
        np.divide(total, weight, out=out, where=valid)
    rounded = np.rint(made) if data.dtype.kind in "ui" else made
    return rounded.astype(data.dtype), valid


@lru_cache(maxsize=32)
def transformer(source: CRS, target: CRS) -> Transformer:
    """X before y, whatever the systems say; threads may share it."""
    return Transformer.from_crs(source, target, always_xy=True)
