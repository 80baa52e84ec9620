"""Quadkeys: squares of Web Mercator by names, each the prefix of those inside of it.

https://learn.microsoft.com/en-us/bingmaps/articles/bing-maps-tile-system
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_LEVEL", "bounds_of", "morton", "quadkeys"]

MOST_LEVEL = 30
_MOST_LAT = 85.05112877980659
"""Where Web Mercator ends; what lies beyond counts as on its edge."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def morton(lon: Floats, lat: Floats, level: int) -> Ints:
    """The squares that places lie in, numbered along the Z-order curve.

    Args:
        lon, lat: (n,) degrees on WGS 84; longitudes beyond 180 count from the other side.
        level: 0 for the whole Earth, each further one halves the sides; up to `MOST_LEVEL`.

    Returns:
        (n,) the quadkey as a number in base 4.
    """
    x = (lon + 180) % 360 / 360
    sine = np.sin(np.radians(np.clip(lat, -_MOST_LAT, _MOST_LAT)))
    y = 0.5 - np.log((1 + sine) / (1 - sine)) / (4 * np.pi)
    count = 1 << level
    column, row = (np.clip((one * count).astype(np.int64), 0, count - 1) for one in (x, y))
    number = np.zeros(len(column), np.int64)
    for bit in range(level):
        number |= (column >> bit & 1) << 2 * bit | (row >> bit & 1) << 2 * bit + 1
    return number


def quadkeys(numbers: Ints, level: int) -> NDArray[np.str_]:
    """(n,) the names of squares that `morton` numbered; "" at level 0."""
    digits = numbers[:, None] >> 2 * np.arange(level - 1, -1, -1) & 3
    if not level:
        return np.full(len(numbers), "", dtype="<U1")
    characters = (digits + ord("0")).astype(np.uint32)
    return np.ascontiguousarray(characters).view(f"<U{level}")[:, 0]


def bounds_of(quadkey: str) -> tuple[float, float, float, float]:
    """(west, south, east, north) of a square, in degrees."""
    count = 1 << len(quadkey)
    column = row = 0
    for digit in quadkey:
        column = column << 1 | int(digit) & 1
        row = row << 1 | int(digit) >> 1

    def lat(edge: int) -> float:
        return float(np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * edge / count)))))

    west, east = (edge / count * 360 - 180 for edge in (column, column + 1))
    return west, lat(row + 1), east, lat(row)
