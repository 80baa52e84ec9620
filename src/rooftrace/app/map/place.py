"""Where a scene lies on a Web Mercator map, and the tiles of that.

Tiles are numbered as OGC's WebMercatorQuad does: (zoom, column, row) from the upper left.
https://docs.ogc.org/is/17-083r4/17-083r4.html#62
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import asinh, atan, ceil, degrees, log2, pi, radians, sinh, tan
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.app.map.sampling import transformer
from rooftrace.core.errors import GeoreferenceError
from rooftrace.core.types import GeoGrid, RasterSource
from rooftrace.io.placed import PlacedSource
from rooftrace.io.reproject import outline_bounds, reprojected

__all__ = ["HALF_M", "MERCATOR", "Bounds", "Place", "TileId", "unit_of_degrees"]

Bounds = tuple[float, float, float, float]
"""(left, bottom, right, top)."""

MERCATOR = CRS.from_epsg(3857)
HALF_M = pi * 6378137.0
"""The map reaches so far from its middle, in each direction."""

_DEEPEST = 24
_EARTH_M = 6378137.0
_BEND_M = 0.05
"""How far a reprojected edge may lie off."""

_STRAIGHT_M = 500.0
"""A line as long as this is bent by its square over eight times the Earth's radius: 5 mm."""


@dataclass(frozen=True)
class TileId:
    """One tile; there are 2^zoom by 2^zoom of them."""

    zoom: int
    col: int
    row: int

    @property
    def exists(self) -> bool:
        count = 1 << self.zoom if 0 <= self.zoom <= _DEEPEST else 0
        return 0 <= self.col < count and 0 <= self.row < count

    def grid(self, size_px: int) -> GeoGrid:
        """Its pixels, in EPSG:3857."""
        side = 2 * HALF_M / (1 << self.zoom)
        px = side / size_px
        left, top = self.col * side - HALF_M, HALF_M - self.row * side
        return GeoGrid((size_px, size_px), Affine(px, 0, left, 0, -px, top), MERCATOR)


class Place:
    """A scene on the map.

    One without a coordinate system, or where Web Mercator has no room for it (near the poles, over
    the antimeridian), lies flat: its middle is where longitude and latitude are 0, and each of its
    pixels is a metre of the map.

    Args:
        grid: of the scene.
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
        """In EPSG:3857."""
        if self._bounds is not None:
            return self._bounds
        return GeoGrid(self.grid.shape, self._flat_transform).bounds_xy

    @property
    def bounds_degrees(self) -> Bounds:
        """West, south, east, north."""
        left, bottom, right, top = self.bounds_m
        turn = 180 / HALF_M
        south, north = (degrees(atan(sinh(y * pi / HALF_M))) for y in (bottom, top))
        return left * turn, south, right * turn, north

    @property
    def pixel_m(self) -> float:
        """How large a pixel is on the map, in its metres."""
        left, bottom, right, top = self.bounds_m
        return min((right - left) / self.grid.width, (top - bottom) / self.grid.height)

    def deepest_zoom(self, tile_px: int) -> int:
        """The zoom from which on a pixel of a tile is no larger than one of the scene."""
        zoom = ceil(log2(2 * HALF_M / tile_px / self.pixel_m) - 0.1)
        return min(max(zoom, 0), _DEEPEST)

    def source(self, source: RasterSource) -> RasterSource:
        """Pixels that lie on the scene, or coarser ones of it, as they lie on the map."""
        if not self.flat:
            return source
        rows, cols = self.grid.shape

        def placed(grid: GeoGrid) -> GeoGrid:
            scale = Affine.scale(cols / grid.width, rows / grid.height)
            return GeoGrid(grid.shape, self._flat_transform @ scale, MERCATOR)

        return PlacedSource(source, placed)

    def metric_source(self, source: RasterSource, gsd_m: float) -> RasterSource:
        """Pixels on the plane of a flat scene: in metres, from its upper left corner."""

        def placed(grid: GeoGrid) -> GeoGrid:
            to_pixel = Affine.scale(1 / gsd_m, -1 / gsd_m) @ grid.transform
            return GeoGrid(grid.shape, self._flat_transform @ to_pixel, MERCATOR)

        return PlacedSource(source, placed)

    def polygons(self, geometry: NDArray[np.object_], crs: CRS | None) -> NDArray[np.object_]:
        """Polygons in EPSG:3857; coordinates that it does not have are infinite.

        Args:
            geometry: (n,) in `crs`, or in pixels of the scene where that has none.

        Raises:
            GeoreferenceError: there is no way to where the scene lies.
        """
        if not self.flat:
            return _on_map(geometry, crs or MERCATOR)
        to_map: Any = self._flat_transform
        if self.grid.crs is not None and crs is not None:
            geometry = reprojected(geometry, crs, self.grid.crs, self.grid.transform.a / 16)
            to_map = to_map @ ~self.grid.transform

        def moved(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            x, y = xy.T
            t = to_map
            return np.stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f], axis=1)

        return np.asarray(shapely.transform(geometry, moved), np.object_)


def _on_map(geometry: NDArray[np.object_], crs: CRS) -> NDArray[np.object_]:
    """As `reprojected`, without a look at the edges of what is so small that none can be bent."""
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    metres = unit * (_EARTH_M if crs.is_geographic else 1.0)
    left, bottom, right, top = shapely.bounds(geometry).reshape(-1, 4).T
    small = np.maximum(right - left, top - bottom) * metres < _STRAIGHT_M
    made = np.empty(len(geometry), np.object_)
    made[~small] = reprojected(geometry[~small], crs, MERCATOR, _BEND_M)
    if small.any():
        way = transformer(crs, MERCATOR)
        made[small] = shapely.transform(
            geometry[small], lambda xy: np.stack(way.transform(*xy.T), axis=1)
        )
    return made


def unit_of_degrees(lon: float, lat: float) -> tuple[float, float]:
    """Longitude and latitude as shares of the map's side, x to the right and y down."""
    lat = min(max(lat, -89.9), 89.9)
    return lon / 360 + 0.5, 0.5 - asinh(tan(radians(lat))) / (2 * pi)


def _mercator_bounds(grid: GeoGrid) -> Bounds | None:
    try:
        bounds = outline_bounds(grid, MERCATOR)
    except GeoreferenceError:
        return None
    if bounds is None:
        return None
    left, bottom, right, top = bounds
    fits = max(abs(top), abs(bottom)) <= HALF_M and 0 < right - left <= HALF_M and bottom < top
    return bounds if fits else None
