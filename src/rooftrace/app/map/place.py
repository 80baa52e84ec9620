"""Place a scene on the Web Mercator map and resample its pixels to map tiles.

The resampling follows `io.resample.warped`, for small grids and many threads. Coordinates are
transformed at some points of the tile and interpolated between them, as GDAL's approximating
transformer does. OpenCV looks up the pixels, because it does not hold the lock of the process.
"""

from collections.abc import Callable
from functools import cached_property
from math import ceil, log2
from typing import Any

import cv2
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from rooftrace.core.errors import GeoreferenceError
from rooftrace.core.types import Bounds, Floats, GeoGrid, Raster, RasterSource, Window
from rooftrace.io.georeferenced import GeoreferencedSource
from rooftrace.io.reproject import outline_bounds, reprojected, transform_points, transformer
from rooftrace.io.web_mercator import WORLD_M, latitude_of, to_degrees, to_metres, web_mercator

PointFunction = Callable[[Floats], Floats]
Maps = NDArray[np.float32]

_EVERY_PX = 8
"""Distance in pixels of a tile between the points whose coordinates are transformed exactly."""

_REMAPPED_TYPES = (np.uint8, np.uint16, np.int16, np.float32)
"""Data types that OpenCV interpolates without a conversion."""


def sampled(source: RasterSource, grid: GeoGrid, *, nearest: bool) -> Raster:
    """Return the first three bands of `source` on `grid`.

    Pixels are interpolated bilinearly, or averaged where the source is much finer. Nodata has no
    weight; a pixel is valid if at least half of its weight is valid.

    Args:
        source: Image with a CRS.
        grid: Grid with a CRS whose sides are multiples of 8 pixels.
        nearest: Take the nearest pixel of the source instead, as class indices need it.
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
    data, data_valid = raster.data[:bands], raster.valid
    if step > 1 and nearest:
        data, data_valid = data[:, step // 2 :: step, step // 2 :: step], data_valid[::step, ::step]
        data_valid = data_valid[: data.shape[1], : data.shape[2]]
    elif step > 1:
        data, data_valid = averaged(Raster(data, data_valid, raster.grid), step)
    across = ((cols - window.col) / step - 0.5).astype(np.float32)
    down = ((rows - window.row) / step - 0.5).astype(np.float32)
    values, valid = _remapped(data, data_valid, across, down, nearest)
    return Raster(values, valid & inside, grid)


def averaged(raster: Raster, step: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the means of squares of `step` pixels and which of these means are valid.

    Squares at the lower and right edge may be cut off. Nodata has no weight; a mean is valid if at
    least half of its pixels are.
    """
    edges = [np.arange(0, length, step) for length in raster.valid.shape]

    def summed(values: NDArray[Any]) -> Floats:
        # Rows are summed first: numpy adds whole rows at a time, and the second sum has fewer
        # terms.
        total = np.add.reduceat(values, edges[0], axis=0, dtype=np.float64)
        return np.asarray(np.add.reduceat(total, edges[1], axis=1))

    weight = summed(raster.valid)
    counts = [np.diff(edge, append=length) for edge, length in zip(edges, raster.valid.shape)]
    valid = weight > 0
    means = np.zeros((len(raster.data), *weight.shape))
    whole = bool(raster.valid.all())
    for mean, band in zip(means, raster.data):
        total = summed(band if whole else np.where(raster.valid, band, 0))
        np.divide(total, weight, out=mean, where=valid)
    rounded = np.rint(means) if raster.data.dtype.kind in "ui" else means
    return rounded.astype(raster.data.dtype), weight * 2 >= np.outer(*counts)


def _places(source: GeoGrid, grid: GeoGrid) -> tuple[Floats, Floats]:
    """Return the source's columns and rows of every eighth corner of the grid's pixels."""
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
    """Return the window of the source that is needed; None if the grid lies outside of it."""
    finite = np.isfinite(places[0]) & np.isfinite(places[1])
    if not finite.any():
        return None
    cols, rows = (one[finite] for one in places)
    margin = 2 * max(np.ptp(cols), np.ptp(rows)) / (len(finite) * _EVERY_PX) + 2
    low = int(rows.min() - margin), int(cols.min() - margin)
    high = int(rows.max() + margin) + 1, int(cols.max() + margin) + 1
    window = Window(*low, high[0] - low[0], high[1] - low[1])
    return window.intersection(Window.whole(source.shape))


def _between(corners: Floats, shape: tuple[int, int]) -> Floats:
    """Interpolate values at pixel centres from those at every eighth corner."""
    values = np.where(np.isfinite(corners), corners, -1e12)
    for axis, length in enumerate(shape):
        at = (np.arange(length) + 0.5) / _EVERY_PX
        first = at.astype(int)
        share = np.expand_dims(at - first, 1 - axis)
        low, high = values.take(first, axis), values.take(first + 1, axis)
        values = low + (high - low) * share
    return values


def _remapped(
    data: NDArray[Any], known: NDArray[np.bool_], across: Maps, down: Maps, nearest: bool
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    kind = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR

    def remapped(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(cv2.remap(values, across, down, kind, borderMode=cv2.BORDER_REPLICATE))

    bands = data if data.dtype in _REMAPPED_TYPES else data.astype(np.float32)
    if known.all():
        moved = np.stack([remapped(np.ascontiguousarray(band)) for band in bands])
        return moved.astype(data.dtype), np.ones(across.shape, np.bool_)
    weight = np.asarray(remapped(known.astype(np.float32)), np.float32)
    valid = weight >= 0.5
    if nearest:
        moved = np.stack([remapped(np.ascontiguousarray(band)) for band in bands])
        return moved.astype(data.dtype), valid
    # The numerator and the denominator of the weighted mean need the same kernel.
    moved = np.zeros((len(data), *across.shape), np.float32)
    for out, band in zip(moved, bands):
        total = remapped(np.where(known, band, 0).astype(np.float32))
        np.divide(total, weight, out=out, where=valid)
    rounded = np.rint(moved) if data.dtype.kind in "ui" else moved
    return rounded.astype(data.dtype), valid


DEEPEST_TILE_ZOOM = 24
"""Deepest zoom of the map's tiles."""

_EARTH_M = 6378137.0
_BEND_M = 0.05
"""Maximum distance in metres between a reprojected edge and its straight line."""

_STRAIGHT_M = 500.0
"""Length in metres below which a line needs no extra vertices.

A line of this length deviates by its square over eight times the Earth's radius: 5 mm.
"""


class Place:
    """Position of a scene on the map.

    A scene is *flat* if it has no coordinate system, or if Web Mercator cannot show it (near the
    poles, across the antimeridian). A flat scene is centred on longitude and latitude 0, and one
    pixel is one metre of the map.
    """

    def __init__(self, grid: GeoGrid) -> None:
        self.grid = grid
        bounds = None if grid.crs is None else _mercator_bounds(grid)
        self.flat = bounds is None
        self._bounds = bounds

    @cached_property
    def _flat_transform(self) -> Affine:
        rows, cols = self.grid.shape
        return Affine(1.0, 0.0, -cols / 2, 0.0, -1.0, rows / 2)

    @cached_property
    def bounds_m(self) -> Bounds:
        """Bounds of the scene in EPSG:3857."""
        if self._bounds is not None:
            return self._bounds
        return GeoGrid(self.grid.shape, self._flat_transform).bounds_xy

    @property
    def bounds_degrees(self) -> Bounds:
        """Bounds of the scene in degrees: west, south, east, north."""
        left, bottom, right, top = self.bounds_m
        turn = 360 / WORLD_M
        return left * turn, latitude_of(bottom), right * turn, latitude_of(top)

    @property
    def pixel_m(self) -> float:
        """Size of a pixel on the map, in the map's metres."""
        left, bottom, right, top = self.bounds_m
        return min((right - left) / self.grid.width, (top - bottom) / self.grid.height)

    def deepest_zoom(self, tile_px: int) -> int:
        """Return the lowest zoom at which a tile's pixel is no larger than one of the scene."""
        zoom = ceil(log2(WORLD_M / tile_px / self.pixel_m) - 0.1)
        return min(max(zoom, 0), DEEPEST_TILE_ZOOM)

    def source(self, source: RasterSource) -> RasterSource:
        """Return `source`, which covers the scene at any resolution, georeferenced on the map."""
        if not self.flat:
            return source
        rows, cols = self.grid.shape

        def placed(grid: GeoGrid) -> GeoGrid:
            scale = Affine.scale(cols / grid.width, rows / grid.height)
            return GeoGrid(grid.shape, self._flat_transform @ scale, web_mercator())

        return GeoreferencedSource(source, placed)

    def polygons(self, geometry: NDArray[np.object_], crs: CRS | None) -> NDArray[np.object_]:
        """Return polygons in EPSG:3857; coordinates outside of its domain are infinite.

        Args:
            geometry: (n,) polygons in `crs`, or in pixels of the scene if `crs` is None.
            crs: Coordinate system of the polygons.

        Raises:
            GeoreferenceError: The polygons cannot be transformed to the scene's system.
        """
        if not self.flat:
            return _on_map(geometry, crs or web_mercator())
        to_map: Any = self._flat_transform
        if self.grid.crs is not None and crs is not None:
            geometry = reprojected(geometry, crs, self.grid.crs, self.grid.transform.a / 16)
            to_map = to_map @ ~self.grid.transform

        moved = shapely.transform(geometry, lambda xy: _applied(to_map, xy))
        return np.asarray(moved, np.object_)

    def lonlat_functions(self, crs: CRS | None) -> tuple[PointFunction, PointFunction]:
        """Return the functions from points to longitudes and latitudes of the map, and back.

        Args:
            crs: Coordinate system of the points; None for pixels of the scene.
        """
        if not self.flat:
            own_crs = crs or web_mercator()
            return (
                lambda xy: to_degrees(transform_points(xy, own_crs, web_mercator())),
                lambda xy: transform_points(to_metres(xy), web_mercator(), own_crs),
            )
        affine, scene = self._flat_transform, self.grid.crs
        if scene is None or crs is None:
            return (
                lambda xy: to_degrees(_applied(affine, xy)),
                lambda xy: _applied(~affine, to_metres(xy)),
            )
        affine = affine @ ~self.grid.transform
        return (
            lambda xy: to_degrees(_applied(affine, transform_points(xy, crs, scene))),
            lambda xy: transform_points(_applied(~affine, to_metres(xy)), scene, crs),
        )

    def frame(self, crs: CRS | None) -> BaseGeometry:
        """Return the outer edge of the scene in a CRS, or in pixels if it is None."""
        rows, cols = self.grid.shape
        pixels = shapely.box(0, 0, cols, rows)
        if self.grid.crs is None or (crs is None and self.flat):
            return pixels
        edge = np.array([shapely.transform(pixels, lambda xy: _applied(self.grid.transform, xy))])
        bend = abs(self.grid.transform.a) / 16
        outline: BaseGeometry = reprojected(edge, self.grid.crs, crs or web_mercator(), bend)[0]
        return outline


def _applied(affine: Affine, xy: Floats) -> Floats:
    x, y = xy.T
    return np.stack(
        [affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f], axis=1
    )


def _on_map(geometry: NDArray[np.object_], crs: CRS) -> NDArray[np.object_]:
    """Reproject as `reprojected` does, but do not test small polygons for bent edges."""
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    metres = unit * (_EARTH_M if crs.is_geographic else 1.0)
    left, bottom, right, top = shapely.bounds(geometry).reshape(-1, 4).T
    small = np.maximum(right - left, top - bottom) * metres < _STRAIGHT_M
    on_map = np.empty(len(geometry), np.object_)
    on_map[~small] = reprojected(geometry[~small], crs, web_mercator(), _BEND_M)
    if small.any():
        way = transformer(crs, web_mercator())
        on_map[small] = shapely.transform(
            geometry[small], lambda xy: np.stack(way.transform(*xy.T), axis=1)
        )
    return on_map


def _mercator_bounds(grid: GeoGrid) -> Bounds | None:
    try:
        bounds = outline_bounds(grid, web_mercator())
    except GeoreferenceError:
        return None
    if bounds is None:
        return None
    left, bottom, right, top = bounds
    half = WORLD_M / 2
    fits = max(abs(top), abs(bottom)) <= half and 0 < right - left <= half and bottom < top
    return bounds if fits else None
