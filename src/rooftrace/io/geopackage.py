"""GeoPackages: a layer written chunk by chunk, and its spatial index in one pass.

Chunks may be encoded in other processes: each is a GeoPackage of its own, whose rows are copied.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.types import Ints
from rooftrace.io.vector_layer import LayerChunk, LayerSettings, write_chunk

Boxes = NDArray[np.float32]

_VERSION = "1.2"
"""Version of the format. GDAL 3.6 warns of version 1.4, which GDAL 3.12 writes by default."""


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


def encode_chunk(path: Path, layer: LayerSettings, part: LayerChunk) -> EncodedChunk:
    """Return a chunk of a GeoPackage; any process may do it.

    Args:
        path: GeoPackage that the chunk is for; it need not exist.
        layer: Settings of the layer.
        part: The chunk.
    """
    with TemporaryDirectory() as folder:
        made = Path(folder) / "part.gpkg"
        boxes = _write_features(made, replace(layer, name=path.stem), part)
        return EncodedChunk(made.read_bytes(), boxes, layer.crs)


def _write_features(path: Path, layer: LayerSettings, part: LayerChunk) -> Boxes:
    """Write a GeoPackage without a spatial index, and return the boxes of its features."""
    write_chunk(path, layer, part, "GPKG", SPATIAL_INDEX="NO", VERSION=_VERSION)
    return outward_boxes(shapely.bounds(part.geometry).astype(np.float64))


def write_geopackage(
    path: Path, layer: LayerSettings, parts: Iterable[LayerChunk | EncodedChunk]
) -> None:
    """Write the first chunk, append the others, and add the spatial index at the end.

    Each chunk is written as a file of its own, whose rows SQLite copies. GDAL takes six times as
    long for them, and to an appended layer it adds the index feature by feature, which takes three
    times as long as writing the features.
    """
    boxes: list[Boxes] = []
    layer = replace(layer, name=path.stem)
    # In a folder, where their short names are free for any name of the layer.
    beside = path.parent / "beside"
    beside.mkdir()
    for part in parts:
        target = beside / "part.gpkg" if boxes else path
        if isinstance(part, EncodedChunk):
            target.write_bytes(part.content)
            own = part.boxes
        else:
            own = _write_features(target, layer, part)
        if boxes:
            _append(path, layer.name, target, sum(map(len, boxes)))
            target.unlink()
        boxes.append(own)
    _add_index(path, layer, boxes, beside / "index.gpkg")
    beside.rmdir()


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
            # Their columns are written out above.
            file.execute(
                f"UPDATE main.gpkg_contents AS c SET {low}, {high} "  # noqa: S608  # nosec B608
                "FROM part.gpkg_contents AS p"
            )
    except sqlite3.Error as error:
        raise OSError(f"the rows could not be copied: {error}") from error


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _add_index(path: Path, layer: LayerSettings, boxes: list[Boxes], empty: Path) -> None:
    """Add the GeoPackage extension `gpkg_rtree_index` in the same form as GDAL.

    Args:
        path: GeoPackage without an index.
        layer: Settings of its layer.
        boxes: `outward_boxes` of all features, chunk by chunk; the list is emptied.
        empty: File that is made on the way, and deleted.
    """
    nothing = LayerChunk(np.zeros(0, np.object_), {})
    write_chunk(empty, layer, nothing, "GPKG", VERSION=_VERSION)
    try:
        statements, extensions = _index_statements(empty)
        empty.unlink()
        table, column = extensions[0][:2]
        box = np.concatenate(boxes)
        boxes.clear()
        with closing(sqlite3.connect(path)) as file, file:
            file.execute("PRAGMA synchronous = OFF")
            for (statement,) in statements:
                # A coordinate system in WKT of 2019 has brought the table of extensions already.
                file.execute(statement.replace("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ", 1))
            file.executemany("INSERT INTO gpkg_extensions VALUES (?, ?, ?, ?, ?)", extensions)
            fill_rtree(file, f"rtree_{table}_{column}", box)
    except sqlite3.Error as error:
        raise OSError(f"the spatial index could not be made: {error}") from error


def _index_statements(empty: Path) -> tuple[list[Any], list[Any]]:
    """Return the statements of a layer's index, and its rows of the table of extensions.

    Raises:
        sqlite3.Error: The file cannot be read.
        OSError: It is not complete, as GDAL leaves it without a word on a full disk.
    """
    with closing(sqlite3.connect(empty)) as made:
        statements = made.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'gpkg_extensions' AND type = 'table' "
            "UNION ALL SELECT sql FROM sqlite_master WHERE name GLOB 'rtree_*' "
            "AND (type = 'trigger' OR sql GLOB 'CREATE VIRTUAL TABLE *')"
        ).fetchall()
        extensions = made.execute(
            "SELECT * FROM gpkg_extensions WHERE extension_name = 'gpkg_rtree_index'"
        ).fetchall()
    if not extensions:
        raise OSError("the spatial index could not be made: the disk may be full")
    return statements, extensions


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
