"""Layers of polygons in each format, written a part at a time.

Nothing in the files depends on when or where they were written: the same polygons give the same
bytes.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from threading import Lock, Thread
from typing import IO, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import MissingExtraError
from rooftrace.io.mend import rounded
from rooftrace.io.parquet import write_parquet
from rooftrace.io.rtree import fill_rtree
from rooftrace.io.shapefile import ShapefileLimits

__all__ = ["WRITERS", "Layer", "Part", "import_ahead"]

_DATE = "1970-01-01T00:00:00.000Z"
"""A GeoPackage says when it was last changed."""

_CONFIGURED = {
    "OGR_CURRENT_DATE": _DATE,
    # The file has its name when it is complete: nobody needs each transaction of it on the disk.
    "OGR_SQLITE_SYNCHRONOUS": "OFF",
}

_WRITING = Lock()
"""Filters of warnings and options of GDAL are of the whole process: one thread at a time."""

# What RFC 7946 has no member for: a file without longitude and latitude says so.
_PIXELS = "Coordinates are pixels of the image (x right, y down), not longitude and latitude."

_PIXEL_DIGITS = 10
"""After the point; regular outlines have corners on multiples of 1/1024."""


@dataclass(frozen=True)
class Part:
    """Some polygons of a layer.

    Args:
        geometry: (n,) shapely polygons, or multipolygons.
        columns: (n,) each, the same in all parts.
    """

    geometry: NDArray[np.object_]
    columns: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Layer:
    """What all parts of a layer have in common.

    Args:
        crs: of the geometry; None where it is in pixels.
        digits: after the point of the degrees of a GeoJSON.
        multi: whether there are multipolygons.
    """

    crs: CRS | None
    digits: int = 7
    multi: bool = False


Writer = Callable[[Path, Layer, Iterable[Part]], None]


def import_ahead() -> None:
    """Imports, in a thread, what pyogrio takes longest to import, where it is not there yet.

    Not pyogrio itself: it catches what GDAL has to say in the thread that imports it.
    """
    if "geopandas" not in sys.modules:
        Thread(target=import_module, args=("geopandas",), name="import").start()


def _write(
    path: Path, layer: Layer, part: Part, driver: str, *, append: bool = False, **options: str
) -> None:
    encoded = np.asarray(shapely.to_wkb(part.geometry), np.object_)
    _write_encoded(path, layer, encoded, part.columns, driver, append=append, **options)


def _write_encoded(
    path: Path,
    layer: Layer,
    encoded: NDArray[np.object_],
    columns: Mapping[str, NDArray[Any]],
    driver: str,
    *,
    append: bool = False,
    **options: str,
) -> None:
    """As `_write`, of polygons in WKB (n,)."""
    # Imported when something is written: it brings pandas and pyarrow where they are installed,
    # 130 MB that would lie beside the network all the time.
    import pyogrio

    told = None if layer.crs is None else layer.crs.to_wkt()
    with _WRITING, warnings.catch_warnings(), _configured(pyogrio):
        # Footprints without a CRS are meant.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        warnings.filterwarnings("ignore", message="No SRS set on layer")
        try:
            pyogrio.raw.write(
                path,
                geometry=encoded,
                field_data=list(columns.values()),
                fields=list(columns),
                field_mask=[
                    np.isnan(values) if values.dtype.kind == "f" else None
                    for values in columns.values()
                ],
                geometry_type="MultiPolygon" if layer.multi else "Polygon",
                promote_to_multi=layer.multi,
                # Lines of GeoJSON are taken to be in WGS 84, with a warning where nothing is said,
                # which in other threads than pyogrio's goes to stderr.
                crs="EPSG:4326" if told is None and driver == "GeoJSONSeq" else told,
                driver=driver,
                append=append,
                **options,
            )
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise OSError(str(error)) from error


@contextmanager
def _configured(pyogrio: Any) -> Iterator[None]:
    before = {name: pyogrio.get_gdal_config_option(name) for name in _CONFIGURED}
    pyogrio.set_gdal_config_options(_CONFIGURED)
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options(before)


def _geopackage(path: Path, layer: Layer, parts: Iterable[Part]) -> None:
    """Each part is a transaction; the index is made at the end.

    GDAL packs the index of a layer that it writes at one go, and to one to which it appends it adds
    feature by feature, which takes three times as long as the features themselves.
    """
    bounds = []
    for number, part in enumerate(parts):
        _write(path, layer, part, "GPKG", append=number > 0, SPATIAL_INDEX="NO")
        bounds.append(shapely.bounds(part.geometry).astype(np.float64))
    _add_index(path, layer, np.concatenate(bounds))


def _add_index(path: Path, layer: Layer, bounds: NDArray[np.float64]) -> None:
    """The extension `gpkg_rtree_index` of the GeoPackage standard, as GDAL makes it.

    Args:
        bounds: (n, 4) left, bottom, right, top of the features 1 to n.
    """
    empty = path.parent / "index" / path.name
    empty.parent.mkdir()
    _write(empty, layer, Part(np.zeros(0, np.object_), {}), "GPKG")
    with closing(sqlite3.connect(empty)) as made:
        statements = made.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'gpkg_extensions' AND type = 'table' "
            "UNION ALL SELECT sql FROM sqlite_master WHERE name GLOB 'rtree_*' "
            "AND (type = 'trigger' OR sql GLOB 'CREATE VIRTUAL TABLE *')"
        ).fetchall()
        extensions = made.execute("SELECT * FROM gpkg_extensions").fetchall()
    empty.unlink()
    empty.parent.rmdir()
    table, column = extensions[0][:2]
    try:
        with closing(sqlite3.connect(path)) as file, file:
            file.execute("PRAGMA synchronous = OFF")
            for (statement,) in statements:
                file.execute(statement)
            file.executemany("INSERT INTO gpkg_extensions VALUES (?, ?, ?, ?, ?)", extensions)
            fill_rtree(file, f"rtree_{table}_{column}", bounds)
    except sqlite3.Error as error:
        raise OSError(f"the spatial index could not be made: {error}") from error


def _geojson(path: Path, layer: Layer, parts: Iterable[Part]) -> None:
    """One FeatureCollection of what GDAL writes line by line, by the rules of RFC 7946."""
    digits = layer.digits if layer.crs is not None else _PIXEL_DIGITS
    head = {"type": "FeatureCollection", "name": path.stem}
    if layer.crs is None:
        head["description"] = _PIXELS
    lines = path.with_suffix(".geojsonl")
    with path.open("wb") as file:
        members = (f"{json.dumps(key)}: {json.dumps(text)},\n" for key, text in head.items())
        file.write(f'{{\n{"".join(members)}"features": ['.encode())
        empty = True
        for part in parts:
            if len(part.geometry):
                if layer.crs is not None:
                    part = replace(part, geometry=rounded(part.geometry, layer.crs, digits))
                _write(lines, layer, part, "GeoJSONSeq", COORDINATE_PRECISION=str(digits))
                file.write(b"\n" if empty else b",\n")
                _copy_features(lines, file)
                lines.unlink()
                empty = False
        file.write(b"\n]\n}\n")


def _copy_features(lines: Path, file: IO[bytes]) -> None:
    with lines.open("rb") as features:
        last = b""
        for line in features:
            if last:
                file.write(last + b",\n")
            last = line.rstrip(b"\n")
        file.write(last)


def _shapefile(path: Path, layer: Layer, parts: Iterable[Part]) -> None:
    limits = ShapefileLimits(path)
    for number, part in enumerate(parts):
        columns = limits.check(part.geometry, part.columns)
        _write(
            path, layer, Part(part.geometry, columns), "ESRI Shapefile", append=number > 0,
            ENCODING="UTF-8", DBF_DATE_LAST_UPDATE=_DATE[:10],
        )  # fmt: skip


def _flatgeobuf(path: Path, layer: Layer, parts: Iterable[Part]) -> None:
    """All at once: features are ordered by place, which the last one may change."""
    # As WKB they take a third of the memory.
    given = [(shapely.to_wkb(part.geometry), part.columns) for part in parts]
    columns = {
        name: np.concatenate([columns[name] for _, columns in given]) for name in given[0][1]
    }
    encoded = np.concatenate([np.asarray(wkb, np.object_) for wkb, _ in given])
    given.clear()
    _write_encoded(path, layer, encoded, columns, "FlatGeobuf")


def _parquet(path: Path, layer: Layer, parts: Iterable[Part]) -> None:
    kinds = ["MultiPolygon", "Polygon"] if layer.multi else ["Polygon"]
    try:
        write_parquet(
            path, layer.crs, ((part.geometry, part.columns) for part in parts), kinds=kinds
        )
    except ImportError as error:
        raise MissingExtraError.of("parquet", "Writing GeoParquet", "pyarrow") from error


WRITERS: dict[str, Writer] = {
    ".gpkg": _geopackage,
    ".geojson": _geojson,
    ".fgb": _flatgeobuf,
    ".parquet": _parquet,
    ".shp": _shapefile,
}
