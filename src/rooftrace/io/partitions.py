"""A layer of polygons as GeoParquet, one file for each tile of Web Mercator, and a manifest.

    buildings/quadkey=12022000/buildings.parquet
    manifest.json

The folders follow Hive, so that DuckDB, Spark and pyarrow read `quadkey` as a column and skip files
that a query does not need. Rows follow the Z-order curve and have bounds.

GeoParquet 1.1: https://geoparquet.org/releases/v1.1.0/
"""

from __future__ import annotations

import hashlib
import json
import pickle  # nosec B403
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.arrays import nulls
from rooftrace.core.errors import MissingExtraError
from rooftrace.core.types import Ints, Polygons
from rooftrace.io.files import exporting, replacing, write_atomically
from rooftrace.io.reproject import CRS84
from rooftrace.io.web_mercator import morton_codes, quadkeys

_EDGES = ("xmin", "ymin", "xmax", "ymax")

Columns = Mapping[str, NDArray[Any]]


def write_parquet(
    path: Path, crs: CRS | None, parts: Iterable[tuple[Polygons, Columns]], *, kinds: Sequence[str]
) -> None:
    """Write the chunks of a layer, each as a row group, with the bounds of every geometry.

    Args:
        crs: Coordinate system of the geometry, or None.
        parts: One or more chunks: geometry (n,) and (n,) values of each column. NaN, NaT and
            masked values are null.
        kinds: Geometry types that may occur.

    Raises:
        ImportError: pyarrow is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # In the header, where readers of Arrow expect it. It cannot hold the extent, which is not known
    # yet; the statistics of the bounds give it.
    column = {
        "encoding": "WKB",
        # Without this key readers would assume longitude and latitude.
        "crs": None if crs is None else crs.to_json_dict(),
        "geometry_types": list(kinds),
        "covering": {"bbox": {edge: ["bbox", edge] for edge in _EDGES}},
    }
    metadata = {
        "geo": json.dumps(
            {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        )
    }
    tables = (_table(pa, *part).replace_schema_metadata(metadata) for part in parts)
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        for table in chain([first], tables):
            if len(table):
                writer.write_table(table, row_group_size=len(table))


def _table(pa: Any, geometry: Polygons, columns: Columns) -> Any:
    bounds = shapely.bounds(geometry).reshape(-1, 4).astype(np.float64)
    made = {name: _column(pa, values) for name, values in columns.items()}
    made["geometry"] = pa.array(shapely.to_wkb(geometry), pa.binary())
    made["bbox"] = pa.StructArray.from_arrays([pa.array(edge) for edge in bounds.T], _EDGES)
    return pa.table(made)


def _column(pa: Any, values: NDArray[Any]) -> Any:
    made = pa.array(np.ma.getdata(values), mask=nulls(values))
    # Texts that are all unknown; other parts of the layer may have some.
    return made.cast(pa.string()) if pa.types.is_null(made.type) else made


MANIFEST, OBSERVED = "manifest.json", "observed.gpkg"
"""Names of the manifest, and of the layer of the ground that was observed."""

_LAYER = "buildings"
_TEMPORARY = ".partitions."
_FINE_ZOOM = 23
"""Zoom level of the tiles (5 m and less) that order and name rows."""

_GROUP_ROWS = 50_000
_MAX_IN_MEMORY = 200_000
"""Number of polygons after which memory is written to temporary files."""


class PartitionedLayer:
    """Writer that takes polygons in any order and writes one file per tile, in a `with` block.

    A polygon belongs to the tile of a point on its surface. Memory holds the latest polygons and,
    at the end, those of one tile. The same polygons give the same bytes in any order. Only one
    process may write to a folder.

    Args:
        out: Output folder; it is created if necessary.
    """

    def __init__(self, out: Path, level: int) -> None:
        self._out = out
        self._level = level
        self._parts: list[tuple[Polygons, Columns]] = []
        self._waiting = 0
        self._spilled: defaultdict[str, int] = defaultdict(int)

    def __enter__(self) -> PartitionedLayer:
        with MissingExtraError.on_import("parquet", "A catalogue", "pyarrow"):
            import pyarrow.parquet  # noqa: F401
        with exporting(self._out):
            self._out.mkdir(parents=True, exist_ok=True)
            # What a killed run left; the caller excludes other writers.
            for folder in self._out.glob(f"{_TEMPORARY}*"):
                shutil.rmtree(folder, ignore_errors=True)
            name = Path(MANIFEST)
            for file in (
                *self._out.glob(f".{name.stem}.*.part{name.suffix}"),
                *self._out.glob(f"{_LAYER}/quadkey=*/.{_LAYER}.*.part.parquet"),
            ):
                file.unlink(missing_ok=True)
            self._temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._out))
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)

    def add(self, geometry: Polygons, columns: Columns) -> None:
        """Add polygons.

        Args:
            geometry: (n,) polygons in degrees of longitude and latitude.
            columns: (n,) values of each column, the same columns in every call; texts as objects.

        Raises:
            ExportError: there is no space left.
        """
        self._parts.append((geometry, columns))
        self._waiting += len(geometry)
        if self._waiting >= _MAX_IN_MEMORY:
            self._spill()

    def finish(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Write all files, then the manifest, and delete other files of an earlier layer.

        Returns:
            The manifest.
        """
        with exporting(self._out):
            self._spill()
            made = [self._write(quadkey) for quadkey in sorted(self._spilled)]
            kept = {partition["path"] for partition in made}
            manifest = {
                "schema_version": 1,
                "crs": "OGC:CRS84",
                "layer": _LAYER,
                "quadkey_level": self._level,
                "rows": sum(partition["rows"] for partition in made),
                **properties,
                "partitions": made,
            }
            # Written before old files are deleted, so that a reader always finds all its files.
            text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
            write_atomically(self._out / MANIFEST, text.encode())
            for path in sorted((self._out / _LAYER).glob("quadkey=*/*.parquet")):
                if path.relative_to(self._out).as_posix() not in kept:
                    path.unlink()
                    path.parent.rmdir()
        return manifest

    def _spill(self) -> None:
        """Write the polygons in memory to temporary files by tile."""
        if not self._waiting:
            self._parts.clear()
            return
        geometry, columns = _joined(self._parts)
        self._parts.clear()
        self._waiting = 0
        numbers = _tile_codes(geometry, self._level)
        order = np.argsort(numbers, kind="stable")
        starts = np.flatnonzero(np.append(True, np.diff(numbers[order]) != 0))
        for own in np.split(order, starts[1:]):
            quadkey = str(quadkeys(numbers[own[:1]], self._level)[0])
            number = self._spilled[quadkey]
            self._spilled[quadkey] += 1
            part = geometry[own], {name: values[own] for name, values in columns.items()}
            with (self._temporary / f"{quadkey}.{number}").open("wb") as file:
                pickle.dump(part, file, pickle.HIGHEST_PROTOCOL)

    def _write(self, quadkey: str) -> dict[str, Any]:
        """Write the file of a tile, and return its entry in the manifest."""
        parts = []
        for number in range(self._spilled[quadkey]):
            with (self._temporary / f"{quadkey}.{number}").open("rb") as file:
                # This object wrote it, into a folder of its own.
                parts.append(pickle.load(file))  # noqa: S301  # nosec B301
        geometry, columns = _joined(parts)
        fine = _tile_codes(geometry, _FINE_ZOOM)
        # Polygons of one tile are ordered by their bytes.
        order = np.lexsort((shapely.to_wkb(geometry), fine))
        geometry, fine = geometry[order], fine[order]
        # Further polygons in one tile get a number.
        names = quadkeys(fine, _FINE_ZOOM).astype(object)
        first = np.searchsorted(fine, fine)
        for index in np.flatnonzero(first != np.arange(len(fine))).tolist():
            names[index] = f"{names[index]}-{index - int(first[index]) + 1}"
        columns = {"id": np.asarray(names, np.object_)} | {
            name: values[order] for name, values in columns.items()
        }
        path = self._out / _LAYER / f"quadkey={quadkey}" / f"{_LAYER}.parquet"
        with replacing(path) as partial:
            write_parquet(partial, CRS84, _groups(geometry, columns), kinds=("Polygon",))
        data = path.read_bytes()
        return {
            "quadkey": quadkey,
            "path": path.relative_to(self._out).as_posix(),
            "rows": len(geometry),
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "bounds": shapely.total_bounds(geometry).tolist(),
        }


def _tile_codes(geometry: Polygons, level: int) -> Ints:
    """Return (n,) the Morton code of the tile of each polygon."""
    places = shapely.get_coordinates(shapely.point_on_surface(geometry))
    return morton_codes(places[:, 0], places[:, 1], level)


def _groups(geometry: Polygons, columns: Columns) -> Iterator[tuple[Polygons, Columns]]:
    for start in range(0, len(geometry), _GROUP_ROWS):
        rows = slice(start, start + _GROUP_ROWS)
        yield geometry[rows], {name: values[rows] for name, values in columns.items()}


def _joined(parts: Sequence[tuple[Polygons, Columns]]) -> tuple[Polygons, Columns]:
    geometry = np.concatenate([geometry for geometry, _ in parts])
    names = list(parts[0][1])
    return geometry, {
        name: np.concatenate([columns[name] for _, columns in parts]) for name in names
    }
