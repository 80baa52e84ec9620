"""Buildings as PMTiles, vector tiles of all zooms in one file, for maps.

At the highest zoom every polygon is there. GDAL rounds vertices, so that the zoom follows the
pixels, and thin outlines are widened. Where a tile would be too heavy, or buildings smaller than a
pixel of the screen, a sample stands for all.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import ceil, cos, floor, log2, radians
from pathlib import Path

import numpy as np
import shapely
from pmtiles.reader import MmapSource, Reader, all_tiles
from pmtiles.tile import zxy_to_tileid
from pmtiles.writer import write as write_archive

from rooftrace.core.errors import ExportError
from rooftrace.core.types import Floats, Ints, Polygons
from rooftrace.io.vector_read import join_columns
from rooftrace.io.vector_writers import LayerChunk, LayerSettings, in_degrees, write_gdal
from rooftrace.io.web_mercator import (
    WORLD_M,
    interleave_bits,
    latitude_of,
    to_metres,
    web_mercator,
)

_EXTENT = 4096
"""Units along the side of a tile."""

_DEEPEST = 22
"""Deepest zoom that GDAL writes; a unit is 2.3 mm there."""

_USUAL_GSD_M = 0.15
"""Metres of a unit where the pixels are not known; the highest zoom is 16 at the equator."""

_MOST_IN_TILE = 12_000
"""Number of polygons of a tile of 500 kB, beyond which maps become slow."""

_MOST_SAMPLED = 6_000
"""Number of polygons in the fullest tile of a sample."""

_PIXEL_UNITS = 8
"""Units of a pixel where a map shows a tile on 512 pixels, as MapLibre does."""

_CELL_SQUARES = 16
"""Least side of the cells, each with a building in a sample, in sides of the squares."""


def _on_web_mercator(path: Path, degrees: Polygons) -> Polygons:
    """Return (n,) polygons in EPSG:3857 of those in degrees."""
    others = "Write a GeoPackage (.gpkg) or GeoJSON (.geojson)"
    if not len(degrees):
        raise ExportError(
            f"{path.name}: there are no polygons, and PMTiles contain at least one tile.",
            remedy=f"{others}, which may be empty.",
        )
    placed = np.asarray(shapely.transform(degrees, to_metres), np.object_)
    # Written so that NaN counts as outside, too.
    if not (np.abs(shapely.bounds(placed)) <= WORLD_M / 2 + 1).all():
        raise ExportError(
            f"{path.name}: polygons lie outside of Web Mercator, which ends at 85.05° north and "
            "south.",
            remedy=f"{others}.",
        )
    return placed


def tile_zooms(geometry: Polygons, gsd_m: float | None) -> tuple[int, int, int]:
    """Return the lowest zoom, the lowest one without a sample, and the highest.

    At the highest zoom a unit is at most a pixel. At the lowest all polygons together are at most a
    quarter of a tile wide. A sample ends where no tile has more than 12,000 polygons, and most are
    more than half a pixel of the screen wide.

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
    wide = np.sqrt(np.median(shapely.area(geometry))) / WORLD_M * _EXTENT / _PIXEL_UNITS
    whole = min(max(ceil(-1 - log2(max(wide, 1e-9))), lowest), highest)
    centres = _centres(geometry)
    while whole < highest and np.bincount(_tiles(centres, whole)).max() > _MOST_IN_TILE:
        whole += 1
    return lowest, whole, highest


def _centres(geometry: Polygons) -> Floats:
    """Return (n, 2) centres of the bounds in shares of the map's side, y up."""
    bounds = shapely.bounds(geometry)
    return np.asarray((bounds[:, :2] + bounds[:, 2:]) / 2 / WORLD_M + 0.5)


def _tiles(centres: Floats, zoom: int) -> Ints:
    """Return (n,) which of the tiles that have centres each is in, from 0."""
    col, row = np.floor(centres * (1 << zoom)).astype(np.int64).T
    return np.unique(col << 32 | row, return_inverse=True)[1]


def sample(area: Floats, centres: Floats, zoom: int) -> tuple[Ints, Ints, Floats]:
    """Return which polygons stand for all at a zoom.

    They cover as much ground as all, wherever one looks: large ones are there as they are, and of
    smaller ones some, as squares of one size, each as probable as its area is large. Systematic
    sampling along a Z-order curve (W. G. Madow 1949) spreads them. Where it chooses none, as of a
    village far from a town, the largest one has a square, too.

    Args:
        area, centres: (n,) areas and (n, 2) centres, where the side of the map is 1.

    Returns:
        Indices of the large ones, those of the smaller ones in ascending order, and (smaller, 4)
        bounds of their squares, none of which reaches past the edge of the map.
    """
    fullest = np.bincount(_tiles(centres, zoom), area).max()
    square = max(fullest / _MOST_SAMPLED, (_PIXEL_UNITS / (_EXTENT << zoom)) ** 2)
    large, small = np.flatnonzero(area >= square), np.flatnonzero(area < square)
    x, y = (centres[small] * 2**31).astype(np.int64).T
    small = small[np.argsort(interleave_bits(x, y, 31), kind="stable")]
    steps = np.ceil(np.cumsum(area[small]) / square)
    is_shown = area >= square
    is_shown[small[np.diff(steps, prepend=0) > 0]] = True
    side = float(np.sqrt(square))
    cell = _tiles(centres, max(floor(-log2(_CELL_SQUARES * side)), 0))
    left = np.flatnonzero((np.bincount(cell, is_shown) == 0)[cell])
    left = left[np.lexsort((-area[left], cell[left]))]
    is_shown[left[np.diff(cell[left], prepend=-1) != 0]] = True
    is_shown[large] = False
    small = np.flatnonzero(is_shown)
    middle = np.clip(centres[small], side / 2, 1 - side / 2)
    return large, small, np.concatenate([middle - side / 2, middle + side / 2], axis=1)


_TILE_DIGITS = {"area_m2": 1, "perimeter_m": 1, "orientation_deg": 1}
"""Decimal places of attributes in tiles, of which each zoom has a copy; 3 of others. A tile holds
equal values once: three of each make a tile a third larger."""

_EXACT_DIGITS = 9
"""Decimal places of degrees, a tenth of a millimetre, before they become units of a tile."""

_UNLIMITED = "1000000000"
"""Without it GDAL drops polygons, without a word, from tiles of more than 500,000 bytes."""


def write_pmtiles(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    """Write all chunks at once, because a tile holds polygons of any of them."""
    chunks = list(in_degrees(path, replace(layer, digits=_EXACT_DIGITS), parts))
    geometry = _on_web_mercator(path, np.concatenate([part.geometry for part in chunks]))
    columns = {
        name: join_columns([
            part.columns[name] if part.columns[name].dtype.kind != "f"
            else part.columns[name].astype(np.float64).round(_TILE_DIGITS.get(name, 3))
            for part in chunks
        ])
        for name in chunks[0].columns
    }  # fmt: skip
    lowest, whole, highest = tile_zooms(geometry, layer.gsd_m)
    sources = sorted({str(one) for one in columns.get("source", ()) if one is not None})
    attribution = ", ".join(sources)

    def write(file: Path, zooms: tuple[int, int], part: LayerChunk) -> Path:
        write_gdal(
            file, replace(layer, crs=web_mercator(), multi=True), [part], "PMTiles", at_once=True,
            MINZOOM=str(zooms[0]), MAXZOOM=str(zooms[1]), DESCRIPTION=attribution,
            MAX_SIZE=_UNLIMITED, MAX_FEATURES=_UNLIMITED,
        )  # fmt: skip
        return file

    samples, centres, area = [], _centres(geometry), shapely.area(geometry) / WORLD_M**2
    for zoom in range(lowest, whole):
        large, small, bounds = sample(area, centres, zoom)
        squares = np.asarray(shapely.box(*((bounds - 0.5) * WORLD_M).T), np.object_)
        rows = np.concatenate([large, small])
        part = LayerChunk(
            np.concatenate([geometry[large], squares]),
            {name: values[rows] for name, values in columns.items()},
        )
        # GDAL calls the layer by its file.
        folder = path.with_name(f"zoom {zoom}")
        folder.mkdir()
        samples.append(write(folder / path.name, (zoom, zoom), part))
    # Polygons narrower than about two units would lose their area when vertices are rounded.
    unit = WORLD_M / (1 << highest) / _EXTENT
    thin = 2 * shapely.area(geometry) < unit * shapely.length(geometry)
    geometry[thin] = shapely.buffer(geometry[thin], unit, join_style="mitre")
    write(path, (whole, highest), LayerChunk(geometry, columns))
    _join_zooms(path, samples, attribution)
    for one in samples:
        shutil.rmtree(one.parent)


def _join_zooms(path: Path, lower: Sequence[Path], attribution: str) -> None:
    """Put the tiles of lower zooms, in ascending order, before those of an archive, and the
    attribution, for which GDAL (3.12) has no option, into its metadata.
    """
    joined = path.with_suffix(".joined")
    zooms = set()
    with write_archive(joined) as out:
        for archive in (*lower, path):
            with archive.open("rb") as file:
                source = MmapSource(file)
                for place, tile in all_tiles(source):
                    zooms.add(place[0])
                    out.write_tile(zxy_to_tileid(*place), tile)
        header, metadata = Reader(source).header(), Reader(source).metadata()
        header["center_zoom"] = lowest = min(zooms)
        metadata["minzoom"] = str(lowest)
        metadata["center"] = f"{metadata['center'].rpartition(',')[0]},{lowest}"
        for layer in metadata["vector_layers"]:
            layer["minzoom"] = lowest
        if attribution:
            metadata["attribution"] = attribution
        out.finalize(header, metadata)
    joined.replace(path)
