"""Vector formats: `WRITERS` holds the function that writes a layer to each of them, chunk by chunk.

`ShapefileLimits` checks what a Shapefile cannot hold before it is written (ESRI Shapefile Technical
Description, 1998, and the dBASE tables beside it). PMTiles hold every polygon at the highest zoom;
GDAL rounds vertices there, so the zoom follows the pixels and thin outlines are widened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from io import BytesIO
from math import ceil, cos, floor, log2, radians
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ExportError, MissingExtraError
from rooftrace.io.geopackage import write_geopackage
from rooftrace.io.make_valid import rounded
from rooftrace.io.partitions import write_parquet
from rooftrace.io.reproject import CRS84, split_at_180, transform_points
from rooftrace.io.vector_layer import (
    CHANGE_DATE,
    LayerChunk,
    LayerSettings,
    write_chunk,
    write_wkb,
)
from rooftrace.io.web_mercator import WORLD_M, latitude_of, web_mercator

SHORT_NAMES = {
    "imagery_date": "img_date",
    "perimeter_m": "perim_m",
    "orientation_deg": "orient",
    "rectangularity": "rectang",
}
"""Short names of columns whose names exceed the ten characters that a Shapefile allows."""

_MAX_NAME = 10
_MAX_TEXT_BYTES = 254
_MAX_FILE_BYTES = 2**31 - 1
_NUMBER_BYTES = 24
"""Maximum size of a number in the table of a Shapefile."""

_REMEDY = "Write a GeoPackage (.gpkg) or FlatGeobuf (.fgb)."


def short_names(columns: Mapping[str, object]) -> dict[str, str]:
    """Return the names in a Shapefile of those columns that get another name there."""
    return {
        name: SHORT_NAMES.get(name, name[:_MAX_NAME]) for name in columns if len(name) > _MAX_NAME
    }


class ShapefileLimits:
    """Check that the chunks of a layer fit into a Shapefile.

    Args:
        path: File named in messages.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shape_bytes = 100
        self._table_bytes = 1000

    def check(
        self, geometry: NDArray[np.object_], columns: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Return the columns of the next chunk under their names in the Shapefile.

        Args:
            geometry: (n,) polygons of the next chunk.
            columns: (n,) values of each column.

        Raises:
            ExportError: a file would exceed 2 GB, a text is longer than 254 bytes, or two columns
                would have the same name.
        """
        names = short_names(columns)
        renamed = {names.get(name, name): values for name, values in columns.items()}
        if len(renamed) < len(columns):
            raise ExportError(
                f"{self._path.name}: a Shapefile limits column names to {_MAX_NAME} characters; "
                f"shortened, two of {', '.join(columns)} would be the same.",
                remedy=_REMEDY,
            )
        for name, values in columns.items():
            if values.dtype.kind in "OU":
                self._check_text(name, values)
        points = int(shapely.get_num_coordinates(geometry).sum())
        rings = len(shapely.get_rings(geometry))
        self._shape_bytes += 52 * len(geometry) + 4 * rings + 16 * points
        width = sum(
            _MAX_TEXT_BYTES if values.dtype.kind in "OU" else _NUMBER_BYTES
            for values in columns.values()
        )
        self._table_bytes += (width + 1) * len(geometry)
        for kind, size in ((".shp", self._shape_bytes), (".dbf", self._table_bytes)):
            if size > _MAX_FILE_BYTES:
                raise ExportError(
                    f"{self._path.with_suffix(kind).name} would exceed the 2 GB limit of a "
                    "Shapefile.",
                    remedy=_REMEDY,
                )
        return renamed

    def _check_text(self, name: str, values: NDArray[Any]) -> None:
        for text in set(values.tolist()):
            if text is not None and len(str(text).encode()) > _MAX_TEXT_BYTES:
                raise ExportError(
                    f"{self._path.name}: a Shapefile limits texts to {_MAX_TEXT_BYTES} bytes; the "
                    f"column {name!r} holds {text[:30]!r}… of {len(str(text).encode())} bytes.",
                    remedy=_REMEDY,
                )


# RFC 7946 has no member for this: a file without longitude and latitude states it in a text.
IN_PIXELS = "Coordinates are pixels of the image (x right, y down), not longitude and latitude."
"""Member `description` of a GeoJSON in pixels, by which it is also read."""

_PIXEL_DIGITS = 10
"""Decimal places of pixels; regularized outlines have corners on multiples of 1/1024."""


Writer = Callable[[Path, LayerSettings, Iterable[Any]], None]
"""Function that writes chunks: `LayerChunk`, for a GeoPackage also `EncodedChunk`."""


def _geojson(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    """Write a FeatureCollection from the lines that GDAL writes by the rules of RFC 7946."""
    digits = layer.digits if layer.crs is not None else _PIXEL_DIGITS
    head = {"type": "FeatureCollection", "name": layer.name or path.stem}
    if layer.crs is None:
        head["description"] = IN_PIXELS
    with path.open("wb") as file:
        members = (f"{json.dumps(key)}: {json.dumps(text)},\n" for key, text in head.items())
        file.write(f'{{\n{"".join(members)}"features": ['.encode())
        empty = True
        for part in parts:
            if len(part.geometry):
                part = replace(part, geometry=rounded(part.geometry, layer.crs, digits))
                lines = BytesIO()
                write_chunk(lines, layer, part, "GeoJSONSeq", COORDINATE_PRECISION=str(digits))
                file.write(b"\n" if empty else b",\n")
                file.write(lines.getvalue().rstrip(b"\n").replace(b"\n", b",\n"))
                empty = False
        file.write(b"\n]\n}\n")


def _shapefile(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    limits = ShapefileLimits(path)
    for number, part in enumerate(parts):
        columns = limits.check(part.geometry, part.columns)
        write_chunk(
            path, layer, LayerChunk(part.geometry, columns), "ESRI Shapefile", append=number > 0,
            ENCODING="UTF-8", DBF_DATE_LAST_UPDATE=CHANGE_DATE[:10],
        )  # fmt: skip


def _joined(parts: Iterable[LayerChunk]) -> tuple[NDArray[np.object_], dict[str, NDArray[Any]]]:
    """Return the polygons of all chunks as (n,) WKB, and (n,) values of each column."""
    # WKB takes a third of the memory of shapely polygons.
    given = [(shapely.to_wkb(part.geometry), part.columns) for part in parts]
    columns = {
        name: np.ma.concatenate(  # type: ignore[no-untyped-call]
            [columns[name] for _, columns in given]
        )
        if any(isinstance(columns[name], np.ma.MaskedArray) for _, columns in given)
        else np.concatenate([columns[name] for _, columns in given])
        for name in given[0][1]
    }
    return np.concatenate([np.asarray(wkb, np.object_) for wkb, _ in given]), columns


def _flatgeobuf(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    """Write all chunks at once, because the format orders all features by location."""
    encoded, columns = _joined(parts)
    write_wkb(path, layer, encoded, columns, "FlatGeobuf")


_TILE_DIGITS = 3
"""Decimal places of attributes in tiles, of which each zoom has a copy."""

_UNLIMITED = "1000000000"
"""Without it GDAL drops polygons, without a word, from tiles of more than 500,000 bytes."""


def _pmtiles(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    """Write all chunks at once, because a tile holds polygons of any of them."""
    encoded, columns = _joined(parts)
    geometry = on_web_mercator(path, shapely.from_wkb(encoded), layer.crs)
    lowest, highest = tile_zooms(geometry, layer.gsd_m)
    geometry = widened(geometry, highest)
    rounded_off = {
        name: values.astype(np.float64).round(_TILE_DIGITS) if values.dtype.kind == "f" else values
        for name, values in columns.items()
    }
    sources = {str(one) for one in columns.get("source", ()) if one is not None}
    write_chunk(
        path, replace(layer, crs=web_mercator(), multi=True, name=path.stem),
        LayerChunk(geometry, rounded_off), "PMTiles", MINZOOM=str(lowest), MAXZOOM=str(highest),
        MAX_SIZE=_UNLIMITED, MAX_FEATURES=_UNLIMITED, DESCRIPTION=", ".join(sorted(sources)),
    )  # fmt: skip


def _parquet(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    kinds = ["MultiPolygon", "Polygon"] if layer.multi else ["Polygon"]
    try:
        write_parquet(
            path, layer.crs, ((part.geometry, part.columns) for part in parts), kinds=kinds
        )
    except ImportError as error:
        raise MissingExtraError.of("parquet", "Writing GeoParquet", "pyarrow") from error


WRITERS: dict[str, Writer] = {
    ".gpkg": write_geopackage,
    ".geojson": _geojson,
    ".fgb": _flatgeobuf,
    ".parquet": _parquet,
    ".shp": _shapefile,
    ".pmtiles": _pmtiles,
}

ONE_FILE = (".geojson", ".parquet")
"""Suffixes of the formats whose writers make no other file, not even for a while."""

VECTOR_SUFFIXES = tuple(suffix for suffix in WRITERS if suffix != ".pmtiles")
"""Suffixes of the formats from which the polygons can be read again; tiles hold pieces of them."""


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
