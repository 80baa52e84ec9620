"""Polygons written to the usual vector formats, chunk by chunk.

Files do not depend on when or where they were written: the same polygons give the same bytes.
"""

import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ExportError
from rooftrace.core.text import reason_of
from rooftrace.core.types import Footprints, Polygons
from rooftrace.io.legend import Grades, Legend
from rooftrace.io.vector_exports import EXPORT_WRITERS
from rooftrace.io.vector_read import VectorFile
from rooftrace.io.vector_writers import LAYER_WRITERS, LayerChunk, LayerSettings, Notes

WRITERS = LAYER_WRITERS | EXPORT_WRITERS
"""Writers of all formats by suffix."""

READABLE_SUFFIXES = tuple(LAYER_WRITERS)
"""Suffixes of the formats from which the polygons and attributes can be read again."""

DEGREES_SUFFIXES = (".geojson", ".json", ".kml", ".kmz", ".csv", ".xlsx", ".osm")
"""Suffixes of the formats that are in degrees of longitude and latitude."""

WRITABLE = f"Use one of {', '.join(WRITERS)}."
"""Remedy for a format that cannot be written."""


def write_footprints(
    path: Path,
    chunks: Footprints | Iterable[Footprints],
    *,
    gsd_m: float | None = None,
    legend: Legend | None = None,
) -> tuple[str, ...]:
    """Write polygons with `Footprints.columns`; `id` counts from chunk to chunk.

    Memory holds some chunks, or the whole layer of a format to which nothing can be appended. See
    `write_polygons` for the formats.

    Args:
        path: File in an existing folder.
        chunks: Polygons, or one or more chunks of them with one CRS and the same columns; they may
            be empty.
        gsd_m: See `LayerSettings`.
        legend: Colours of the classes in the style of a GeoPackage, those of the mask.

    Returns:
        Notes about the file for the user.

    Raises:
        ExportError: See `write_polygons`.
        MissingExtraError: GeoParquet without pyarrow.
    """
    rest = iter([chunks] if isinstance(chunks, Footprints) else chunks)
    first = next(rest)

    def parts() -> Iterator[LayerChunk]:
        done = 0
        for chunk in chain([first], rest):
            columns = chunk.columns()
            columns["id"] = columns["id"] + done
            yield LayerChunk(chunk.geometry, columns)
            done += len(chunk)

    colours = {} if legend is None else legend.by_name
    return write_layer(path, LayerSettings(first.crs, gsd_m=gsd_m, colours=colours), parts())


def write_polygons(
    path: Path,
    geometry: Polygons,
    columns: Mapping[str, NDArray[Any]],
    crs: CRS | None,
    *,
    grades: Grades | None = None,
) -> tuple[str, ...]:
    """Write polygons with their attributes.

    The suffix selects the format, see `WRITERS` and docs/formats.md. The file appears under its
    name when it is complete and replaces an earlier one. FlatGeobuf and PMTiles order polygons by
    location; the other formats keep the given order. A GeoJSON without a CRS is in pixels, which
    its `description` states; one without polygons has no columns.

    Args:
        path: File in an existing folder.
        geometry: (n,) shapely polygons and multipolygons.
        columns: (n,) values of each column: integers, booleans, floats (NaN is null), datetime64
            (NaT is null) or strings (None is null); masked values are null. A GeoPackage and
            GeoParquet hold all of these types; a Shapefile holds times as texts.
        crs: Coordinate system of the geometry; None for pixels.
        grades: Colours of a number, for the style of a GeoPackage.

    Returns:
        Notes about the file for the user.

    Raises:
        ExportError: the suffix is unknown, the file cannot be written, or the format cannot hold
            the data.
        MissingExtraError: GeoParquet without pyarrow.
    """
    multi = bool((shapely.get_type_id(geometry) != shapely.GeometryType.POLYGON).any())
    settings = LayerSettings(crs, multi=multi, grades=grades)
    return write_layer(path, settings, [LayerChunk(geometry, columns)])


def write_layer(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> Notes:
    """Write the chunks of a layer, see `write_polygons`."""
    check_vector_path(path)
    try:
        # In the folder of the target, so that the last step is a rename within one file system.
        folder = Path(tempfile.mkdtemp(prefix=f".{path.stem}.", dir=path.parent))
        try:
            notes = WRITERS[vector_suffix(path)](folder / path.name, layer, parts)
            if path.suffix.lower() == ".shp":
                # A .prj or an index of an earlier file would be read as part of this one.
                for suffix in (".prj", ".cpg", ".qix", ".sbn", ".sbx"):
                    if not (folder / path.with_suffix(suffix).name).exists():
                        path.with_suffix(suffix).unlink(missing_ok=True)
            # The main file last.
            for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
                if (target := path.parent / file.name).is_dir():
                    target.replace(folder / ".earlier")
                file.replace(target)
            return notes or ()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        reason = reason_of(error)
        raise ExportError(
            f"{path}: the polygons could not be written: {reason}.",
            remedy="Choose an existing folder with write permission and free space.",
        ) from error


def write_copies(path: Path, formats: Iterable[str], *, multi: bool = False) -> tuple[str, ...]:
    """Write a layer that rooftrace has written in other formats, too, beside its file.

    Returns:
        Notes about the files for the user.

    Raises:
        GeoreferenceError: The layer is in pixels of an image.
    """
    layer = VectorFile(path)
    notes: list[str] = []
    for suffix in formats:
        target = path.with_suffix(suffix)
        if target == path:
            continue
        read = layer.chunks(layer.fields)
        first = next(read)
        parts = (LayerChunk(one.geometry, one.values) for one in chain([first], read))
        notes += write_layer(target, LayerSettings(first.crs, multi=multi), parts)
    return tuple(notes)


def known_formats(names: Iterable[str] | None) -> tuple[str, ...]:
    """Return suffixes of `WRITERS` for the names of formats, such as `kml` or `.shp.zip`.

    GeoJSON is `.geojson`: the record of a command has the suffix `.json`.
    """
    plain = [name.lower().removeprefix(".") for name in names or ()]
    suffixes = tuple(".geojson" if name == "json" else f".{name}" for name in plain)
    for suffix in suffixes:
        if suffix not in WRITERS:
            raise ExportError(
                f"{suffix[1:]!r} is not a vector format that can be written.", remedy=WRITABLE
            )
    return tuple(dict.fromkeys(suffixes))


def free_names(names: Collection[str], taken: Collection[str], prefix: str) -> dict[str, str]:
    """Return a name for each column that no other one has; those that are taken get a prefix.

    A GeoPackage takes names for equal that differ in case alone.

    Args:
        names: Names of columns.
        taken: Names of other columns of the same layer.
        prefix: Prefix of the new names; it is repeated where a name with it exists, too.
    """
    used = {name.casefold() for name in taken}
    unavailable = used | {name.casefold() for name in names}
    found = {}
    for name in names:
        free = name
        while free.casefold() in (used if free == name else unavailable):
            free = prefix + free
        used.add(free.casefold())
        unavailable.add(free.casefold())
        found[name] = free
    return found


def check_vector_path(path: Path) -> None:
    """Check that a vector file can have this name."""
    if vector_suffix(path) not in WRITERS:
        raise ExportError(
            f"{path}: the suffix {path.suffix!r} is not a vector format that can be written.",
            remedy=WRITABLE,
        )


def vector_suffix(path: Path) -> str:
    """Return the suffix that selects the format: that of the name, .shp.zip or .gdb.zip."""
    name = path.name.lower()
    return next(
        (one for one in (".shp.zip", ".gdb.zip") if name.endswith(one)), path.suffix.lower()
    )
