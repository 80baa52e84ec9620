"""Vector formats: `WRITERS` holds the function that writes a layer to each of them, chunk by chunk.

`ShapefileLimits` checks what a Shapefile cannot hold before it is written (ESRI Shapefile Technical
Description, 1998, and the dBASE tables beside it). PMTiles hold every polygon at the highest zoom;
GDAL rounds vertices there, so the zoom follows the pixels and thin outlines are widened.
"""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from math import ceil, cos, floor, log2, radians
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import IO, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ExportError, MissingExtraError
from rooftrace.core.names import layer_name
from rooftrace.core.types import Ints
from rooftrace.io.gdal import QUIET, pyogrio_options
from rooftrace.io.make_valid import rounded
from rooftrace.io.partitions import nulls, write_parquet
from rooftrace.io.reproject import CRS84, split_at_180, transform_points
from rooftrace.io.web_mercator import WORLD_M, latitude_of, web_mercator

Boxes = NDArray[np.float32]

_NODE_ENTRIES = 51
"""Entries of a node in a database with pages of 2 KB or more."""

_NODE = np.dtype(
    [
        ("depth", ">u2"),
        ("count", ">u2"),
        ("entry", [("id", ">i8"), ("box", ">f4", 4)], _NODE_ENTRIES),
    ]
)
_ROOT = 1
_ROWS_AT_ONCE = 50_000


def fill_rtree(file: sqlite3.Connection, name: str, box: Boxes) -> None:
    """Fill an empty R-tree of two dimensions in one pass; row by row takes eight times as long.

    The nodes are those of sort-tile-recursive packing (Leutenegger, Lopez and Edgington 1997,
    doi:10.1109/ICDE.1997.582015), in the format described at
    https://www.sqlite.org/rtree.html#shadow_tables and at the top of SQLite's rtree.c.

    Args:
        file: Database that holds the R-tree.
        name: Name of the virtual table.
        box: (n, 4) boxes of the rows 1 to n, as `outward_boxes` returns them.

    Raises:
        sqlite3.Error: the table does not exist.
        ValueError: the nodes of the table have another size.
    """
    table = _quoted(name)
    node, rowid, parent = (f'{table[:-1]}_{kind}"' for kind in ("node", "rowid", "parent"))
    # SQLite takes no name of a table as a parameter, so the names are quoted above.
    (size,) = file.execute(f"SELECT length(data) FROM {node}").fetchone()  # noqa: S608  # nosec B608
    if size != _NODE.itemsize:
        raise ValueError(f"nodes of {name} have {size} bytes, {_NODE.itemsize} were expected")
    number = np.arange(1, len(box) + 1)
    depth, next_node = 0, _ROOT + 1
    while len(number) > _NODE_ENTRIES:
        order, starts = _packed(box)
        made = next_node + np.arange(len(starts) - 1)
        owner = np.empty(len(number), np.int64)
        owner[order] = np.repeat(made, np.diff(starts))
        table_of = rowid if depth == 0 else parent
        for start in range(0, len(number), _ROWS_AT_ONCE):
            # As lists, they take several times as much memory.
            rows = slice(start, start + _ROWS_AT_ONCE)
            file.executemany(
                f"INSERT INTO {table_of} VALUES (?, ?)",  # noqa: S608  # nosec B608
                zip(number[rows].tolist(), owner[rows].tolist()),
            )
        del owner
        file.executemany(
            f"INSERT INTO {node} VALUES (?, ?)",  # noqa: S608  # nosec B608
            zip(made.tolist(), _nodes(number[order], box[order], starts)),
        )
        low = np.minimum.reduceat(box[order, 0::2], starts[:-1])
        high = np.maximum.reduceat(box[order, 1::2], starts[:-1])
        box = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
        number, next_node, depth = made, next_node + len(made), depth + 1
    file.executemany(
        f"INSERT INTO {rowid if depth == 0 else parent} VALUES (?, {_ROOT})",  # noqa: S608  # nosec B608
        ((one,) for one in number.tolist()),
    )
    (root,) = _nodes(number, box, np.array([0, len(number)]), depth)
    file.execute(f"REPLACE INTO {node} VALUES ({_ROOT}, ?)", (root,))  # noqa: S608  # nosec B608


def outward_boxes(bounds: NDArray[np.float64]) -> Boxes:
    """Return (n, 4) smallest and largest x, then y, in single precision and never smaller boxes.

    Args:
        bounds: (n, 4) left, bottom, right and top.
    """
    near = bounds.astype(np.float32)
    low = np.where(near > bounds, np.nextafter(near, np.float32(-np.inf)), near)[:, :2]
    high = np.where(near < bounds, np.nextafter(near, np.float32(np.inf)), near)[:, 2:]
    return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)


def _packed(box: Boxes) -> tuple[Ints, Ints]:
    """Return an order in which neighbours follow each other, and the boundaries of its nodes.

    The order goes by slices from left to right, and in each slice from bottom to top. A slice has
    about as many nodes as there are slices.
    """
    count = -(-len(box) // _NODE_ENTRIES)
    slices = int(np.ceil(np.sqrt(count)))
    across = np.argsort(box[:, 0] + box[:, 1], kind="stable")
    part = np.empty(len(box), np.int64)
    part[across] = np.arange(len(box)) // (_NODE_ENTRIES * slices)
    order = np.lexsort((box[:, 2] + box[:, 3], part))
    return order, np.linspace(0, len(box), count + 1).astype(np.int64)


def _nodes(number: Ints, box: Boxes, starts: Ints, depth: int = 0) -> Iterator[bytes]:
    """Yield each node in the format of the file; only the root holds the depth of the tree."""
    size = np.diff(starts)
    nodes = np.zeros(len(size), _NODE)
    nodes["depth"], nodes["count"] = depth, size
    which = np.repeat(np.arange(len(size)), size)
    place = np.arange(len(number)) - starts[which]
    nodes["entry"]["id"][which, place] = number
    nodes["entry"]["box"][which, place] = box
    return (one.tobytes() for one in nodes)


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


_DATE = "1970-01-01T00:00:00.000Z"
"""Date of the last change in every GeoPackage, so that its bytes do not depend on the time."""

_GEOPACKAGE_VERSION = "1.2"
"""Version of the format of GeoPackages. GDAL 3.6 warns of version 1.4, which GDAL 3.12 writes by
default."""

_CONFIGURED = {
    "OGR_CURRENT_DATE": _DATE,
    # The file gets its name when it is complete, so single transactions need not be synchronised.
    "OGR_SQLITE_SYNCHRONOUS": "OFF",
}

_WRITING = Lock()
"""Lock for warning filters and GDAL options, which belong to the whole process."""

# RFC 7946 has no member for this: a file without longitude and latitude states it in a text.
IN_PIXELS = "Coordinates are pixels of the image (x right, y down), not longitude and latitude."
"""Member `description` of a GeoJSON in pixels, by which it is also read."""

_PIXEL_DIGITS = 10
"""Decimal places of pixels; regularized outlines have corners on multiples of 1/1024."""


@dataclass(frozen=True)
class LayerChunk:
    """Some polygons of a layer.

    Args:
        geometry: (n,) shapely polygons, or multipolygons.
        columns: (n,) values of each column; all chunks have the same columns.
    """

    geometry: NDArray[np.object_]
    columns: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class EncodedChunk:
    """Some polygons of a layer as a GeoPackage of their own, see `encode_chunk`; picklable.

    Args:
        content: Bytes of the file.
        boxes: `outward_boxes` of the polygons.
        crs: Coordinate system of the polygons.
    """

    content: bytes
    boxes: Boxes
    crs: CRS | None


@dataclass(frozen=True)
class LayerSettings:
    """Settings that all chunks of a layer share.

    Args:
        crs: Coordinate system of the geometry; None for pixels.
        digits: Decimal places of degrees in a GeoJSON.
        multi: True if there are multipolygons.
        name: Name of the layer in a GeoPackage; "" for the name of the file.
        gsd_m: Metres per pixel of the image, for the highest zoom of PMTiles; None if not known.
    """

    crs: CRS | None
    digits: int = 7
    multi: bool = False
    name: str = ""
    gsd_m: float | None = None


Writer = Callable[[Path, LayerSettings, Iterable[Any]], None]
"""Function that writes chunks: `LayerChunk`, for a GeoPackage also `EncodedChunk`."""


def _write_chunk(
    path: Path,
    layer: LayerSettings,
    part: LayerChunk,
    driver: str,
    *,
    append: bool = False,
    **options: str,
) -> None:
    encoded = np.asarray(shapely.to_wkb(part.geometry), np.object_)
    _write_wkb(path, layer, encoded, part.columns, driver, append=append, **options)


def _write_wkb(
    path: Path,
    layer: LayerSettings,
    encoded: NDArray[np.object_],
    columns: Mapping[str, NDArray[Any]],
    driver: str,
    *,
    append: bool = False,
    **options: str,
) -> None:
    """Write a chunk whose polygons are WKB (n,)."""
    # Imported only here: it imports pandas and pyarrow if they are installed, 130 MB that would
    # occupy memory beside the network all the time.
    import pyogrio

    crs = None if layer.crs is None else layer.crs.to_wkt()
    with _WRITING, QUIET, warnings.catch_warnings(), pyogrio_options(_CONFIGURED):
        # Footprints without a CRS are intended.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        warnings.filterwarnings("ignore", message="No SRS set on layer")
        try:
            pyogrio.raw.write(
                path,
                geometry=encoded,
                field_data=[np.ma.getdata(values) for values in columns.values()],
                fields=list(columns),
                field_mask=[nulls(values) for values in columns.values()],
                geometry_type="MultiPolygon" if layer.multi else "Polygon",
                promote_to_multi=layer.multi,
                # GDAL assumes WGS 84 for lines of GeoJSON and warns if no CRS is given. Outside
                # pyogrio's own thread the warning would go to stderr.
                crs="EPSG:4326" if crs is None and driver == "GeoJSONSeq" else crs,
                driver=driver,
                layer=layer.name or None,
                append=append,
                **options,
            )
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise OSError(str(error)) from error


def encode_chunk(path: Path, layer: LayerSettings, part: LayerChunk) -> EncodedChunk:
    """Return a chunk of a GeoPackage; any process may do it.

    Args:
        path: GeoPackage that the chunk is for; it need not exist.
        layer: Settings of the layer.
        part: The chunk.
    """
    with TemporaryDirectory() as folder:
        made = Path(folder) / "part.gpkg"
        boxes = _write_features(made, replace(layer, name=layer_name(path.stem)), part)
        return EncodedChunk(made.read_bytes(), boxes, layer.crs)


def _write_features(path: Path, layer: LayerSettings, part: LayerChunk) -> Boxes:
    """Write a GeoPackage without a spatial index, and return the boxes of its features."""
    _write_chunk(path, layer, part, "GPKG", SPATIAL_INDEX="NO", VERSION=_GEOPACKAGE_VERSION)
    return outward_boxes(shapely.bounds(part.geometry).astype(np.float64))


def _geopackage(
    path: Path, layer: LayerSettings, parts: Iterable[LayerChunk | EncodedChunk]
) -> None:
    """Write the first chunk, append the others, and add the spatial index at the end.

    Each chunk is written as a file of its own, whose rows SQLite copies. GDAL takes six times as
    long for them, and to an appended layer it adds the index feature by feature, which takes three
    times as long as writing the features.
    """
    boxes: list[Boxes] = []
    layer = replace(layer, name=layer_name(path.stem))
    for part in parts:
        target = path.with_name(f"{path.stem}.part.gpkg") if boxes else path
        if isinstance(part, EncodedChunk):
            target.write_bytes(part.content)
            own = part.boxes
        else:
            own = _write_features(target, layer, part)
        if boxes:
            _append(path, layer.name, target, sum(map(len, boxes)))
            target.unlink()
        boxes.append(own)
    _add_index(path, layer, boxes)


def _append(path: Path, table: str, part: Path, rows: int) -> None:
    """Append the rows of a GeoPackage to another one with the same columns.

    Args:
        path: GeoPackage without a spatial index.
        table: Name of the layer in both.
        part: GeoPackage whose rows are copied.
        rows: Number of rows of `path`.
    """
    name = _quoted(table)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as file:
            file.execute("PRAGMA synchronous = OFF")
            file.execute("PRAGMA journal_mode = OFF")
            file.execute("ATTACH ? AS part", (str(part),))
            # GDAL's triggers count each row.
            triggers = file.execute(
                "SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ?",
                (table,),
            ).fetchall()
            for trigger, _ in triggers:
                file.execute(f"DROP TRIGGER {_quoted(trigger)}")
            number, *columns = (
                _quoted(row[1]) for row in file.execute(f"PRAGMA main.table_info({name})")
            )
            # SQLite takes no name of a table or column as a parameter.
            copied = file.execute(
                f"INSERT INTO main.{name} SELECT {', '.join([f'{number} + ?', *columns])} "  # noqa: S608  # nosec B608
                f"FROM part.{name} ORDER BY {number}",
                (rows,),
            ).rowcount
            for _, statement in triggers:
                file.execute(statement)
            file.execute("UPDATE main.gpkg_ogr_contents SET feature_count = ?", (rows + copied,))
            low, high = (
                ", ".join(
                    f"{one} = {which}(coalesce(c.{one}, p.{one}), coalesce(p.{one}, c.{one}))"
                    for one in (f"{which}_x", f"{which}_y")
                )
                for which in ("min", "max")
            )
            file.execute(
                f"UPDATE main.gpkg_contents AS c SET {low}, {high} "  # noqa: S608  # nosec B608
                "FROM part.gpkg_contents AS p"
            )
    except sqlite3.Error as error:
        raise OSError(f"the rows could not be copied: {error}") from error


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _add_index(path: Path, layer: LayerSettings, boxes: list[Boxes]) -> None:
    """Add the GeoPackage extension `gpkg_rtree_index` in the same form as GDAL.

    Args:
        path: GeoPackage without an index.
        layer: Settings of its layer.
        boxes: `outward_boxes` of all features, chunk by chunk; the list is emptied.
    """
    empty = path.parent / "index" / path.name
    empty.parent.mkdir()
    nothing = LayerChunk(np.zeros(0, np.object_), {})
    _write_chunk(empty, layer, nothing, "GPKG", VERSION=_GEOPACKAGE_VERSION)
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
    box = np.concatenate(boxes)
    boxes.clear()
    try:
        with closing(sqlite3.connect(path)) as file, file:
            file.execute("PRAGMA synchronous = OFF")
            for (statement,) in statements:
                file.execute(statement)
            file.executemany("INSERT INTO gpkg_extensions VALUES (?, ?, ?, ?, ?)", extensions)
            fill_rtree(file, f"rtree_{table}_{column}", box)
    except sqlite3.Error as error:
        raise OSError(f"the spatial index could not be made: {error}") from error


def _geojson(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    """Write a FeatureCollection from the lines that GDAL writes by the rules of RFC 7946."""
    digits = layer.digits if layer.crs is not None else _PIXEL_DIGITS
    head = {"type": "FeatureCollection", "name": path.stem}
    if layer.crs is None:
        head["description"] = IN_PIXELS
    lines = path.with_suffix(".geojsonl")
    with path.open("wb") as file:
        members = (f"{json.dumps(key)}: {json.dumps(text)},\n" for key, text in head.items())
        file.write(f'{{\n{"".join(members)}"features": ['.encode())
        empty = True
        for part in parts:
            if len(part.geometry):
                part = replace(part, geometry=rounded(part.geometry, layer.crs, digits))
                _write_chunk(lines, layer, part, "GeoJSONSeq", COORDINATE_PRECISION=str(digits))
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


def _shapefile(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    limits = ShapefileLimits(path)
    for number, part in enumerate(parts):
        columns = limits.check(part.geometry, part.columns)
        _write_chunk(
            path, layer, LayerChunk(part.geometry, columns), "ESRI Shapefile", append=number > 0,
            ENCODING="UTF-8", DBF_DATE_LAST_UPDATE=_DATE[:10],
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
    _write_wkb(path, layer, encoded, columns, "FlatGeobuf")


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
    _write_chunk(
        path, replace(layer, crs=web_mercator(), multi=True, name=layer_name(path.stem)),
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
    ".gpkg": _geopackage,
    ".geojson": _geojson,
    ".fgb": _flatgeobuf,
    ".parquet": _parquet,
    ".shp": _shapefile,
    ".pmtiles": _pmtiles,
}

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
