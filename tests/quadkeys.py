"""Tiles of quadkeys, against which the quadkeys that the program writes are checked."""

from __future__ import annotations

from rooftrace.io.web_mercator import TileName, latitude_of


def tile_of(quadkey: str) -> TileName:
    """Return the tile of a quadkey; "" is the whole Earth."""
    cols, rows = ("".join(str(int(digit) >> bit & 1) for digit in quadkey) for bit in (0, 1))
    return TileName(len(quadkey), int(f"0{rows}", 2), int(f"0{cols}", 2))


def bounds_lonlat(quadkey: str) -> tuple[float, float, float, float]:
    """Return the bounds (west, south, east, north) of the tile of a quadkey in degrees."""
    tile = tile_of(quadkey)
    west, east = (edge / (1 << tile.zoom) * 360 - 180 for edge in (tile.col, tile.col + 1))
    _, bottom, _, top = tile.bounds_xy
    return west, latitude_of(bottom), east, latitude_of(top)
