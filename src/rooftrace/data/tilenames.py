"""Slippy map tiles: where an image lies, told by its name.

Web Mercator tiles as OpenStreetMap numbers them:
https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import ceil, floor, log2
from pathlib import Path

from affine import Affine
from pyproj import CRS

from rooftrace.core.types import GeoGrid

__all__ = ["WORLD_M", "PlaceTile", "TileName", "tiles_over", "web_mercator"]

WORLD_M = 2 * 20037508.342789244
"""Side of the Web Mercator square, in its metres."""

_MOST_ZOOM = 30
_OAM = re.compile(r"OAM-(\d+)-(\d+)-(\d+)")
_NUMBER = re.compile(r"\d+")


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
        """From `OAM-x-y-z.ext`, or with `folders` from `z/x/y.ext`; None where a name is neither.

        A number that the zoom does not have (column 9 at zoom 3) is no tile either.
        """
        if match := _OAM.fullmatch(path.stem):
            col, row, zoom = map(int, match.groups())
        elif folders and len(path.parts) >= 3:
            parts = (*path.parts[-3:-1], path.stem)
            if not all(_NUMBER.fullmatch(part) for part in parts):
                return None
            zoom, col, row = map(int, parts)
        else:
            return None
        side = 1 << zoom if zoom <= _MOST_ZOOM else 0
        return cls(zoom, row, col) if row < side and col < side else None

    @classmethod
    def of(cls, grid: GeoGrid) -> TileName | None:
        """The tile that an image shows exactly, whatever its size in pixels; None if it shows none.

        A thousandth of the tile is taken for rounding.
        """
        t = grid.transform
        if grid.crs is None or not grid.crs.equals(web_mercator()) or t.b or t.d:
            return None
        width, height = t.a * grid.width, -t.e * grid.height
        if width <= 0 or height <= 0:
            return None
        zoom = round(log2(WORLD_M / width))
        side = WORLD_M / (1 << zoom) if 0 <= zoom <= _MOST_ZOOM else 0.0
        tolerance = side / 1000
        if max(abs(width - side), abs(height - side)) > tolerance or not side:
            return None
        x, y = t.c + WORLD_M / 2, WORLD_M / 2 - t.f
        tile = cls(zoom, round(y / side), round(x / side))
        if max(abs(x - tile.col * side), abs(y - tile.row * side)) > tolerance:
            return None
        return tile

    @property
    def bounds_xy(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in EPSG:3857."""
        side = WORLD_M / (1 << self.zoom)
        left, top = self.col * side - WORLD_M / 2, WORLD_M / 2 - self.row * side
        return left, top - side, left + side, top

    def grid(self, shape: tuple[int, int]) -> GeoGrid:
        """The grid in EPSG:3857 of an image of `shape` that shows this tile."""
        left, bottom, right, top = self.bounds_xy
        transform = Affine(
            (right - left) / shape[1], 0, left, 0, -(top - bottom) / shape[0], top
        )  # fmt: skip
        return GeoGrid(shape, transform, web_mercator())

    def flipped(self) -> TileName:
        """The tile of this name where rows are counted from the south, as TMS does."""
        return TileName(self.zoom, (1 << self.zoom) - 1 - self.row, self.col)

    def parent(self, zoom: int) -> TileName:
        """The tile of a lower zoom that holds this one."""
        steps = self.zoom - zoom
        if steps < 0:
            raise ValueError(f"zoom {zoom} is above {self.zoom}")
        return TileName(zoom, self.row >> steps, self.col >> steps)


@dataclass(frozen=True)
class PlaceTile:
    """For `PlacedSource`: an image that says nothing of its place lies where its name says."""

    tile: TileName

    def __call__(self, grid: GeoGrid) -> GeoGrid:
        return grid if grid.crs is not None else self.tile.grid(grid.shape)


def tiles_over(bounds_xy: tuple[float, float, float, float], zoom: int) -> Iterator[TileName]:
    """The tiles that share ground with (left, bottom, right, top) in EPSG:3857, row by row."""
    side = WORLD_M / (1 << zoom)
    left, bottom, right, top = bounds_xy
    last = (1 << zoom) - 1
    # What touches an edge by less than a millionth of a tile does so by rounding.
    low = [(left + WORLD_M / 2) / side + 1e-6, (WORLD_M / 2 - top) / side + 1e-6]
    high = [(right + WORLD_M / 2) / side - 1e-6, (WORLD_M / 2 - bottom) / side - 1e-6]
    first_col, first_row = (max(0, floor(at)) for at in low)
    stop_col, stop_row = (min(last + 1, ceil(at)) for at in high)
    for row in range(first_row, stop_row):
        for col in range(first_col, stop_col):
            yield TileName(zoom, row, col)


@cache
def web_mercator() -> CRS:
    """The coordinate system of all tiles, EPSG:3857."""
    return CRS.from_epsg(3857)
