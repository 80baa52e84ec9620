"""Slippy map tiles: where an image lies, told by its name.

Web Mercator tiles as OpenStreetMap numbers them:
https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from affine import Affine
from pyproj import CRS

from rooftrace.core.types import GeoGrid

__all__ = ["WORLD_M", "PlaceTile", "TileName"]

WORLD_M = 2 * 20037508.342789244
"""Side of the Web Mercator square, in its metres."""

_MOST_ZOOM = 30
_OAM = re.compile(r"OAM-(\d+)-(\d+)-(\d+)")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, order=True)
class TileName:
    """Zoom, row and column of a tile; row 0 is the northernmost."""

    zoom: int
    row: int
    col: int

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

    def grid(self, shape: tuple[int, int]) -> GeoGrid:
        """The grid in EPSG:3857 of an image of `shape` that shows this tile."""
        side = WORLD_M / (1 << self.zoom)
        transform = Affine(
            side / shape[1], 0, self.col * side - WORLD_M / 2,
            0, -side / shape[0], WORLD_M / 2 - self.row * side,
        )  # fmt: skip
        return GeoGrid(shape, transform, _web_mercator())

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


@cache
def _web_mercator() -> CRS:
    return CRS.from_epsg(3857)
