"""Layers of vector data that GDAL reads, and files of GeoParquet: their rows as they are."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import DataError, MissingExtraError
from rooftrace.core.text import list_first
from rooftrace.core.types import Polygons
from rooftrace.io.gdal import pyogrio_options
from rooftrace.io.geojson import GEOJSON, has_ids
from rooftrace.io.legend import STATUS_COLOURS
from rooftrace.io.reproject import CRS84
from rooftrace.io.vector_formats import VectorInput, building_nodes_note, surrounded
from rooftrace.io.vector_writers import IN_PIXELS

FOR_POINTS = 'For points, such as customers or addresses: docs/join.md, "Addresses".'
_OSM_LAYER = "multipolygons"
_BUILDING_TAG = re.compile(r'"building"=>"([^"]*)"')
_HAS_BUILDING_TAG = (
    """other_tags LIKE '%"building"=>%' AND NOT other_tags LIKE '%"building"=>"no"%'"""
)
_LONLAT_COLUMNS = ("latitude", "longitude")
"""Columns of a table whose geometry is in degrees on WGS 84, as that of Google Open Buildings."""

_WITH_RANDOM_ACCESS = (".gpkg", ".shp")
_CHUNK_ROWS = 50_000
_MOST_CHUNKS = 64
"""Maximum number of chunks of a file that GDAL reads."""

_EXACT_FLOATS = 2**53
"""Integers below this have an exact float of 64 bits."""

_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d+)?(?:e-\d+)?")
"""A number as programs write it, with its decimals; not one that begins with zeros, as ids do."""

_FIELD_INTEGERS = (np.int16, np.int32, np.int64)
"""Integers that vector formats have a type for."""

_AS_POLYGONS = {
    b"\x01\x0f\0\0\0": b"\x01\x06\0\0\0",
    b"\x01\x10\0\0\0": b"\x01\x06\0\0\0",
    b"\x01\x11\0\0\0": b"\x01\x03\0\0\0",
}
"""Heads of polyhedral surfaces, TINs and triangles in WKB, and those of polygons laid out alike."""

_FACES = re.compile(rb"\x01[\x0f-\x11]\0\0\0")

POLYGONAL = (
    shapely.GeometryType.POLYGON,
    shapely.GeometryType.MULTIPOLYGON,
    shapely.GeometryType.GEOMETRYCOLLECTION,
)

Values = dict[str, NDArray[Any]]
Rows = tuple[CRS | None, Polygons, Values, int]
"""Coordinate system, (n,) geometries, (n,) values of each attribute, and the number of geometries
whose rings had to be closed."""


def is_comparison(side: Iterable[object], status: Iterable[object]) -> bool:
    """Return whether a layer holds both sides of a comparison, by its attributes side and status.

    A user may have removed all other attributes of `compare.gpkg`.
    """
    return not {"new", "old"}.isdisjoint(side) and not set(STATUS_COLOURS).isdisjoint(status)


def layers_of(one: VectorInput) -> list[GdalLayer]:
    """Return the layers of an input; of OpenStreetMap, that of its areas."""
    import pyogrio

    if str(one.path).startswith("CSV:"):
        return [GdalLayer(one, None, "Unknown")]
    with pyogrio_options(one.config):
        if "json" in Path(one.path).name.lower():
            # GDAL parses the whole file each time that it opens it.
            info = dict(pyogrio.read_info(one.path))
            if info["driver"] in ("GeoJSON", "GeoJSONSeq"):
                layer = GdalLayer(one, info["layer_name"], info["geometry_type"])
                layer._info = info
                return [layer]
        listed = [(str(name), kind) for name, kind in pyogrio.list_layers(one.path)]
    if {"points", _OSM_LAYER, "other_relations"} <= {name for name, _ in listed}:
        return [GdalLayer(one, _OSM_LAYER, "MultiPolygon")]
    return [GdalLayer(one, name, kind) for name, kind in listed]


class GdalLayer:
    """A layer that GDAL reads.

    Args:
        source: What is opened.
        layer: Name of the layer; None for the only one.
        kind: GDAL's name of its geometry type; None without geometry.
    """

    def __init__(self, source: VectorInput, layer: str | None, kind: str | None) -> None:
        self.source = source
        self.kind = kind
        self.notes: tuple[str, ...] = ()
        self._layer = layer
        self._path = Path(source.path)
        self._is_geojson = self._path.suffix.lower() in GEOJSON and self._path.is_file()

    @property
    def name(self) -> str:
        return self._layer or self._path.stem

    def _described(self, **options: Any) -> dict[str, Any]:
        import pyogrio

        options |= {"layer": self._layer, **self.source.options}
        with pyogrio_options(self.source.config):
            return dict(pyogrio.read_info(self.source.path, **options))

    def _rows(self, **options: Any) -> tuple[Any, ...]:
        """Return metadata, ids, geometries and columns of this layer or of the one in options."""
        import pyogrio

        options = {"layer": self._layer, **self.source.options, **options}
        with pyogrio_options(self.source.config):
            return (*pyogrio.raw.read(self.source.path, **options),)

    @cached_property
    def _info(self) -> dict[str, Any]:
        return self._described()

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self._info["fields"] if name != self.source.ewkb)

    @cached_property
    def crs(self) -> CRS | None:
        """CRS that the layer states."""
        if self.source.ewkb is not None:
            return self._of_ewkb[1]
        stated = self.source.crs or self._info["crs"] or self.source.epsg
        return None if stated is None else CRS.from_user_input(stated)

    @property
    def in_pixels(self) -> bool:
        """Whether a GeoJSON states that it is in pixels of an image, as rooftrace writes it.

        Software that moves such a file to a place on the ground adds a member `crs`.
        """
        metadata = self._info["layer_metadata"] or {}
        return metadata.get("DESCRIPTION") == IN_PIXELS and self.source.crs is None

    @cached_property
    def _of_ewkb(self) -> tuple[Polygons, CRS | None]:
        """Geometries of a table with EWKT or hexadecimal (E)WKB, and their CRS."""
        return geometry_of_ewkb(self._column(str(self.source.ewkb)))

    def _column(self, field: str, **rows: Any) -> NDArray[Any]:
        """Return the values of an attribute."""
        return np.asarray(self._rows(columns=[field], read_geometry=False, **rows)[3][0])

    @property
    def has_fids(self) -> bool:
        column = self._info["fid_column"]
        return self._is_geojson or (bool(column) and column not in self.fields)

    def has_polygons(self) -> bool:
        if self.source.ewkb is not None:
            return True
        kinds = shapely.get_type_id(_closed(self._rows(columns=[], force_2d=True)[2])[0])
        return bool(np.isin(kinds, POLYGONAL).any())

    def distinct(self, field: str) -> set[object]:
        """Return the values of an attribute."""
        return set(self._column(field).tolist())

    @property
    def has_chunks(self) -> bool:
        return self._path.suffix.lower() in _WITH_RANDOM_ACCESS

    def chunks(self, fields: Sequence[str]) -> Iterator[Rows]:
        """Yield all rows, in chunks where a record is found by its number."""
        if not self.has_chunks:
            yield self.read(fields)
            return
        count = int(self._described(force_feature_count=True)["features"])
        # The file is walked from its beginning to each chunk, so that there are few chunks.
        rows = max(_CHUNK_ROWS, -(-count // _MOST_CHUNKS))
        for first in range(0, max(count, 1), rows):
            yield self.read(fields, first, rows)

    def read(self, fields: Sequence[str], first: int = 0, rows: int | None = None) -> Rows:
        """Read some rows; default: all."""
        if self._path.suffix.lower() == ".gpkg" and not first:
            _check_database(self._path)
        with_fids = "fid" in fields and "fid" not in self.fields
        fields = [name for name in fields if not (with_fids and name == "fid")]
        meta, fids, wkb, columns = self._rows(
            columns=fields, force_2d=True, skip_features=first, max_features=rows,
            datetime_as_string=True, return_fids=True, where=self.source.where,
        )  # fmt: skip
        # GDAL returns columns in the order of the file.
        values = {
            str(name): _declared_column(column, str(kind))
            for name, column, kind in zip(meta["fields"], columns, meta["dtypes"])
        }
        # Large integers beside nulls have gone through floats, which round them.
        for name, column in values.items():
            if isinstance(column, np.ma.MaskedArray) and (abs(column) >= _EXACT_FLOATS).any():
                known = ~np.ma.getmaskarray(column)
                column[known] = self._column(name, fids=fids[known])
        table = str(self.source.path).partition("CSV:")[2]
        if table and not Path(table).with_suffix(".csvt").exists():
            values = {name: _numbers_of(column) for name, column in values.items()}
        if with_fids:
            # GDAL numbers the features of a GeoJSON without ids by their rows.
            of_rows = self._is_geojson and not has_ids(self._path)
            values["fid"] = np.ma.MaskedArray(fids, of_rows)
        if self.source.ewkb is not None:
            (geometry, crs), closed = self._of_ewkb, 0
        elif wkb is None:
            raise DataError(
                f"{self._path.name} has no column geometry with polygons.",
                remedy=f"Give outlines, such as a column of WKT. {FOR_POINTS}",
            )
        else:
            (geometry, closed), crs = _closed(wkb), self.crs
        if "other_relations" in self.source.beside:
            geometry, values = self._with_relations(geometry, values)
        if "points" in self.source.beside:
            _, nodes, _, _ = self._tagged("points", [], _HAS_BUILDING_TAG, read_geometry=False)
            if len(nodes):
                self.notes = (building_nodes_note(self._path.name, len(nodes)),)
        # GDAL takes a .prj of the same name, which may belong to a Shapefile.
        unplaced = crs is None or (crs.is_projected and self.source.ewkb is None)
        if unplaced and str(self.source.path).startswith("CSV:") and can_be_degrees(geometry):
            crs = CRS.from_epsg(4326)
            if not {*_LONLAT_COLUMNS} <= {*self.fields}:
                self.notes = (
                    f"{self._path.name} has no coordinate system: read as longitude and latitude.",
                )
        return crs, geometry, values, closed

    def _tagged(self, layer: str, fields: list[str], where: str, **options: Any) -> tuple[Any, ...]:
        """Read the rows of another layer of OpenStreetMap."""
        return self._rows(layer=layer, columns=fields, where=where, return_fids=True, **options)

    def _with_relations(self, geometry: Polygons, values: Values) -> tuple[Polygons, Values]:
        """Return buildings with those of relations of type building that they do not show yet.

        GDAL (3.12) makes areas of multipolygons and boundaries alone. Of a relation whose outline
        has no tag, it has the ways without their roles, of the outline and of parts inside.
        https://wiki.openstreetmap.org/wiki/Relation:building
        """
        where = f"type = 'building' AND {_HAS_BUILDING_TAG}"
        meta, _, wkb, columns = self._tagged("other_relations", ["osm_id", "other_tags"], where)
        of = dict(zip(meta["fields"].tolist(), columns))
        outlines = _object_array([_around(one) for one in shapely.from_wkb(wkb)])
        tree, added = shapely.STRtree(geometry), np.zeros(len(outlines), np.bool_)
        for number, outline in enumerate(outlines):
            shown = shapely.make_valid(geometry[tree.query(outline, "intersects")])
            common = shapely.area(shapely.intersection(outline, shapely.union_all(shown)))
            added[number] = common < shapely.area(outline) / 2
        rows = {name: np.full(int(added.sum()), None, np.object_) for name in values}
        tags = [_BUILDING_TAG.search(text) for text in of["other_tags"][added]]
        known = {"osm_id": of["osm_id"][added], "building": [tag and tag[1] for tag in tags]}
        for name in known.keys() & rows:
            rows[name][:] = known[name]
        return np.concatenate([geometry, outlines[added]]), {
            name: np.concatenate([column, rows[name]]) for name, column in values.items()
        }


def _around(members: Any) -> Any:
    """Return the area that the ways of a relation surround."""
    parts = shapely.get_parts(members)
    areas = shapely.make_valid(parts[shapely.get_dimensions(parts) == 2])
    return shapely.union_all([*areas, surrounded(parts[shapely.get_dimensions(parts) == 1])])


def geometry_of_ewkb(column: NDArray[np.object_]) -> tuple[Polygons, CRS | None]:
    r"""Return geometries of PostGIS's texts in two dimensions, and the CRS of their SRID.

    GDAL's driver for CSV (3.12) reads EWKT as no geometry, and leaves the SRID of EWKB out.
    https://postgis.net/docs/using_postgis_dbmanagement.html#EWKB_EWKT

    Args:
        column: (n,) texts, each hexadecimal WKB or EWKB, also after `\x`, or WKT after `SRID=n;`.

    Raises:
        DataError: The SRIDs differ.
        CRSError: EPSG does not have theirs.
    """
    texts = [(text or "").strip().removeprefix("\\x") for text in column.tolist()]
    ends = [text.rpartition(";") for text in texts]
    geometry = _object_array(
        [
            shapely.from_wkb(text) if text[:1] in ("0", "1") else shapely.from_wkt(wkt or None)
            for text, (_, _, wkt) in zip(texts, ends)
        ]
    )
    stated = [int(head[5:]) if head else 0 for head, _, _ in ends]
    srids = sorted({*stated, *shapely.get_srid(geometry).tolist()} - {-1, 0})
    if len(srids) > 1:
        raise DataError(
            f"The polygons have the SRIDs {list_first(srids, 3)}; expected one.",
            remedy="Transform them where they come from: ST_Transform(geom, 4326)",
        )
    return _two_dimensional(geometry), CRS.from_epsg(srids[0]) if srids else None


class ParquetFile:
    """A file of GeoParquet."""

    has_fids = False
    has_chunks = True
    in_pixels = False
    kind: str | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def fields(self) -> tuple[str, ...]:
        return tuple(n for n in _parquet_schema(self._path).names if n not in self._geometry_names)

    def distinct(self, field: str) -> set[object]:
        """Return the values of an attribute."""
        from pyarrow import parquet

        return set(parquet.read_table(self._path, columns=[field])[field].unique().to_pylist())

    def read(self, fields: Sequence[str]) -> Rows:
        """Read all rows."""
        column = self._geometry_column["name"]
        import geopandas as gpd
        from pyarrow import parquet

        table = gpd.read_parquet(self._path, columns=[column])
        attributes = parquet.read_table(self._path, columns=list(fields))
        values = {name: _arrow_column(attributes.column(name)) for name in fields}
        return table.crs, _two_dimensional(table.geometry.to_numpy()), values, 0

    @cached_property
    def crs(self) -> CRS | None:
        """CRS that the file states: degrees on WGS 84 by default."""
        stated = self._geometry_column.get("crs", CRS84)
        return None if stated is None else CRS.from_user_input(stated)

    def chunks(self, fields: Sequence[str]) -> Iterator[Rows]:
        """Yield all rows in chunks."""
        from pyarrow import parquet

        column = self._geometry_column["name"]
        if self._geometry_column["encoding"] != "WKB":
            yield self.read(fields)
            return
        with parquet.ParquetFile(self._path) as file:
            if not file.metadata.num_rows:
                nothing_of = file.schema_arrow.empty_table()
                values = {name: _arrow_column(nothing_of.column(name)) for name in fields}
                yield self.crs, np.zeros(0, np.object_), values, 0
            for batch in file.iter_batches(_CHUNK_ROWS, columns=[column, *fields]):
                wkb = batch.column(column).to_numpy(zero_copy_only=False)
                values = {name: _arrow_column(batch.column(name)) for name in fields}
                yield self.crs, _two_dimensional(shapely.from_wkb(wkb)), values, 0

    @cached_property
    def _geometry_column(self) -> dict[str, Any]:
        """Description of the column with the polygons of a GeoParquet, with its name."""
        name = self._geo_metadata["primary_column"]
        return {**self._geo_metadata["columns"][name], "name": name}

    @cached_property
    def _geometry_names(self) -> set[str]:
        """Names of the columns that hold geometries, or bounds of geometries."""
        columns = self._geo_metadata["columns"]
        bounds = [one.get("covering", {}).get("bbox", {}).values() for one in columns.values()]
        return {*columns, *(str(place[0]) for edges in bounds for place in edges)}

    @cached_property
    def _geo_metadata(self) -> dict[str, Any]:
        metadata = (_parquet_schema(self._path).metadata or {}).get(b"geo")
        if metadata is None:
            raise ValueError("it has no geometry (no GeoParquet metadata)")
        known: dict[str, Any] = json.loads(metadata)
        return known


def _check_database(path: Path) -> None:
    """Raise sqlite3.DatabaseError if the pages of a GeoPackage are damaged.

    GDAL leaves out records of damaged pages without an error. The check takes a fifth of the time
    of reading: 0.2 of 1.1 s for 200,000 polygons in 43 MB.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(f"SQLite finds it damaged ({found})")


def _parquet_schema(path: Path) -> Any:
    with MissingExtraError.on_import("parquet", "Reading GeoParquet", "pyarrow"):
        from pyarrow import parquet
    return parquet.read_schema(path)


def can_be_degrees(geometry: Polygons) -> bool:
    """Return whether the coordinates of (n,) geometries are in the range of degrees."""
    xy = shapely.get_coordinates(geometry)
    return bool(len(xy)) and bool((np.abs(xy) <= (180, 90)).all())


def _two_dimensional(geometry: Polygons) -> Polygons:
    """Return (n,) geometries without heights and measures."""
    is_flat = (shapely.get_coordinate_dimension(geometry) <= 2).all()
    return _object_array(geometry if is_flat else shapely.force_2d(geometry))


def _closed(wkb: NDArray[np.object_]) -> tuple[Polygons, int]:
    """Return geometries with closed rings, and the number of those that had to be closed.

    GDAL passes on a ring of a GeoJSON that is not closed, and triangles of multipatches, which GEOS
    does not take.
    """
    geometry = _object_array(shapely.from_wkb(wkb, on_invalid="ignore"))
    missing = np.flatnonzero(shapely.is_missing(geometry))
    faces = [one and _FACES.sub(lambda face: _AS_POLYGONS[face[0]], one) for one in wkb[missing]]
    geometry[missing] = _object_array(shapely.from_wkb(faces, on_invalid="ignore"))
    missing = np.flatnonzero(shapely.is_missing(geometry))
    geometry[missing] = _object_array(shapely.from_wkb(wkb[missing], on_invalid="fix"))
    return geometry, int((~shapely.is_missing(geometry[missing])).sum())


def text_column(column: NDArray[Any]) -> NDArray[np.object_]:
    """Return values as text: null becomes "", and 3.0 (a 3 beside nulls) becomes "3"."""
    return _object_array([_text(value) for value in column.tolist()])


def typed_column(column: NDArray[Any]) -> NDArray[Any]:
    """Return integers, floats, booleans and times as they are, other values as texts or None."""
    if column.dtype.kind in "fbM" or column.dtype in _FIELD_INTEGERS:
        return column
    if column.dtype.kind in "iu":
        return column.astype(np.int64)
    return _object_array([None if _is_null(value) else _text(value) for value in column.tolist()])


def _declared_column(column: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return the values of GDAL with the type of their field.

    GDAL's reader returns integers and booleans as floats where some are null, and times as texts.
    """
    if kind.startswith(("int", "uint", "bool")) and column.dtype.kind == "f":
        missing = np.isnan(column)
        return np.ma.masked_array(np.where(missing, 0, column).astype(kind), missing)
    if kind.startswith("datetime64") and column.dtype.kind == "O":
        with suppress(ValueError, OverflowError):
            return np.array([_moment(text) for text in column.tolist()], kind)
    return column


def _numbers_of(texts: NDArray[Any]) -> NDArray[Any]:
    """Return a column of a CSV as numbers if all of its texts are numbers; empty ones are null.

    Ids keep what numbers lose: leading zeros, digits beyond 18, and the last of 4.1 and 4.10.
    """
    rows = [text or None for text in texts.tolist()]
    known = [text for text in rows if text]
    if not known or not all(isinstance(one, str) and _NUMBER.fullmatch(one) for one in known):
        return texts
    decimals = {text.lstrip("-0123456789") for text in known}
    if len({*map(len, decimals)}) > 1 and any(one.endswith("0") for one in decimals - {".0"}):
        return texts
    if decimals != {""}:
        return np.array([float(text or "nan") for text in rows])
    return np.ma.masked_array([int(one or 0) for one in rows], [not one for one in rows], np.int64)


def _moment(text: str | None) -> datetime | None:
    """Return the time of an ISO 8601 text, without its offset: that of UTC where it states one."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _arrow_column(column: Any) -> NDArray[Any]:
    """Return the values of a column of pyarrow; see `VectorFile.read` for their types."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_timestamp(kind):
        # The numbers of a timestamp with a zone are those of UTC.
        return np.asarray(column.cast(pa.timestamp("ms", kind.tz), safe=False)).astype("M8[ms]")
    if pa.types.is_date(kind):
        return np.asarray(column.cast(pa.date32())).astype("M8[D]")
    if pa.types.is_floating(kind):
        return np.asarray(column)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        missing = np.asarray(column.is_null())
        filled = column.fill_null(pa.scalar(0).cast(kind))
        values = np.asarray(filled).astype(kind.to_pandas_dtype())
        return np.ma.masked_array(values, missing) if missing.any() else values
    return np.asarray(column.to_pandas().to_numpy(dtype=object))


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        # A list in a GeoJSON.
        return str(value.tolist())
    if _is_null(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _is_null(value: Any) -> bool:
    return value is None or (not isinstance(value, np.ndarray) and bool(value != value))


def _object_array(items: Any) -> NDArray[np.object_]:
    """Return (n,) objects as they are: numpy would turn lists of one length into a table."""
    made = np.empty(len(items), np.object_)
    made[:] = items
    return made
