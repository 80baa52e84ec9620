"""Polygons of a layer as tiles of the world's map, for PMTiles.

The tiles hold every polygon at the highest zoom. GDAL rounds vertices there, so the zoom follows
the pixels and thin outlines are widened.
"""

from __future__ import annotations

from math import ceil, cos, floor, log2, radians
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ExportError
from rooftrace.io.reproject import CRS84, split_at_180, transform_points
from rooftrace.io.web_mercator import WORLD_M, latitude_of, web_mercator

_EXTENT = 4096
"""Units along the side of a tile."""

_DEEPEST = 22
"""Deepest zoom that GDAL writes; a unit is 2.3 mm there."""

_USUAL_GSD_M = 0.15
"""Metres of a unit where the pixels are not known; the highest zoom is 16 at the equator."""

_MOST_IN_TILE = 40_000
"""About a megabyte of polygons."""


def on_web_mercator(
    path: Path, geometry: NDArray[np.object_], crs: CRS | None
) -> NDArray[np.object_]:
    """Return (n,) polygons in EPSG:3857; those across longitude 180 have pieces on both sides.

    Args:
        path: File named in messages.
        geometry: (n,) polygons in `crs`.
        crs: Coordinate system; None for pixels.

    Raises:
        ExportError: There are no polygons, or they have no place on the map.
        GeoreferenceError: See `transform_points`.
    """
    others = "Write a GeoPackage (.gpkg) or GeoJSON (.geojson)"
    if crs is None:
        raise ExportError(
            f"{path.name}: PMTiles are tiles of the world's map, but the image has no "
            "georeference.",
            remedy=f"{others}, or give the image a coordinate system and a position "
            "(gdal_edit -a_srs -a_ullr).",
        )
    if not len(geometry):
        raise ExportError(
            f"{path.name}: there are no polygons, and PMTiles contain at least one tile.",
            remedy=f"{others}, which may be empty.",
        )

    def moved(polygons: NDArray[np.object_], source: CRS, target: CRS) -> NDArray[np.object_]:
        made = shapely.transform(polygons, lambda xy: transform_points(xy, source, target))
        return np.asarray(made, np.object_)

    placed = moved(geometry, crs, web_mercator())
    left, _, right, _ = shapely.bounds(placed).T
    with np.errstate(invalid="ignore"):
        across = np.maximum.reduce([right - left, right, -left]) > WORLD_M / 2
    if across.any():
        degrees = split_at_180(moved(geometry[across], crs, CRS84))
        placed[across] = moved(degrees, CRS84, web_mercator())
    # Written so that NaN counts as outside, too.
    if not (np.abs(shapely.bounds(placed)) <= WORLD_M / 2).all():
        raise ExportError(
            f"{path.name}: polygons lie outside of Web Mercator, which ends at 85.05° north and "
            "south.",
            remedy=f"{others}.",
        )
    return placed


def tile_zooms(geometry: NDArray[np.object_], gsd_m: float | None) -> tuple[int, int]:
    """Return the lowest and the highest zoom of the tiles.

    At the highest zoom a unit is at most a pixel. At the lowest all polygons together are at most a
    quarter of a tile wide; it is deeper if a tile would hold more than 40,000 of them.

    Args:
        geometry: (n,) polygons in EPSG:3857, at least one.
        gsd_m: Metres per pixel; None if they are not known.
    """
    left, bottom, right, top = shapely.total_bounds(geometry)
    stretch = cos(radians(latitude_of(min(bottom, top, key=abs))))
    units = stretch * WORLD_M / _EXTENT / (gsd_m or _USUAL_GSD_M)
    highest = min(max(ceil(log2(units)), 0), _DEEPEST)
    side = max(right - left, top - bottom) / WORLD_M
    lowest = min(max(floor(-log2(max(4 * side, 1e-9))), 0), highest)
    bounds = shapely.bounds(geometry)
    centres = (bounds[:, :2] + bounds[:, 2:]) / 2 / WORLD_M + 0.5
    while lowest < highest:
        col, row = np.floor(centres * (1 << lowest)).astype(np.int64).T
        if np.unique(col << 32 | row, return_counts=True)[1].max() <= _MOST_IN_TILE:
            break
        lowest += 1
    return lowest, highest


def widened(geometry: NDArray[np.object_], zoom: int) -> NDArray[np.object_]:
    """Return (n,) polygons that keep an area when their vertices are rounded to a tile's units.

    Polygons narrower than about two units get a margin of one unit; the others do not change.

    Args:
        geometry: (n,) polygons in EPSG:3857.
        zoom: Zoom of the tiles.
    """
    unit = WORLD_M / (1 << zoom) / _EXTENT
    thin = 2 * shapely.area(geometry) < unit * shapely.length(geometry)
    wide = geometry.copy()
    wide[thin] = shapely.buffer(geometry[thin], unit, join_style="mitre")
    return wide
