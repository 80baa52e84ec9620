"""Polygons to files of the usual vector formats."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ExportError
from rooftrace.core.types import Footprints
from rooftrace.io.shapefile import short_names
from rooftrace.io.vector_formats import WRITERS, Layer, Part, import_ahead

__all__ = [
    "VECTOR_SUFFIXES",
    "check_vector_path",
    "write_footprints",
    "write_footprints_chunks",
    "write_polygons",
]

VECTOR_SUFFIXES = tuple(WRITERS)


def write_footprints(path: Path, footprints: Footprints) -> tuple[str, ...]:
    """As `write_footprints_chunks`, of one chunk.

    Args:
        path: in an existing folder.
        footprints: any number of them, none included.
    """
    return write_footprints_chunks(path, [footprints])


def write_footprints_chunks(path: Path, chunks: Iterable[Footprints]) -> tuple[str, ...]:
    """Writes polygons with `Footprints.columns`, numbered on from chunk to chunk.

    Beside one chunk there is in memory, of a GeoPackage 32 bytes for each polygon, and of
    FlatGeobuf all of the layer. See `write_polygons` for the formats.

    Args:
        path: in an existing folder.
        chunks: one or more, of one CRS and with the same columns; that may hold no polygons.

    Returns:
        What the person should know of the file.

    Raises:
        ExportError, MissingExtraError: as `write_polygons`.
        ValueError: no chunk, or a multipolygon.
    """
    # While the first chunk is made.
    import_ahead()
    rest = iter(chunks)
    first = next(rest, None)
    if first is None:
        raise ValueError(f"{path}: no chunk of footprints; expected one or more")

    def parts() -> Iterator[Part]:
        done = 0
        for chunk in chain([first], rest):
            if (shapely.get_type_id(chunk.geometry) != shapely.GeometryType.POLYGON).any():
                raise ValueError(f"{path}: a footprint is no polygon")
            columns = chunk.columns()
            yield Part(chunk.geometry, {**columns, "id": columns["id"] + done})
            done += len(chunk)

    _write(path, Layer(first.crs), parts())
    return _notes(path, first.columns())


def write_polygons(
    path: Path,
    geometry: NDArray[np.object_],
    columns: Mapping[str, NDArray[Any]],
    crs: CRS | None,
    *,
    digits: int = 7,
) -> tuple[str, ...]:
    """Writes polygons with their attributes.

    The suffix tells the format: .gpkg, .geojson, .fgb, .parquet or .shp. The file appears under its
    name when it is complete; one that was there is replaced. FlatGeobuf orders polygons by place,
    the others as given. The same polygons give the same bytes.

    GeoJSON with a CRS follows RFC 7946 (longitude and latitude on WGS 84, exterior rings
    counter-clockwise); without one it is in pixels, which its `description` says. In a GeoJSON of
    no polygons there are no columns, as they belong to its features. A Shapefile has 2 GB at most,
    names of ten characters and texts of 254 bytes.

    Args:
        path: in an existing folder.
        geometry: (n,) shapely polygons, or multipolygons among them.
        columns: (n,) each: integers, floats (NaN is null) or strings (None is null).
        crs: of the geometry; None where it is in pixels.
        digits: after the point of the degrees of a GeoJSON; 7 are about a centimetre.

    Returns:
        What the person should know of the file.

    Raises:
        ExportError: the suffix is unknown, the file cannot be written, or the format cannot hold
            what there is.
        MissingExtraError: GeoParquet without pyarrow.
    """
    multi = bool((shapely.get_type_id(geometry) != shapely.GeometryType.POLYGON).any())
    _write(path, Layer(crs, digits, multi), [Part(geometry, columns)])
    return _notes(path, columns)


def _write(path: Path, layer: Layer, parts: Iterable[Part]) -> None:
    check_vector_path(path)
    try:
        # Beside the target, so that the last step is a rename within one file system.
        folder = Path(tempfile.mkdtemp(prefix=f".{path.stem}.", dir=path.parent))
        try:
            WRITERS[path.suffix.lower()](folder / path.name, layer, parts)
            _move_into_place(folder, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ExportError(
            f"{path}: the polygons could not be written: {reason}.",
            remedy="Choose a folder that exists, that you may write to and that has space left.",
        ) from error


def _notes(path: Path, columns: Mapping[str, object]) -> tuple[str, ...]:
    renamed = short_names(columns) if path.suffix.lower() == ".shp" else {}
    if not renamed:
        return ()
    told = ", ".join(f"{name} is {short}" for name, short in renamed.items())
    return (f"{path}: a Shapefile has short names: {told}.",)


_TAKEN_APART = ";!"
"""Pyogrio takes what stands about these in a path for parts of an address."""


def check_vector_path(path: Path) -> None:
    """Raises ExportError where a file of that name cannot be written, or is of no known format."""
    odd = {*str(path.absolute())} & {*_TAKEN_APART}
    if odd:
        raise ExportError(
            f"{path}: polygons cannot be written to a path with {' and '.join(sorted(odd))}.",
            remedy="Rename the file or the folder.",
        )
    if path.suffix.lower() not in WRITERS:
        raise ExportError(
            f"{path}: the suffix {path.suffix!r} is not a vector format that can be written.",
            remedy=f"Use one of {', '.join(VECTOR_SUFFIXES)}.",
        )


def _move_into_place(folder: Path, path: Path) -> None:
    """Moves all files of a layer, the one that is asked for last."""
    made = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
    if path.suffix.lower() == ".shp":
        # A .prj or an index of the file before would be read as this one's.
        for suffix in (".prj", ".cpg", ".qix", ".sbn", ".sbx"):
            if not (folder / path.with_suffix(suffix).name).exists():
                path.with_suffix(suffix).unlink(missing_ok=True)
    for file in made:
        file.replace(path.parent / file.name)
