"""Vector formats that hold a layer as it is: what each needs beside its GDAL driver.

A writer receives the chunks of a layer as a stream. Files do not depend on when or where they were
written: the same polygons give the same bytes, except of a File Geodatabase, which has random ids.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.arrays import nulls
from rooftrace.core.errors import ExportError, MissingExtraError
from rooftrace.core.text import ASSIGN_CRS, PLACE_IMAGE
from rooftrace.core.types import Polygons
from rooftrace.io.gdal import QUIET, pyogrio_options
from rooftrace.io.legend import Grades, add_style, coloured_field, value_colours
from rooftrace.io.make_valid import rounded
from rooftrace.io.partitions import write_parquet
from rooftrace.io.reproject import CRS84, crs_text, split_at_180, transform_points
from rooftrace.io.vector_formats import KML_FIELDS

if TYPE_CHECKING:
    from arro3.core import Array, RecordBatch


CHANGE_DATE = "1970-01-01T00:00:00.000Z"
"""Date of the last change in every file, so that its bytes do not depend on the time."""

_CONFIGURED = {
    "OGR_CURRENT_DATE": CHANGE_DATE,
    # The file gets its name when it is complete, so single transactions need not be synchronised.
    "OGR_SQLITE_SYNCHRONOUS": "OFF",
    **KML_FIELDS,
}

_WRITING = Lock()
"""Lock for warning filters and GDAL options, which belong to the whole process."""


@dataclass(frozen=True)
class LayerChunk:
    """Some polygons of a layer.

    Args:
        geometry: (n,) shapely polygons, or multipolygons.
        columns: (n,) values of each column; all chunks have the same columns.
    """

    geometry: Polygons
    columns: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class LayerSettings:
    """Settings that all chunks of a layer share.

    Args:
        crs: Coordinate system of the geometry; None for pixels.
        digits: Decimal places of degrees; 7 are about a centimetre.
        multi: True if there are multipolygons.
        gsd_m: Metres per pixel of the image, for the highest zoom of PMTiles; None if not known.
        colours: `#RRGGBB` of the values of `status` or `class`, for the style of a GeoPackage.
        grades: Colours of a number, for the style of a GeoPackage in place of `colours`.
    """

    crs: CRS | None
    digits: int = 7
    multi: bool = False
    gsd_m: float | None = None
    colours: Mapping[str, str] = field(default_factory=dict)
    grades: Grades | None = None


_MOST_WAITING = 200_000
"""Number of polygons after which chunks are written. GDAL adds an index feature by feature to those
that are appended, which takes three times as long."""


def write_gdal(
    path: Path,
    layer: LayerSettings,
    parts: Iterable[LayerChunk],
    driver: str,
    *,
    at_once: bool = False,
    **options: Any,
) -> int:
    """Write chunks by GDAL, in streams of many of them; return the number of polygons.

    GDAL does not wait for a chunk: making it may read images, and the settings of GDAL and of
    warnings belong to the whole process. The file has a folder of its own. With `at_once`, nothing
    can be appended to the format.
    """
    rows, waiting, batches = 0, 0, []
    for part in parts:
        batches.append(_batch(layer, part))
        waiting += len(part.geometry)
        if waiting >= _MOST_WAITING and not at_once:
            _write_batches(path, layer, batches, driver, append=rows > 0, **options)
            rows, waiting, batches = rows + waiting, 0, []
    if batches:
        _write_batches(path, layer, batches, driver, append=rows > 0, **options)
    return rows + waiting


def _write_batches(
    path: Path,
    layer: LayerSettings,
    batches: list[Any],
    driver: str,
    *,
    kind: str | None = "Polygon",
    **options: Any,
) -> None:
    # Imported only here: they take memory that the network needs before.
    import pyogrio
    from arro3.core import RecordBatchReader

    if kind is None:
        batches = [one.select(one.column_names[:-1]) for one in batches]
    # Of the formats, GeoParquet alone knows OGC's codes: GeoServer takes the number by which GDAL
    # writes CRS84 into a GeoPackage for one of EPSG.
    crs = CRS.from_epsg(4326) if layer.crs == CRS84 else layer.crs
    if crs is not None and crs.is_projected and crs.to_authority() is None:
        # Without a code, GDAL (3.12) looks for the one of a UTM zone by the parameters of the
        # projection, and takes one in feet for that in metres.
        own = {"id": {"authority": "LOCAL", "code": 1}}
        crs = CRS.from_json_dict(crs.to_json_dict() | own)
    with gdal_writing():
        pyogrio.write_arrow(
            RecordBatchReader.from_batches(batches[0].schema, batches), path, driver=driver,
            layer=path.stem, geometry_name=kind and _GEOMETRY,
            geometry_type="MultiPolygon" if layer.multi else kind,
            crs=None if crs is None else crs.to_wkt(), **options,
        )  # fmt: skip


@contextmanager
def gdal_writing() -> Iterator[None]:
    """Hold GDAL's settings for writing; its errors become OSError."""
    import pyogrio

    with _WRITING, QUIET, warnings.catch_warnings(), pyogrio_options(_CONFIGURED):
        # Footprints without a CRS are intended.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        warnings.filterwarnings("ignore", message="No SRS set on layer")
        warnings.filterwarnings("ignore", message="NaN of Infinity value found")
        # A note names the columns of a geodatabase that have other names there.
        warnings.filterwarnings("ignore", message="Normalized/laundered")
        try:
            yield
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise OSError(str(error)) from error


_GEOMETRY = "geom"
"""Name of the column of a GeoPackage that has the geometry."""


def _batch(layer: LayerSettings, part: LayerChunk) -> RecordBatch:
    """Return a chunk as a record batch of Arrow."""
    from arro3.core import Array, DataType, RecordBatch

    geometry = part.geometry
    if layer.multi:
        polygons, owner = shapely.get_parts(geometry, return_index=True)
        geometry = np.full(len(geometry), shapely.MultiPolygon(), np.object_)
        shapely.multipolygons(polygons, indices=owner, out=geometry)
    made: dict[str, Any] = {name: _arrow(values) for name, values in part.columns.items()}
    made[_GEOMETRY] = Array(shapely.to_wkb(geometry).tolist(), DataType.binary())
    return RecordBatch.from_pydict(made)


def _arrow(values: NDArray[Any]) -> Array:
    """Return (n,) values of a column; NaN, NaT, None and masked values are null."""
    from arro3.core import Array, DataType

    if values.dtype.kind in "OU":
        return Array([None if one is None else str(one) for one in values], DataType.utf8())
    missing, data = nulls(values), np.ascontiguousarray(np.ma.getdata(values))
    if missing is None or not missing.any():
        return Array.from_numpy(data)
    kind = Array.from_numpy(data[:0]).type
    numbers = data.astype(np.int64) if data.dtype.kind == "M" else data
    listed = [None if gone else one for one, gone in zip(numbers.tolist(), missing.tolist())]
    return Array(listed, Array.from_numpy(numbers[:0]).type).cast(kind)


# RFC 7946 has no member for this: a file without longitude and latitude states it in a text.
IN_PIXELS = "Coordinates are pixels of the image (x right, y down), not longitude and latitude."
"""Member `description` of a GeoJSON in pixels, by which it is also read."""

_INT32 = 2**31
_PIXEL_DIGITS = 10
"""Decimal places of pixels; regularized outlines have corners on multiples of 1/1024."""


Notes = tuple[str, ...]
"""Notes for the user on what a format cannot hold of a layer."""

Writer = Callable[[Path, LayerSettings, Iterable[LayerChunk]], Notes | None]


def _renamed(path: Path, what: str, names: Iterable[tuple[str, str]]) -> Notes:
    """Return a note on columns that have another name in a file."""
    listed = ", ".join(f"{name} is {new}" for name, new in names if name != new)
    return (f"{path.name}: {what} column names: {listed}.",) if listed else ()


def _geopackage(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    parts = iter(parts)
    first = next(parts)
    # The column of row numbers, which is called fid unless an attribute is.
    key, names = "fid", {name.casefold() for name in first.columns}
    while key in names:
        key = f"row_{key}"
    # GDAL 3.6 warns of version 1.4, which GDAL 3.12 writes by default.
    rows = write_gdal(path, layer, chain([first], parts), "GPKG", VERSION="1.2", FID=key)
    # On a full disk GDAL leaves the index out, or rows, without a word.
    index = f"rtree_{path.stem}_{_GEOMETRY}".replace('"', '""')
    try:
        with closing(sqlite3.connect(path)) as file:
            ((indexed,),) = file.execute(f'SELECT count(*) FROM "{index}"')  # noqa: S608  # nosec B608
        if indexed != rows:
            raise OSError(f"the index has {indexed} of {rows} rows: the disk may be full")
        add_style(path, first.columns, layer.colours, layer.grades, CHANGE_DATE)
    except sqlite3.Error as error:
        raise OSError(f"index or style are missing ({error}): the disk may be full") from error


def _flatgeobuf(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    write_gdal(path, layer, parts, "FlatGeobuf", at_once=True)


def _geojson(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    """Write a FeatureCollection by the rules of RFC 7946, by which degrees need no CRS."""
    options, digits = {}, layer.digits
    if layer.crs is None:
        options, digits = {"DESCRIPTION": IN_PIXELS}, _PIXEL_DIGITS
        parts = (replace(one, geometry=rounded(one.geometry, digits)) for one in parts)
    else:
        parts = in_degrees(path, layer, parts)
    turned = (replace(one, geometry=shapely.orient_polygons(one.geometry)) for one in parts)
    write_gdal(
        path, replace(layer, crs=None), turned, "GeoJSON", at_once=True,
        COORDINATE_PRECISION=str(digits), **options,
    )  # fmt: skip


def _shapefile(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> Notes:
    parts = iter(parts)
    first = next(parts)
    fitting = (_fitting(path, part) for part in chain([first], parts))
    write_gdal(
        path, layer, fitting, "ESRI Shapefile",
        ENCODING="UTF-8", DBF_DATE_LAST_UPDATE=CHANGE_DATE[:10],
    )  # fmt: skip
    notes = _renamed(path, "a Shapefile has short", short_names(first.columns).items())
    if layer.crs is not None and layer.crs.is_bound:
        note = (
            f"{path.name}: a Shapefile leaves out how the coordinate system is shifted to WGS 84 "
            "(towgs84), so a GIS may place it 100 m off or more; a GeoPackage (.gpkg) keeps it."
        )
        notes = (*notes, note)
    return notes


def _parquet(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    kinds = ["MultiPolygon", "Polygon"] if layer.multi else ["Polygon"]
    chunks = ((part.geometry, part.columns) for part in parts)
    with MissingExtraError.on_import("parquet", "Writing GeoParquet", "pyarrow"):
        write_parquet(path, layer.crs, chunks, kinds=kinds)


def in_degrees(
    path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]
) -> Iterator[LayerChunk]:
    """Yield the chunks in degrees of longitude and latitude, rounded, and divided at 180."""
    crs = layer.crs
    if crs is None:
        raise ExportError(
            f"{path.name}: {path.suffix} holds longitude and latitude, and the image has no "
            "georeference.",
            remedy=f"Write a GeoPackage (.gpkg) or GeoJSON, or place the image: {PLACE_IMAGE}",
        )
    for part in parts:
        degrees = shapely.transform(part.geometry, lambda xy: transform_points(xy, crs, CRS84))
        if np.isinf(shapely.bounds(degrees)).any():
            raise ExportError(
                f"{path.name}: polygons lie outside the range of {crs_text(crs)}.",
                remedy="Assign the right coordinate system to the image: " + ASSIGN_CRS,
            )
        divided = split_at_180(np.asarray(degrees, np.object_))
        yield LayerChunk(rounded(divided, layer.digits), part.columns)


def with_points(layer: LayerSettings, parts: Iterable[LayerChunk]) -> Iterator[LayerChunk]:
    """Yield chunks in degrees with the longitude and latitude of a point in each polygon."""
    for part in parts:
        inside = shapely.point_on_surface(part.geometry)
        lon, lat = (read(inside).round(layer.digits) for read in (shapely.get_x, shapely.get_y))
        yield replace(part, columns={**part.columns, "longitude": lon, "latitude": lat})


def _csv(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    chunks = with_points(layer, in_degrees(path, layer, parts))
    write_gdal(path, replace(layer, crs=CRS84), chunks, "CSV", at_once=True, GEOMETRY="AS_WKT")


_KML_STYLE = (
    '<Style id="{0}"><LineStyle><color>ff{1}</color><width>2</width></LineStyle>'
    "<PolyStyle><color>40{1}</color></PolyStyle></Style>"
)
"""Outlines with a transparent fill: Google Earth would cover the roofs with white."""

_KML_RED = "#e6194b"
"""Colour of buildings without a status or a class."""


def _named(part: LayerChunk) -> LayerChunk:
    """Return a chunk whose placemarks are called by their ids, unless they have names."""
    if "id" not in part.columns or "name" in map(str.casefold, part.columns):
        return part
    names = np.array([str(one) for one in part.columns["id"].tolist()], np.object_)
    return replace(part, columns={"name": names, **part.columns})


def _kml(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    values: list[str | None] = []

    def noted(part: LayerChunk) -> LayerChunk:
        field = coloured_field(part.columns)
        column = [None] * len(part.geometry) if field is None else part.columns[field].tolist()
        values.extend(None if one is None or one != one else str(one) for one in column)
        return _named(part)

    named = map(noted, in_degrees(path, layer, parts))
    write_gdal(path, replace(layer, crs=CRS84), named, "LIBKML", at_once=True)
    colours = value_colours(sorted({one for one in values if one is not None}), layer.colours)
    styles: dict[str | None, tuple[str, str]] = {None: ("building", _KML_RED)}
    styles |= {one: (f"value-{n}", colours[one]) for n, one in enumerate(colours)}
    # KML orders colours from blue to red.
    head = "".join(
        _KML_STYLE.format(name, one[5:] + one[3:5] + one[1:3]) for name, one in styles.values()
    )
    # Placemarks have the order of the rows.
    urls = (f"<styleUrl>#{styles[value][0]}</styleUrl>".encode() for value in values)
    pattern = rb"(<Placemark.*?)(<(?:ExtendedData|Polygon|MultiGeometry)>)"
    text = path.read_bytes()
    text = re.sub(pattern, lambda mark: mark[1] + next(urls) + mark[2], text, flags=re.DOTALL)
    # GDAL finds the types of attributes in a KMZ only beside their polygons.
    pattern = rb"(<Schema.*?</Schema>)\s*(<Document.*?</name>)"
    text = re.sub(pattern, rb"\2\1", text, count=1, flags=re.DOTALL)
    root = b'<Document id="root_doc">'
    path.write_bytes(text.replace(root, root + head.encode(), 1))


def _kmz(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    # GDAL calls the layer by its file.
    made = path.with_suffix(".kml")
    _kml(made, layer, parts)
    write_zip(path, [("doc.kml", made.read_bytes())])
    made.unlink()


def long_as_text(parts: Iterable[LayerChunk], limit: int) -> list[LayerChunk]:
    """Return chunks whose whole numbers are text in columns that reach a limit.

    Such numbers are ids, of which a format with decimal numbers alone would lose the last digits.
    """
    chunks = list(parts)
    long = {
        name for one in chunks for name, values in one.columns.items()
        if values.dtype.kind in "iu" and len(values) and np.abs(values).max() >= limit
    }  # fmt: skip
    return [
        replace(one, columns={
            name: np.array([v if v is None else str(v) for v in values.tolist()], object)
            if name in long else values for name, values in one.columns.items()
        })
        for one in chunks
    ]  # fmt: skip


def _zipped_shapefile(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> Notes:
    # A folder of its own has only the files of the Shapefile.
    notes = _shapefile(path.with_name(path.stem), layer, parts)
    files = sorted(path.parent.iterdir())
    write_zip(path, ((file.name, file.read_bytes()) for file in files))
    for file in files:
        file.unlink()
    return tuple(note.replace(path.stem, path.name) for note in notes)


def _geodatabase(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> Notes:
    """Write a File Geodatabase, whose whole numbers have 32 bits before ArcGIS Pro 3.2."""
    chunks = long_as_text(parts, 2**53)
    kinds: dict[str, Any] = {}
    for name, first in chunks[0].columns.items():
        if first.dtype.kind == "M":
            kinds[name] = "M8[ms]"
        elif first.dtype.kind in "iu":
            columns = [one.columns[name] for one in chunks if len(one.geometry)]
            fits = all(one.min() >= -_INT32 and one.max() < _INT32 for one in columns)
            kinds[name] = np.int32 if fits else np.float64
    fitting = (
        replace(one, columns={n: v.astype(kinds.get(n, v.dtype)) for n, v in one.columns.items()})
        for one in chunks
    )
    taken = {name.casefold() for name in chunks[0].columns}
    row, shape = (name + "_" * (name.casefold() in taken) for name in ("OBJECTID", "SHAPE"))
    rows = write_gdal(
        path, layer, fitting, "OpenFileGDB", at_once=True, FID=row, GEOMETRY_NAME=shape
    )
    import pyogrio

    info = pyogrio.read_info(path, force_feature_count=True)
    if info["features"] != rows:
        raise OSError(
            f"the geodatabase has {info['features']} of {rows} rows: the disk may be full"
        )
    names = zip(chunks[0].columns, info["fields"].tolist(), strict=True)
    return _renamed(path, "a geodatabase has other", names)


def _zipped_geodatabase(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> Notes:
    folder = path.with_name(path.stem)
    notes = _geodatabase(folder, layer, parts)
    files = sorted(folder.iterdir())
    write_zip(path, ((f"{folder.name}/{file.name}", file.read_bytes()) for file in files))
    shutil.rmtree(folder)
    return notes


def write_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write an archive whose bytes do not depend on the time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)


LAYER_WRITERS: dict[str, Writer] = {
    ".gpkg": _geopackage, ".geojson": _geojson, ".fgb": _flatgeobuf, ".parquet": _parquet,
    ".shp": _shapefile, ".json": _geojson, ".geoparquet": _parquet, ".shp.zip": _zipped_shapefile,
    ".gdb": _geodatabase, ".gdb.zip": _zipped_geodatabase, ".kml": _kml, ".kmz": _kmz, ".csv": _csv,
}  # fmt: skip

SHORT_NAMES = {
    "imagery_date": "img_date",
    "perimeter_m": "perim_m",
    "orientation_deg": "orient",
    "rectangularity": "rectang",
}
"""Short names of columns whose names exceed the ten characters that a Shapefile allows."""

_MAX_NAME = 10
_MAX_TEXT_BYTES = 254

_REMEDY = "Write a GeoPackage (.gpkg) or FlatGeobuf (.fgb)."


def short_names(columns: Mapping[str, object]) -> dict[str, str]:
    """Return the names in a Shapefile of those columns that get another name there.

    Names that are the same when shortened are numbered as GDAL does: `building_h`, `building_1`.
    """
    names: dict[str, str] = {}
    long = [name for name in columns if len(name.encode()) > _MAX_NAME]
    used = {name.casefold() for name in columns if name not in long}
    for name in long:
        short = SHORT_NAMES.get(name) or _cut(name, _MAX_NAME)
        number = 0
        while short.casefold() in used:
            number += 1
            end = f"_{number}" if number < 10 else str(number)
            short = _cut(name, _MAX_NAME - len(end)) + end
        used.add(short.casefold())
        names[name] = short
    return names


def _cut(name: str, most_bytes: int) -> str:
    return name.encode()[:most_bytes].decode(errors="ignore")


def _fitting(path: Path, part: LayerChunk) -> LayerChunk:
    """Return a chunk with the column names of a Shapefile."""
    names = short_names(part.columns)
    columns = {names.get(name, name): values for name, values in part.columns.items()}
    for name, values in part.columns.items():
        texts = set(values.tolist()) if values.dtype.kind in "OU" else ()
        for text in texts:
            if text is not None and len(str(text).encode()) > _MAX_TEXT_BYTES:
                raise ExportError(
                    f"{path.name}: a Shapefile limits texts to {_MAX_TEXT_BYTES} bytes; the column "
                    f"{name!r} holds {text[:30]!r}… of {len(str(text).encode())} bytes.",
                    remedy=_REMEDY,
                )
    return LayerChunk(part.geometry, columns)
