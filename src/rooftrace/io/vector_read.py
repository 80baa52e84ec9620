"""Polygons read from any vector format that GDAL supports, and from GeoParquet."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import DataError, GeoreferenceError, MissingExtraError, RooftraceError
from rooftrace.core.text import plural, reason_of
from rooftrace.io.attributes import (
    arrow_column,
    declared_column,
    object_array,
    text_column,
    typed_column,
)
from rooftrace.io.gdal import pyogrio_options
from rooftrace.io.make_valid import polygon_parts, valid_by_structure
from rooftrace.io.vector_write import IN_PIXELS, VECTOR_SUFFIXES

_OSM = (".osm", ".pbf")
_MORE_SUFFIXES = (".geoparquet", ".geojsonl", ".geojsons", ".kml", ".gml", ".json", *_OSM)
_GEOJSON = (".geojson", ".json")
_PARQUET = (".parquet", ".geoparquet")
_TABLES = (".csv", ".csv.gz")
_OSM_LAYER = "multipolygons"
_OSM_BUILDINGS = "building IS NOT NULL AND building <> 'no'"
_WITH_RANDOM_ACCESS = (".gpkg", ".shp")
_CHUNK_ROWS = 50_000
_MOST_CHUNKS = 64
"""Maximum number of chunks of a file that GDAL reads."""

_EXACT_FLOATS = 2**53
"""Integers below this have an exact float of 64 bits."""

_HEAD_BYTES = 2048
_MOST_CHECKED_BYTES = 32 * 2**20
"""Maximum size in bytes of a GeoJSON whose records are counted a second time."""

_POLYGON, _MULTI, _COLLECTION = (
    shapely.GeometryType.POLYGON,
    shapely.GeometryType.MULTIPOLYGON,
    shapely.GeometryType.GEOMETRYCOLLECTION,
)


class VectorLockedError(DataError):
    """Another program holds the file, so that it cannot be read or written now."""


@dataclass(frozen=True)
class VectorLayer:
    """The polygons of a layer.

    Args:
        geometry: (n,) valid shapely polygons and multipolygons in two dimensions.
        values: (n,) values of each attribute; see `VectorFile.read`.
        crs: Coordinate system of the geometry.
        repaired: Number of polygons that were invalid and have been repaired.
        without_outline: Number of features without an outline, which are left out.
    """

    geometry: NDArray[np.object_]
    values: Mapping[str, NDArray[np.object_]]
    crs: CRS
    repaired: int
    without_outline: int

    def __len__(self) -> int:
        return len(self.geometry)

    @property
    def bounds_xy(self) -> tuple[float, float, float, float]:
        """Bounds (left, bottom, right, top) of all polygons in the CRS; NaN if there are none."""
        left, bottom, right, top = shapely.total_bounds(self.geometry)
        return float(left), float(bottom), float(right), float(top)


_Read = tuple[CRS | None, NDArray[np.object_], dict[str, NDArray[Any]], int]
"""Coordinate system, (n,) geometries, (n,) values of each attribute, and the number of geometries
whose rings had to be closed."""


def is_vector_file(path: Path) -> bool:
    """Return True if the suffix is one of vector data; a .json is recognised by its beginning."""
    suffix = path.suffix.lower()
    if suffix not in (*VECTOR_SUFFIXES, *_MORE_SUFFIXES) or not path.is_file():
        return False
    if suffix != ".json":
        return True
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return b'"FeatureCollection"' in head


class VectorFile:
    """The one layer with polygons of a file; it is read on first use.

    An extract of OpenStreetMap (.osm, .pbf) has the polygons with a tag `building`. A table (.csv,
    .csv.gz) is one of Google Open Buildings, with a column `geometry`, or one of Microsoft's, with
    a GeoJSON feature on each line.

    Args:
        path: File of any vector format that GDAL reads, or GeoParquet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the attributes.

        Raises:
            DataError: the file cannot be read, or does not have exactly one layer of polygons.
        """
        with _explained(self.path):
            if self._is_parquet:
                names = _parquet_schema(self.path).names
                return tuple(name for name in names if name not in self._geometry_names)
            import pyogrio

            with _driver(self.path) as (source, options):
                info = pyogrio.read_info(source, layer=self._layer, **options)
            return tuple(map(str, info["fields"]))

    @cached_property
    def has_fids(self) -> bool:
        """Whether records have ids that are no attribute: a GeoPackage's fid, a GeoJSON's `id`.

        They are read as an attribute called `fid`.
        """
        if self._is_parquet or _is_table(self.path) or "fid" in map(str.lower, self.fields):
            return False
        if self.path.suffix.lower() in _GEOJSON:
            return True
        import pyogrio

        with _explained(self.path), _driver(self.path) as (source, options):
            column = pyogrio.read_info(source, layer=self._layer, **options)["fid_column"]
        return bool(column) and column not in self.fields

    @cached_property
    def in_pixels(self) -> bool:
        """True for a GeoJSON that states that it is in pixels of an image, as rooftrace writes it.

        Software that moves such a file to a place on the ground adds a member `crs`.

        Raises:
            DataError: the file cannot be read.
        """
        if self.path.suffix.lower() not in _GEOJSON:
            return False
        with _explained(self.path), self.path.open("rb") as file:
            head = file.read(_HEAD_BYTES).partition(b'"features"')[0]
        return IN_PIXELS.encode() in head and b'"crs"' not in head

    def read(self, fields: Sequence[str] = (), *, typed: bool = False) -> VectorLayer:
        """Read the polygons, and repair invalid ones.

        Attributes are strings, "" for null. With `typed` they keep their types: floats (NaN is
        null), integers and booleans (null is masked), dates and times as datetime64 (NaT is null),
        and texts (null is None). Times that state their offset become those of UTC. Other values,
        such as lists, become texts.

        Args:
            fields: Attributes to read, among `self.fields`.
            typed: True to keep the types of attributes.

        Raises:
            DataError: see `fields`; also if a feature is not a polygon.
            GeoreferenceError: the file has no CRS, or coordinates outside the range of its CRS.
        """
        return self._layer_of(*self._read_all(fields), typed=typed)

    def chunks(self, fields: Sequence[str] = ()) -> Iterator[VectorLayer]:
        """Yield the polygons in their order as `read` returns them, in one or more chunks.

        GeoParquet, GeoPackages and Shapefiles are read chunk by chunk. Other formats cannot be
        entered in the middle and are read as a whole, in one chunk.

        Args:
            fields: Attributes to read, among `self.fields`, with their types; also `fid`, if
                `self.has_fids`.

        Raises:
            DataError, GeoreferenceError: See `read`.
        """
        parts = self._parts(fields)
        while True:
            # Only reading is explained, not what the caller does between two chunks.
            with _explained(self.path):
                part = next(parts, None)
            if part is None:
                return
            yield self._layer_of(*part, typed=True)

    def _layer_of(
        self,
        crs: CRS | None,
        geometry: NDArray[np.object_],
        values: Mapping[str, NDArray[Any]],
        closed: int,
        *,
        typed: bool,
    ) -> VectorLayer:
        """Check and repair what was read."""
        if self.in_pixels:
            raise GeoreferenceError(
                f"{self.path} is in pixels of an image, so it has no place on the ground.",
                remedy="Give the image a georeference and predict it again: gdal_translate -a_srs "
                "EPSG:… -a_ullr LEFT TOP RIGHT BOTTOM IMAGE OUT.tif",
            )
        if crs is None:
            raise GeoreferenceError(
                f"{self.path} has no coordinate system.",
                remedy=assign_crs(geometry, self.path.name),
            )
        geometry, kept, repaired = _polygons(geometry, self.path)
        layer = VectorLayer(
            geometry,
            {
                name: typed_column(column[kept]) if typed else text_column(column[kept])
                for name, column in values.items()
            },
            crs,
            repaired + closed,
            len(kept) - int(kept.sum()),
        )
        _check_coordinates(layer, self.path)
        return layer

    def outlines(self) -> tuple[NDArray[np.object_], CRS | None]:
        """Read the polygons without a check of the coordinates, and the CRS if there is one.

        Raises:
            DataError: see `read`.
        """
        geometry, crs, _ = self.columns()
        return geometry, crs

    def columns(
        self, fields: Sequence[str] = ()
    ) -> tuple[NDArray[np.object_], CRS | None, dict[str, NDArray[np.object_]]]:
        """Read what `outlines` reads, and attributes as strings, "" for null.

        Raises:
            DataError: see `read`.
        """
        crs, geometry, values, _ = self._read_all(fields)
        geometry, kept, _ = _polygons(geometry, self.path)
        return geometry, crs, {name: text_column(column[kept]) for name, column in values.items()}

    def _read_all(self, fields: Sequence[str]) -> _Read:
        with _explained(self.path):
            read = self._read_parquet if self._is_parquet else self._read_gdal
            return read(fields)

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix.lower() in _PARQUET

    @cached_property
    def _layer(self) -> str | None:
        import pyogrio

        if self.path.suffix.lower() in _OSM:
            return _OSM_LAYER
        if _is_table(self.path):
            return None
        layers = [(str(name), kind) for name, kind in pyogrio.list_layers(self.path)]
        able = [name for name, kind in layers if kind is not None and _may_hold_polygons(kind)]
        if len(able) > 1:
            # A layer without a declared geometry type counts if a polygon is found in it.
            kinds = dict(layers)
            able = [n for n in able if "Polygon" in kinds[n] or self._has_polygons(n)]
        if len(able) == 1:
            return able[0]
        listed = ", ".join(f"{name} ({kind or 'no geometry'})" for name, kind in layers)
        separate = (
            "Write the layer that you need to a separate file: "
            f"ogr2ogr OUT.gpkg {self.path.name} LAYER"
        )
        raise DataError(
            f"{self.path} has {len(able) or 'no'} layers of polygons, expected one; "
            f"it has {listed or 'no layer'}.",
            remedy=separate if able else "Give a file with polygons: closed outlines of areas.",
        )

    def _has_polygons(self, layer: str) -> bool:
        import pyogrio

        _, _, wkb, _ = pyogrio.raw.read(self.path, layer=layer, columns=[])
        kinds = shapely.get_type_id(shapely.from_wkb(wkb, on_invalid="ignore"))
        return bool(np.isin(kinds, (_POLYGON, _MULTI, _COLLECTION)).any())

    def _parts(self, fields: Sequence[str]) -> Iterator[_Read]:
        if self._is_parquet:
            yield from self._parquet_chunks(fields)
        elif self.path.suffix.lower() in _WITH_RANDOM_ACCESS:
            yield from self._gdal_chunks(fields)
        else:
            yield self._read_gdal(fields)

    def _gdal_chunks(self, fields: Sequence[str]) -> Iterator[_Read]:
        """Yield chunks of a file in which a record is found by its number."""
        import pyogrio

        info = pyogrio.read_info(self.path, layer=self._layer, force_feature_count=True)
        count = int(info["features"])
        # The file is walked from its beginning to each chunk, so that there are few chunks.
        rows = max(_CHUNK_ROWS, -(-count // _MOST_CHUNKS))
        for first in range(0, max(count, 1), rows):
            yield self._read_gdal(fields, first, rows)

    def _read_gdal(self, fields: Sequence[str], first: int = 0, rows: int | None = None) -> _Read:
        """Read some rows; default: all."""
        import pyogrio

        if self.path.suffix.lower() == ".gpkg" and not first:
            _check_database(self.path)
        with_fids = "fid" in fields and self.has_fids
        fields = [name for name in fields if not (with_fids and name == "fid")]
        with _driver(self.path) as (source, options):
            meta, fids, wkb, columns = pyogrio.raw.read(
                source, layer=self._layer, columns=list(fields), force_2d=True,
                skip_features=first, max_features=rows, datetime_as_string=True, return_fids=True,
                where=_OSM_BUILDINGS if self._layer == _OSM_LAYER else None, **options,
            )  # fmt: skip
            # GDAL returns columns in the order of the file.
            values = {
                str(name): declared_column(column, str(kind))
                for name, column, kind in zip(meta["fields"], columns, meta["dtypes"])
            }
            # Large integers beside nulls have gone through floats, which round them.
            for name, column in values.items():
                if isinstance(column, np.ma.MaskedArray) and (abs(column) >= _EXACT_FLOATS).any():
                    known = ~np.ma.getmaskarray(column)
                    _, _, _, (column[known],) = pyogrio.raw.read(
                        source, layer=self._layer, columns=[name], fids=fids[known],
                        read_geometry=False, **options,
                    )  # fmt: skip
        if with_fids:
            # GDAL numbers the features of a GeoJSON that have no id by their rows, from 0.
            rows_of = np.arange(len(fids)) if self.path.suffix.lower() in _GEOJSON else -1
            values["fid"] = np.ma.MaskedArray(fids, fids == rows_of)
        if wkb is None:
            raise ValueError("it has no column geometry with polygons")
        _check_all_read(self.path, wkb)
        # GDAL assumes degrees in every GeoJSON.
        without = meta["crs"] is None or self.in_pixels
        crs = None if without else CRS.from_user_input(meta["crs"])
        if crs is None and _is_table(self.path) and {*_LONLAT_COLUMNS} <= {*self.fields}:
            crs = CRS.from_epsg(4326)
        geometry, closed = _closed(wkb)
        return crs, geometry, values, closed

    def _read_parquet(self, fields: Sequence[str]) -> _Read:
        column = self._geometry_column["name"]
        import geopandas as gpd
        from pyarrow import parquet

        table = gpd.read_parquet(self.path, columns=[column])
        attributes = parquet.read_table(self.path, columns=list(fields))
        values = {name: arrow_column(attributes.column(name)) for name in fields}
        return table.crs, _two_dimensional(table.geometry.to_numpy()), values, 0

    def _parquet_chunks(self, fields: Sequence[str]) -> Iterator[_Read]:
        import geopandas as gpd
        from pyarrow import parquet

        column = self._geometry_column["name"]
        if self._geometry_column["encoding"] != "WKB":
            yield self._read_parquet(fields)
            return
        with parquet.ParquetFile(self.path) as file:
            # A table without rows gives the coordinate system as geopandas reads it.
            nothing = io.BytesIO()
            parquet.write_table(file.schema_arrow.empty_table(), nothing)
            crs = gpd.read_parquet(nothing, columns=[column]).crs
            if not file.metadata.num_rows:
                nothing_of = file.schema_arrow.empty_table()
                values = {name: arrow_column(nothing_of.column(name)) for name in fields}
                yield crs, np.zeros(0, np.object_), values, 0
            for batch in file.iter_batches(_CHUNK_ROWS, columns=[column, *fields]):
                wkb = batch.column(column).to_numpy(zero_copy_only=False)
                values = {name: arrow_column(batch.column(name)) for name in fields}
                yield crs, _two_dimensional(shapely.from_wkb(wkb)), values, 0

    @cached_property
    def _geometry_column(self) -> dict[str, str]:
        """Name and encoding of the column with the polygons of a GeoParquet."""
        known = self._geo_metadata
        name = known["primary_column"]
        return {"name": name, "encoding": known["columns"][name]["encoding"]}

    @cached_property
    def _geometry_names(self) -> set[str]:
        """Names of the columns of a GeoParquet that hold geometries, or bounds of geometries."""
        columns = self._geo_metadata["columns"]
        bounds = [one.get("covering", {}).get("bbox", {}).values() for one in columns.values()]
        return {*columns, *(str(place[0]) for edges in bounds for place in edges)}

    @cached_property
    def _geo_metadata(self) -> dict[str, Any]:
        metadata = (_parquet_schema(self.path).metadata or {}).get(b"geo")
        if metadata is None:
            raise ValueError("it has no geometry (no GeoParquet metadata)")
        known: dict[str, Any] = json.loads(metadata)
        return known


_LONLAT_COLUMNS = ("latitude", "longitude")
"""Columns of a table whose geometry is in degrees on WGS 84, as that of Google Open Buildings."""


def _is_table(path: Path) -> bool:
    return path.name.lower().endswith(_TABLES)


@contextmanager
def _driver(path: Path) -> Iterator[tuple[Path | str, dict[str, str]]]:
    """Yield what GDAL opens for a file, and its options.

    Raises:
        OSError: a table cannot be read.
    """
    if _is_table(path):
        packed = path.suffix.lower() == ".gz"
        with gzip.open(path) if packed else path.open("rb") as file:
            head = file.read(_HEAD_BYTES).lstrip()
        place = f"{'/vsigzip/' if packed else ''}{path.absolute().as_posix()}"
        if head.startswith(b"{"):
            yield f"GeoJSONSeq:{place}", {}
        else:
            yield f"CSV:{place}", {"GEOM_POSSIBLE_NAMES": "geometry,WKT,wkt"}
        return
    # Ids of nodes that are not on the server yet are negative and in any order.
    options = {"OSM_USE_CUSTOM_INDEXING": "NO"} if path.suffix.lower() == ".osm" else {}
    with pyogrio_options(options):
        yield path, {}


def _check_database(path: Path) -> None:
    """Raise sqlite3.DatabaseError if the pages of a GeoPackage are damaged.

    GDAL leaves out records of damaged pages without an error. The check takes a fifth of the time
    of reading: 0.2 of 1.1 s for 200,000 polygons in 43 MB.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(f"SQLite finds it damaged ({found})")


def _check_all_read(path: Path, wkb: NDArray[np.object_]) -> None:
    """Refuse a GeoJSON of which GDAL left out records or geometries, which it does silently.

    Files above `_MOST_CHECKED_BYTES` are not checked, since Python's JSON takes several times their
    size in memory.

    Raises:
        DataError: a record is no Feature, or its geometry was not read.
    """
    if path.suffix.lower() not in _GEOJSON:
        return
    if path.stat().st_size > _MOST_CHECKED_BYTES:
        return
    try:
        document = json.loads(path.read_bytes())
    except ValueError:
        # GDAL has read it, and accepts more than JSON allows.
        return
    if not isinstance(document, dict) or document.get("type") != "FeatureCollection":
        return
    records = document.get("features")
    if not isinstance(records, list):
        return
    remedy = "Correct the records, or write the file again with a GIS."
    if len(records) != len(wkb):
        kinds = [one.get("type") if isinstance(one, dict) else one for one in records]
        number = next((n for n, kind in enumerate(kinds) if kind != "Feature"), None)
        what = (
            "" if number is None else f": features[{number}] is of the type {kinds[number]!r:.40}"
        )
        raise DataError(
            f"{path} has {len(records)} records, but {len(wkb)} Features{what}; expected Features "
            "only.",
            remedy=remedy,
        )
    unread = [
        number
        for number, (record, found) in enumerate(zip(records, wkb))
        if found is None and isinstance(record, dict) and record.get("geometry") is not None
    ]
    if unread:
        raise DataError(
            f"{path} has {plural(len(unread), 'geometry', 'geometries')} that cannot be read: the "
            f"first one is that of features[{unread[0]}]; expected a type and coordinates.",
            remedy=remedy,
        )


def _parquet_schema(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError.of("parquet", "Reading GeoParquet", "pyarrow") from error
    return parquet.read_schema(path)


def assign_crs(geometry: NDArray[np.object_], name: str) -> str:
    """Return the remedy for polygons without a coordinate system.

    Args:
        geometry: (n,) shapely geometries, whose coordinates say whether they can be degrees.
        name: Name of their file.
    """
    can_be_degrees = bool((np.abs(shapely.get_coordinates(geometry)) <= (180, 90)).all())
    code = "EPSG:4326" if can_be_degrees and len(geometry) else "EPSG:…"
    return f"Assign its coordinate system: ogr2ogr -a_srs {code} OUT.gpkg {name}"


def _may_hold_polygons(kind: str) -> bool:
    return any(word in kind for word in ("Polygon", "Surface", "Unknown", "Collection"))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # Drivers warn about what is checked here anyway: crossing rings, widths of fields.
            warnings.simplefilter("ignore")
            yield
    except RooftraceError:
        raise
    except Exception as error:
        # Readers raise what they do not document, such as UnboundLocalError for a damaged .prj.
        reason = reason_of(error)
        if isinstance(error, (AttributeError, TypeError, KeyError, IndexError, NameError)):
            reason = "its description of the data is damaged"
        if "Could not decode error message" in reason:
            reason = "a part of it that should be text is not UTF-8"
        if "database is locked" in reason:
            raise VectorLockedError(
                f"{path} is held by another program, such as QGIS.",
                remedy="Close the file there, or end its editing, and try again.",
            ) from error
        raise DataError(
            f"{path} cannot be read as vector data: {reason}.",
            remedy="Open it with a GIS to check that it is complete.",
        ) from error


def _two_dimensional(geometry: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return (n,) geometries without heights and measures."""
    is_flat = (shapely.get_coordinate_dimension(geometry) <= 2).all()
    return object_array(geometry if is_flat else shapely.force_2d(geometry))


def _closed(wkb: NDArray[np.object_]) -> tuple[NDArray[np.object_], int]:
    """Return geometries with closed rings, and the number of those that had to be closed.

    GDAL passes on a ring of a GeoJSON that is not closed, which GEOS does not take.
    """
    geometry = object_array(shapely.from_wkb(wkb, on_invalid="ignore"))
    missing = np.flatnonzero(shapely.is_missing(geometry))
    geometry[missing] = object_array(shapely.from_wkb(wkb[missing], on_invalid="fix"))
    return geometry, int((~shapely.is_missing(geometry[missing])).sum())


def _polygons(
    geometry: NDArray[np.object_], path: Path
) -> tuple[NDArray[np.object_], NDArray[np.bool_], int]:
    """Return the valid polygons, (n,) bool of the kept geometries, and the number repaired."""
    kinds = shapely.get_type_id(geometry)
    present = ~shapely.is_missing(geometry) & ~shapely.is_empty(geometry)
    _check_kinds(geometry[present], path)
    coordinates, owner = shapely.get_coordinates(geometry, return_index=True)
    present[owner[~np.isfinite(coordinates).all(axis=1)]] = False
    mixed = present & (kinds == _COLLECTION)
    invalid = present & ~shapely.is_valid(geometry)
    repair = invalid | mixed
    geometry = geometry.copy()
    geometry[repair] = [_polygonal(one) for one in valid_by_structure(geometry[repair])]
    kept = present & ~shapely.is_missing(geometry)
    return geometry[kept], kept, int(invalid.sum())


def _polygonal(geometry: Any) -> Any:
    """Return the part of a geometry that has an area, or None."""
    parts, _ = polygon_parts(np.array([geometry], np.object_))
    if len(parts) < 2:
        return parts[0] if len(parts) else None
    # Parts of a collection may overlap, those of a multipolygon may not.
    return shapely.union_all(parts)


def _check_kinds(geometry: NDArray[np.object_], path: Path) -> None:
    kinds = Counter(shapely.get_type_id(geometry).tolist())
    names = {kind: shapely.GeometryType(kind).name.title() for kind in kinds}
    others = {names[k]: n for k, n in kinds.items() if k not in (_POLYGON, _MULTI, _COLLECTION)}
    if others:
        listed = ", ".join(f"{count} {name}" for name, count in sorted(others.items()))
        raise DataError(
            f"{path} has {sum(others.values())} features that are not polygons ({listed}); "
            "footprints must be polygons.",
            remedy="Draw outlines, or keep only the polygons: ogr2ogr OUT.gpkg "
            f"{path.name} -where \"OGR_GEOMETRY LIKE '%POLYGON'\"",
        )


def _check_coordinates(layer: VectorLayer, path: Path) -> None:
    """Refuse geocentric coordinates, and pixels or metres in a format that assumes degrees."""
    if layer.crs.is_geocentric:
        raise GeoreferenceError(
            f"{path} is in {layer.crs.name}, whose coordinates begin at the centre of the Earth; "
            "expected a map, or degrees.",
            remedy=f"Convert it: ogr2ogr -t_srs EPSG:4326 OUT.gpkg {path.name}",
        )
    if not len(layer) or not layer.crs.is_geographic:
        return
    left, bottom, right, top = layer.bounds_xy
    turns = 360 / layer.crs.axis_info[0].unit_conversion_factor * np.pi / 180
    # At a pole, a change of the coordinate system rounds beyond it.
    turns *= 1 + 1e-9
    if max(abs(left), abs(right)) > turns or max(abs(bottom), abs(top)) > turns / 4:
        raise GeoreferenceError(
            f"{path} has coordinates from {left:g}, {bottom:g} to {right:g}, {top:g}, not "
            f"degrees, but its coordinate system is {layer.crs.name}.",
            remedy="Assign the right coordinate system: ogr2ogr -a_srs EPSG:… OUT.gpkg "
            f"{path.name}. If they are pixels, give the image a georeference: gdal_translate "
            "-a_srs EPSG:… -a_ullr LEFT TOP RIGHT BOTTOM IMAGE OUT.tif",
        )
