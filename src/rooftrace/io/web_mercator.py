"""Web Mercator: tiles, their bounds, quadkeys and the Z-order (Morton) curve.

Tiles are numbered as OpenStreetMap does, row 0 in the north:
https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames. A quadkey names a tile by one digit for
each zoom level, and is the prefix of the quadkeys inside it:
https://learn.microsoft.com/en-us/bingmaps/articles/bing-maps-tile-system
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from math import asinh, atan, degrees, pi, radians, sinh, tan
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.types import Bounds, Floats, GeoGrid, Ints

WORLD_M = 2 * 20037508.342789244
"""Side of the Web Mercator square, in its metres."""

MAX_ZOOM = 30
"""Deepest zoom level of tiles and quadkeys."""

_MAX_LAT = 85.05112877980659
"""Latitude at which Web Mercator ends; places beyond it count as on its edge."""

_OAM = re.compile(r"OAM-(\d+)-(\d+)-(\d+)")
_NUMBER = re.compile(r"\d+")
_QUADKEY = re.compile(r"a?([0-3]{15,24})")
"""Quadkey at a zoom that shows buildings; Bing puts an `a` before those of its imagery."""


@cache
def web_mercator() -> CRS:
    """Return the coordinate system of all tiles, EPSG:3857."""
    return CRS.from_epsg(3857)


def unit_position(lon: float, lat: float) -> tuple[float, float]:
    """Return (x, y) of a place as shares of the world's side, x to the east and y to the south."""
    lat = min(max(lat, -89.9), 89.9)
    return lon / 360 + 0.5, 0.5 - asinh(tan(radians(lat))) / (2 * pi)


def latitude_of(y_m: float) -> float:
    """Return the latitude in degrees of a northing in EPSG:3857."""
    return degrees(atan(sinh(y_m * pi / (WORLD_M / 2))))


def to_degrees(xy: Floats) -> Floats:
    """Return (n, 2) longitudes and latitudes in degrees of places in EPSG:3857."""
    turn = WORLD_M / 360
    lat = np.degrees(np.arctan(np.sinh(np.radians(xy[:, 1] / turn))))
    return np.stack([xy[:, 0] / turn, lat], axis=1)


def to_metres(lonlat: Floats) -> Floats:
    """Return (n, 2) places in EPSG:3857 of longitudes and latitudes in degrees."""
    turn = WORLD_M / 360
    y = np.degrees(np.arcsinh(np.tan(np.radians(lonlat[:, 1])))) * turn
    return np.stack([lonlat[:, 0] * turn, y], axis=1)


def morton_codes(lon: Floats, lat: Floats, zoom: int) -> Ints:
    """Return the tiles in which places lie, numbered along the Z-order curve.

    Args:
        lon: (n,) longitude in degrees on WGS 84; values beyond 180 count from the other side.
        lat: (n,) latitude in degrees on WGS 84.
        zoom: Zoom level, up to `MAX_ZOOM`; 0 is the whole Earth, each further level halves a side.

    Returns:
        (n,) quadkeys as numbers in base 4.
    """
    x = (lon + 180) % 360 / 360
    sine = np.sin(np.radians(np.clip(lat, -_MAX_LAT, _MAX_LAT)))
    y = 0.5 - np.log((1 + sine) / (1 - sine)) / (4 * np.pi)
    count = 1 << zoom
    column, row = (np.clip((one * count).astype(np.int64), 0, count - 1) for one in (x, y))
    return interleave_bits(column, row, zoom)


def interleave_bits(x: Ints, y: Ints, bits: int) -> Ints:
    """Return the (n,) Morton codes (G. M. Morton 1966) of the lowest `bits` bits of x and y.

    Bits of x take the even places, those of y the odd ones; near places have near numbers.
    """
    code = np.zeros(len(x), np.int64)
    for bit in range(bits):
        code |= (x >> bit & 1) << 2 * bit | (y >> bit & 1) << 2 * bit + 1
    return code


def quadkeys(codes: Ints, zoom: int) -> NDArray[np.str_]:
    """Return the (n,) quadkeys of tiles that `morton_codes` numbered; "" at zoom 0."""
    digits = codes[:, None] >> 2 * np.arange(zoom - 1, -1, -1) & 3
    if not zoom:
        return np.full(len(codes), "", dtype="<U1")
    characters = (digits + ord("0")).astype(np.uint32)
    return np.ascontiguousarray(characters).view(f"<U{zoom}")[:, 0]


@dataclass(frozen=True, slots=True, order=True)
class TileName:
    """Zoom, row and column of a tile; row 0 is the northernmost. As text `zoom/col/row`."""

    zoom: int
    row: int
    col: int

    def __str__(self) -> str:
        return f"{self.zoom}/{self.col}/{self.row}"

    @classmethod
    def parse(cls, path: Path, *, folders: bool = True) -> TileName | None:
        """Return the tile that a file is named after, or None.

        Args:
            path: File named `OAM-x-y-z.ext` or by its quadkey, or `z/x/y.ext` if `folders` is
                True. A number that the zoom does not have (column 9 at zoom 3) names no tile.
            folders: Whether the names of folders count.
        """
        if match := _OAM.fullmatch(path.stem):
            col, row, zoom = map(int, match.groups())
        elif match := _QUADKEY.fullmatch(path.stem):
            zoom = len(match[1])
            col, row = (
                int(match[1].translate(str.maketrans("0123", bits)), 2) for bits in ("0101", "0011")
            )
        elif folders and len(path.parts) >= 3:
            parts = (*path.parts[-3:-1], path.stem)
            if not all(_NUMBER.fullmatch(part) for part in parts):
                return None
            zoom, col, row = map(int, parts)
        else:
            return None
        tile = cls(zoom, row, col)
        return tile if tile.exists else None

    @property
    def quadkey(self) -> str:
        """The quadkey of the tile; "" for the whole Earth."""
        return "".join(
            str((self.col >> bit & 1) | (self.row >> bit & 1) << 1)
            for bit in range(self.zoom - 1, -1, -1)
        )

    @property
    def exists(self) -> bool:
        """True if the zoom level, up to `MAX_ZOOM`, has this row and column."""
        side = 1 << self.zoom if 0 <= self.zoom <= MAX_ZOOM else 0
        return 0 <= self.row < side and 0 <= self.col < side

    @property
    def bounds_xy(self) -> Bounds:
        """Bounds (left, bottom, right, top) in EPSG:3857."""
        side = WORLD_M / (1 << self.zoom)
        left, top = self.col * side - WORLD_M / 2, WORLD_M / 2 - self.row * side
        return left, top - side, left + side, top

    def grid(self, shape: tuple[int, int]) -> GeoGrid:
        """Return the grid in EPSG:3857 of an image of `shape` that covers this tile."""
        left, bottom, right, top = self.bounds_xy
        transform = Affine(
            (right - left) / shape[1], 0, left, 0, -(top - bottom) / shape[0], top
        )  # fmt: skip
        return GeoGrid(shape, transform, web_mercator())

    def placed(self, grid: GeoGrid) -> GeoGrid:
        """Return the grid of an image of this tile; a georeference of its own takes precedence."""
        return grid if grid.crs is not None else self.grid(grid.shape)

    def flipped(self) -> TileName:
        """Return the tile of this name if rows are counted from the south, as TMS does."""
        return TileName(self.zoom, (1 << self.zoom) - 1 - self.row, self.col)

    def parent(self, zoom: int) -> TileName:
        """Return the tile of a lower zoom that contains this one."""
        steps = self.zoom - zoom
        return TileName(zoom, self.row >> steps, self.col >> steps)
