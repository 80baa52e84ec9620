"""Polygons written to the usual vector formats, chunk by chunk.

Files do not depend on when or where they were written: the same polygons give the same bytes.
`io.vector_formats` has the writer of each format.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ExportError
from rooftrace.core.text import reason_of
from rooftrace.core.types import Footprints
from rooftrace.io.files import replacing
from rooftrace.io.geopackage import EncodedChunk, encode_chunk
from rooftrace.io.vector_formats import ONE_FILE, WRITERS, short_names
from rooftrace.io.vector_layer import LayerChunk, LayerSettings


def preload_geopandas() -> None:
    """Import geopandas in a thread, because it is the slowest import of pyogrio.

    Pyogrio itself is not imported there: it handles GDAL's messages in the importing thread.
    Commands have imported it already, without geopandas.
    """
    if "pyogrio" not in sys.modules:
        Thread(target=_import_geopandas, name="import").start()


def _import_geopandas() -> None:
    # The writer imports it again, and reports why it cannot.
    with suppress(ImportError, MemoryError):
        import_module("geopandas")


def write_footprints(path: Path, footprints: Footprints) -> tuple[str, ...]:
    """Write one chunk of polygons; see `write_footprints_chunks`.

    Args:
        path: File in an existing folder.
        footprints: Polygons; there may be none.
    """
    return write_footprints_chunks(path, [footprints])


def encode_footprints(path: Path, footprints: Footprints, first: int) -> EncodedChunk | Footprints:
    """Return a chunk as `write_footprints_chunks` writes it fastest; any process may do it.

    Args:
        path: File that the chunk is for.
        footprints: Polygons of the chunk.
        first: Number of polygons before the chunk.

    Raises:
        ValueError: A geometry is not a polygon.
    """
    if path.suffix != ".gpkg":
        return footprints
    layer = LayerSettings(footprints.crs)
    return encode_chunk(path, layer, _layer_chunk(path, footprints, first))


def _layer_chunk(path: Path, footprints: Footprints, first: int) -> LayerChunk:
    if (shapely.get_type_id(footprints.geometry) != shapely.GeometryType.POLYGON).any():
        raise ValueError(f"{path}: a footprint is not a polygon")
    columns = footprints.columns()
    return LayerChunk(footprints.geometry, {**columns, "id": columns["id"] + first})


def write_footprints_chunks(
    path: Path, chunks: Iterable[Footprints | EncodedChunk], *, gsd_m: float | None = None
) -> tuple[str, ...]:
    """Write polygons with `Footprints.columns`; `id` counts from chunk to chunk.

    Memory holds one chunk, plus 16 bytes for each polygon of a GeoPackage, or the whole layer of a
    FlatGeobuf or PMTiles. See `write_polygons` for the formats.

    Args:
        path: File in an existing folder.
        chunks: One or more chunks of one CRS and with the same columns; a chunk may be empty. Those
            of a GeoPackage may be results of `encode_footprints`.
        gsd_m: See `LayerSettings`.

    Returns:
        Notes about the file for the user.

    Raises:
        ExportError: see `write_polygons`.
        MissingExtraError: see `write_polygons`.
        ValueError: there is no chunk, or a geometry is not a polygon.
    """
    # It runs while the first chunk is computed.
    preload_geopandas()
    rest = iter(chunks)
    first = next(rest, None)
    if first is None:
        raise ValueError(f"{path}: no chunk of footprints; expected one or more")

    def parts() -> Iterator[LayerChunk | EncodedChunk]:
        done = 0
        for chunk in chain([first], rest):
            if isinstance(chunk, EncodedChunk):
                yield chunk
            else:
                yield _layer_chunk(path, chunk, done)
                done += len(chunk)

    write_layer(path, LayerSettings(first.crs, gsd_m=gsd_m), parts())
    return () if isinstance(first, EncodedChunk) else _notes(path, first.columns())


def write_polygons(
    path: Path,
    geometry: NDArray[np.object_],
    columns: Mapping[str, NDArray[Any]],
    crs: CRS | None,
    *,
    digits: int = 7,
) -> tuple[str, ...]:
    """Write polygons with their attributes.

    The suffix selects the format: .gpkg, .geojson, .fgb, .parquet, .shp or .pmtiles. The file
    appears under its name when it is complete and replaces an earlier one. FlatGeobuf and PMTiles
    order polygons by location; the other formats keep the given order. The same polygons
    give the same bytes.

    GeoJSON with a CRS follows RFC 7946 (longitude and latitude on WGS 84, exterior rings
    counter-clockwise). Without a CRS it is in pixels, which its `description` states. A GeoJSON
    without polygons has no columns, because they belong to its features. A Shapefile is limited to
    2 GB, column names of ten characters and texts of 254 bytes. PMTiles hold vector tiles for maps:
    the polygons are cut at the tiles' edges, so the file is not for reading them again.

    Args:
        path: File in an existing folder.
        geometry: (n,) shapely polygons and multipolygons.
        columns: (n,) values of each column: integers, booleans, floats (NaN is null), datetime64
            (NaT is null) or strings (None is null); masked values are null. A GeoPackage and
            GeoParquet hold all of these types; a Shapefile holds times as texts.
        crs: Coordinate system of the geometry; None for pixels.
        digits: Decimal places of degrees in a GeoJSON; 7 are about a centimetre.

    Returns:
        Notes about the file for the user.

    Raises:
        ExportError: the suffix is unknown, the file cannot be written, or the format cannot hold
            the data.
        MissingExtraError: GeoParquet without pyarrow.
    """
    multi = bool((shapely.get_type_id(geometry) != shapely.GeometryType.POLYGON).any())
    write_layer(path, LayerSettings(crs, digits, multi), [LayerChunk(geometry, columns)])
    return _notes(path, columns)


def write_layer(
    path: Path, layer: LayerSettings, parts: Iterable[LayerChunk | EncodedChunk]
) -> None:
    """Write the chunks of a layer, see `write_polygons`.

    Args:
        path: File in an existing folder.
        layer: Settings of the layer.
        parts: One or more chunks with the same columns. Only a GeoPackage takes `EncodedChunk`.

    Raises:
        ExportError, MissingExtraError: See `write_polygons`.
    """
    check_vector_path(path)
    write = WRITERS[path.suffix.lower()]
    if path.suffix.lower() in ONE_FILE:
        # A folder for it takes a millisecond.
        with replacing(path) as partial:
            write(partial, replace(layer, name=path.stem), parts)
        return
    try:
        # In the folder of the target, so that the last step is a rename within one file system.
        folder = Path(tempfile.mkdtemp(prefix=f".{path.stem}.", dir=path.parent))
        try:
            write(folder / path.name, layer, parts)
            _move_into_place(folder, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        reason = reason_of(error)
        raise ExportError(
            f"{path}: the polygons could not be written: {reason}.",
            remedy="Choose an existing folder with write permission and free space.",
        ) from error


def _notes(path: Path, columns: Mapping[str, object]) -> tuple[str, ...]:
    renamed = short_names(columns) if path.suffix.lower() == ".shp" else {}
    if not renamed:
        return ()
    listed = ", ".join(f"{name} is {short}" for name, short in renamed.items())
    return (f"{path}: a Shapefile has short column names: {listed}.",)


def check_vector_path(path: Path) -> None:
    """Check that a vector file can have this name.

    Raises:
        ExportError: the suffix is unknown.
    """
    if path.suffix.lower() not in WRITERS:
        raise ExportError(
            f"{path}: the suffix {path.suffix!r} is not a vector format that can be written.",
            remedy=f"Use one of {', '.join(WRITERS)}.",
        )


def _move_into_place(folder: Path, path: Path) -> None:
    """Move all files of a layer, the main file last."""
    made = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
    if path.suffix.lower() == ".shp":
        # A .prj or an index of an earlier file would be read as part of this one.
        for suffix in (".prj", ".cpg", ".qix", ".sbn", ".sbx"):
            if not (folder / path.with_suffix(suffix).name).exists():
                path.with_suffix(suffix).unlink(missing_ok=True)
    for file in made:
        file.replace(path.parent / file.name)
