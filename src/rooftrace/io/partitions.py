"""A layer of polygons as GeoParquet, one file for each square of Web Mercator, and a manifest.

    buildings/quadkey=12022000/buildings.parquet
    manifest.json

The folders are Hive's, so that DuckDB, Spark and pyarrow read `quadkey` as a column and leave out
what a query does not ask for. Rows are along the Z-order curve, with the bounds of each.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import MissingExtraError
from rooftrace.io.atomic import export_error, replacing, write_atomically
from rooftrace.io.parquet import write_parquet
from rooftrace.io.quadkey import morton, quadkeys

__all__ = ["MANIFEST", "Partition", "PartitionedLayer"]

MANIFEST = "manifest.json"
_LAYER = "buildings"
_FINE = 23
"""Squares of 5 m and less, by which rows are ordered and called."""

_ROWS_TOGETHER = 50_000
_IN_MEMORY = 200_000
"""Polygons that wait before they are laid aside by squares."""

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Partition:
    """One file.

    Args:
        quadkey: of its square.
        path: from the manifest.
        rows, size_bytes, sha256: of the file.
        bounds: west, south, east, north of what is in it, in degrees.
    """

    quadkey: str
    path: str
    rows: int
    size_bytes: int
    sha256: str
    bounds: tuple[float, float, float, float]


class PartitionedLayer:
    """Takes polygons in any order, and writes them by squares. To be entered.

    A polygon belongs to the square of a point that is surely in it. What is held are some polygons
    that came last and, at the end, those of one square. The same polygons give the same bytes,
    whatever order they come in.

    Args:
        out: the folder; made where it is missing.
        level: of the squares' quadkeys.

    Raises:
        MissingExtraError: pyarrow is missing.
        ExportError: the folder cannot be written to.
    """

    def __init__(self, out: Path, level: int) -> None:
        self._out = out
        self._level = level
        self._parts: list[tuple[NDArray[np.object_], Columns]] = []
        self._waiting = 0
        self._laid: defaultdict[str, int] = defaultdict(int)

    def __enter__(self) -> PartitionedLayer:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise MissingExtraError.of("parquet", "A catalogue", "pyarrow") from error
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            self._aside = Path(tempfile.mkdtemp(prefix=".partitions.", dir=self._out))
        except OSError as error:
            raise export_error(self._out, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._aside, ignore_errors=True)

    def add(self, geometry: NDArray[np.object_], columns: Columns) -> None:
        """Take some polygons.

        Args:
            geometry: (n,) in degrees of longitude and latitude.
            columns: (n,) each, the same ones every time; texts as objects.

        Raises:
            ExportError: there is no room for them.
        """
        self._parts.append((geometry, columns))
        self._waiting += len(geometry)
        if self._waiting >= _IN_MEMORY:
            self._lay_aside()

    def finish(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Write all files, then the manifest; what an earlier layer had besides goes.

        Args:
            told: what the manifest says besides; plain data.

        Returns:
            The manifest.

        Raises:
            ExportError: the folder cannot be written to.
        """
        try:
            self._lay_aside()
            made = [self._write(quadkey) for quadkey in sorted(self._laid)]
            kept = {partition.path for partition in made}
            manifest = {
                "schema_version": 1,
                "crs": "OGC:CRS84",
                "layer": _LAYER,
                "quadkey_level": self._level,
                "rows": sum(partition.rows for partition in made),
                **told,
                "partitions": [asdict(partition) for partition in made],
            }
            # Before what it does not name is gone: who reads it finds all files.
            text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
            write_atomically(self._out / MANIFEST, text.encode())
            for path in sorted((self._out / _LAYER).glob("quadkey=*/*.parquet")):
                if path.relative_to(self._out).as_posix() not in kept:
                    path.unlink()
                    path.parent.rmdir()
        except OSError as error:
            raise export_error(self._out, error) from error
        return manifest

    def _lay_aside(self) -> None:
        """What has come since, by squares."""
        if not self._waiting:
            self._parts.clear()
            return
        geometry, columns = _joined(self._parts)
        self._parts.clear()
        self._waiting = 0
        numbers = _squares(geometry, self._level)
        order = np.argsort(numbers, kind="stable")
        starts = np.flatnonzero(np.append(True, np.diff(numbers[order]) != 0))
        for own in np.split(order, starts[1:]):
            quadkey = str(quadkeys(numbers[own[:1]], self._level)[0])
            number = self._laid[quadkey]
            self._laid[quadkey] += 1
            path = self._aside / f"{quadkey}.{number}.parquet"
            part = geometry[own], {name: values[own] for name, values in columns.items()}
            write_parquet(path, _CRS84, [part], kinds=("Polygon",))

    def _write(self, quadkey: str) -> Partition:
        parts = [
            _read(self._aside / f"{quadkey}.{number}.parquet")
            for number in range(self._laid[quadkey])
        ]
        geometry, columns = _joined(parts)
        fine = _squares(geometry, _FINE)
        # Of those that begin in one square, by what they are.
        order = np.lexsort((shapely.to_wkb(geometry), fine))
        geometry, fine = geometry[order], fine[order]
        columns = {"id": _names(fine)} | {name: values[order] for name, values in columns.items()}
        path = self._out / _LAYER / f"quadkey={quadkey}" / f"{_LAYER}.parquet"
        with replacing(path) as partial:
            write_parquet(partial, _CRS84, _groups(geometry, columns), kinds=("Polygon",))
        data = path.read_bytes()
        west, south, east, north = shapely.total_bounds(geometry).tolist()
        return Partition(
            quadkey, path.relative_to(self._out).as_posix(), len(geometry), len(data),
            hashlib.sha256(data).hexdigest(), (west, south, east, north),
        )  # fmt: skip


_CRS84 = CRS.from_user_input("OGC:CRS84")


def _squares(geometry: NDArray[np.object_], level: int) -> NDArray[np.int64]:
    """(n,) the square that each polygon belongs to, as `morton` numbers them."""
    places = shapely.get_coordinates(shapely.point_on_surface(geometry))
    return morton(places[:, 0], places[:, 1], level)


def _names(fine: NDArray[np.int64]) -> NDArray[np.object_]:
    """(n,) the quadkeys of sorted squares; of several in one, all but the first have a number."""
    names = quadkeys(fine, _FINE).astype(object)
    first = np.searchsorted(fine, fine)
    for index in np.flatnonzero(first != np.arange(len(fine))).tolist():
        names[index] = f"{names[index]}-{index - int(first[index]) + 1}"
    return np.asarray(names, np.object_)


def _groups(
    geometry: NDArray[np.object_], columns: Columns
) -> Iterator[tuple[NDArray[np.object_], Columns]]:
    for start in range(0, len(geometry), _ROWS_TOGETHER):
        rows = slice(start, start + _ROWS_TOGETHER)
        yield geometry[rows], {name: values[rows] for name, values in columns.items()}


def _joined(
    parts: Sequence[tuple[NDArray[np.object_], Columns]],
) -> tuple[NDArray[np.object_], Columns]:
    geometry = np.concatenate([geometry for geometry, _ in parts])
    names = list(parts[0][1])
    return geometry, {
        name: np.concatenate([columns[name] for _, columns in parts]) for name in names
    }


def _read(path: Path) -> tuple[NDArray[np.object_], Columns]:
    """What was laid aside, as it was given."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    columns = {}
    for name in table.column_names:
        if name in ("geometry", "bbox"):
            continue
        values = table.column(name).combine_chunks()
        own = values.to_numpy(zero_copy_only=False)
        # Where there are nulls among floats they are NaN again.
        columns[name] = own if not pa.types.is_string(values.type) else own.astype(object)
    geometry = shapely.from_wkb(table.column("geometry").to_numpy())
    return np.asarray(geometry, np.object_), columns
