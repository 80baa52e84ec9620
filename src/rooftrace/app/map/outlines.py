"""Polygons of a file in flat arrays, sorted along a space-filling curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.app.map.place import Place
from rooftrace.core.errors import DataError
from rooftrace.core.types import Floats, Ints
from rooftrace.io.vector_read import VectorFile
from rooftrace.io.web_mercator import WORLD_M, interleave_bits

_POLYGONAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
_MORTON_BITS = 20


@dataclass(frozen=True)
class Ragged:
    """n polygons or multipolygons as flat arrays.

    Args:
        xy: (m, 2) vertices; rings are closed.
        rings: (r + 1,) index in `xy` at which each ring begins.
        polygons: (p + 1,) index in `rings` at which each polygon begins, exterior ring first.
        features: (n + 1,) index in `polygons` at which each of the n features begins.
    """

    xy: Floats
    rings: Ints
    polygons: Ints
    features: Ints

    def __len__(self) -> int:
        return len(self.features) - 1

    @classmethod
    def of(cls, geometry: NDArray[np.object_]) -> Ragged:
        """Return the arrays of shapely polygons and multipolygons, none of them empty."""
        if not len(geometry):
            none = np.zeros(1, np.int64)
            return cls(np.zeros((0, 2)), none, none, none)
        kind, xy, offsets = shapely.to_ragged_array(geometry, include_z=False)
        starts = [np.asarray(one, np.int64) for one in offsets]
        if kind == shapely.GeometryType.POLYGON:
            starts.append(np.arange(len(geometry) + 1))
        return cls(np.asarray(xy), *starts)

    def take(self, which: Ints) -> Ragged:
        """Return the features with the given indices, in that order."""
        polygon, features = spans(self.features, which)
        ring, polygons = spans(self.polygons, polygon)
        vertex, rings = spans(self.rings, ring)
        return Ragged(self.xy[vertex], rings, polygons, features)

    def geometry(self) -> NDArray[np.object_]:
        """Return the features as (n,) shapely multipolygons."""
        outlines = shapely.from_ragged_array(
            shapely.GeometryType.MULTIPOLYGON, self.xy, (self.rings, self.polygons, self.features)
        )
        return np.asarray(outlines, np.object_)


def spans(starts: Ints, which: Ints) -> tuple[Ints, Ints]:
    """Return the indices of all elements in some spans, and where each span begins among them.

    Args:
        starts: (n + 1,) index at which each span begins.
        which: (k,) indices of the chosen spans.
    """
    lengths = starts[which + 1] - starts[which]
    begins = np.zeros(len(which) + 1, np.int64)
    np.cumsum(lengths, out=begins[1:])
    shift = np.repeat(starts[which] - begins[:-1], lengths)
    return shift + np.arange(begins[-1]), begins


@dataclass(frozen=True)
class BuildingFilter:
    """Choice of the buildings that are shown.

    Args:
        score, size: Minimum values in the units of `Outlines`.
        kinds: Class indices; None for all.
    """

    score: int = 0
    size: int = 0
    kinds: frozenset[int] | None = None


@dataclass(frozen=True)
class Outlines:
    """The buildings of a scene, or the regions of its classes.

    Args:
        shapes: Polygons in shares of the map's side, x to the right and y down.
        bounds: (n, 4) left, top, right and bottom of each feature, in the same unit.
        rows: (n,) row of each feature in the file, from 0.
        score: (n,) scores in thousandths; None if the file has none.
        size: (n,) areas in tenths of a square metre, or of a pixel if metres are not known.
        in_metres: Whether `size` is in square metres.
        kind: (n,) class indices; None if there is one class.
        classes: Names by class index, of the classes that occur.
        columns: Attributes of the file by name, (n,) each, as they are stored.
        is_old: (n,) whether a building is of the older layer; None if there is one layer.
        height: (n,) heights in tenths of a metre, 0 where not known; None if the file has none.
    """

    shapes: Ragged
    bounds: Floats
    rows: Ints
    score: Ints | None
    size: Ints
    in_metres: bool
    kind: Ints | None
    classes: dict[int, str]
    columns: dict[str, NDArray[Any]]
    is_old: NDArray[np.bool_] | None = None
    height: Ints | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def centres(self) -> Floats:
        """(n, 2) centres of the bounds."""
        return (self.bounds[:, :2] + self.bounds[:, 2:]) / 2

    @cached_property
    def place_of_row(self) -> dict[int, int]:
        """Index in the arrays by row of the file."""
        return dict(zip(self.rows.tolist(), range(len(self))))

    def attributes(self, row: int) -> dict[str, Any] | None:
        """Return the attributes of a row of the file; None if there is no such row."""
        at = self.place_of_row.get(row)
        if at is None:
            return None
        return {name: plain(values[at]) for name, values in self.columns.items()}

    def passing(self, chosen: BuildingFilter) -> NDArray[np.bool_]:
        """Return (n,) whether a filter keeps each feature."""
        passes = self.size >= chosen.size
        if self.score is not None:
            passes &= self.score >= chosen.score
        if self.kind is not None and chosen.kinds is not None:
            passes &= np.isin(self.kind, list(chosen.kinds))
        return passes

    def within(self, bounds: tuple[float, float, float, float]) -> NDArray[np.bool_]:
        """Return (n,) whether the bounds of each feature meet (left, top, right, bottom)."""
        left, top, right, bottom = self.bounds.T
        apart = (left > bounds[2]) | (right < bounds[0]) | (top > bounds[3]) | (bottom < bounds[1])
        return np.asarray(~apart)


def read_outlines(path: Path, place: Place, statuses: Sequence[str] = ()) -> Outlines:
    """Read the polygons of a scene.

    Args:
        path: File in a format that `VectorFile` reads.
        place: Position of the scene on the map.
        statuses: Names of the statuses of a comparison, which are the classes of its polygons. Its
            score is that of one layer only, so it is not used.

    Raises:
        DataError: The file cannot be read.
        GeoreferenceError: The polygons cannot be transformed to the scene's system.
    """
    geometry, crs, columns = LayerTable(path).table()
    rows = polygon_rows(geometry)
    on_map = place.polygons(geometry[rows], crs)
    finite = np.isfinite(shapely.bounds(on_map)).all(axis=1)
    rows, on_map = rows[finite], on_map[finite]
    unit = shapely.transform(on_map, lambda xy: np.stack(
        [0.5 + xy[:, 0] / WORLD_M, 0.5 - xy[:, 1] / WORLD_M], axis=1
    ))  # fmt: skip
    bounds = shapely.bounds(unit).reshape(-1, 4)
    order = np.argsort(_morton((bounds[:, :2] + bounds[:, 2:]) / 2), kind="stable")
    rows, unit, bounds = rows[order], np.asarray(unit, np.object_)[order], bounds[order]
    columns = {name: values[rows] for name, values in columns.items()}
    size, in_metres = _sizes(columns, on_map[order], place)
    is_old: NDArray[np.bool_] | None = None
    kind, classes = _statuses(columns, statuses) if statuses else _kinds(columns)
    score = None if statuses else _scores(columns)
    if statuses:
        is_old = np.asarray(columns["side"] == "old", np.bool_)
    metres = None if statuses else _numbers(columns, "height")
    height = None
    if metres is not None and (metres >= 0.1).any():
        height = np.rint(np.nan_to_num(metres).clip(0, 1e4) * 10).astype(np.int64)
    return Outlines(
        Ragged.of(unit), bounds, rows, score, size, in_metres, kind, classes, columns, is_old,
        height,
    )  # fmt: skip


class LayerTable(VectorFile):
    """A vector file whose attributes keep their stored types."""

    def table(self) -> tuple[NDArray[np.object_], CRS | None, dict[str, NDArray[Any]]]:
        """Return (n,) geometries, their CRS, and (n,) values of each attribute.

        Raises:
            DataError: The file cannot be read.
        """
        names = [name for name in self.fields if name not in ("geometry", "bbox")]
        crs, geometry, values, _ = self._read_all(names)
        return geometry, crs, {name: np.asarray(values[name]) for name in names if name in values}


def polygon_rows(geometry: NDArray[np.object_]) -> Ints:
    """Return the indices of the polygons and multipolygons that are not empty."""
    is_polygon = np.isin(shapely.get_type_id(geometry), _POLYGONAL) & ~shapely.is_empty(geometry)
    return np.flatnonzero(is_polygon)


def _morton(centres: Floats) -> Ints:
    """Return (n,) Morton codes (G. M. Morton 1966), under which neighbours have near numbers."""
    if not len(centres):
        return np.zeros(0, np.int64)
    low, high = centres.min(axis=0), centres.max(axis=0)
    steps = (centres - low) / np.maximum(high - low, 1e-12) * ((1 << _MORTON_BITS) - 1)
    x, y = steps.astype(np.int64).T
    return interleave_bits(x, y, _MORTON_BITS)


def _numbers(columns: dict[str, NDArray[Any]], name: str) -> Floats | None:
    values = columns.get(name)
    if values is None or values.dtype.kind not in "iufO":
        return None
    if values.dtype.kind != "O":
        return np.asarray(values, np.float64)
    try:
        # GeoParquet columns are object arrays in which None may occur.
        return np.array([np.nan if one is None else one for one in values.tolist()], np.float64)
    except (TypeError, ValueError):
        return None


def _scores(columns: dict[str, NDArray[Any]]) -> Ints | None:
    score = _numbers(columns, "score")
    if score is None:
        return None
    return np.asarray(np.rint(np.nan_to_num(score).clip(0, 1) * 1000), np.int64)


def _sizes(
    columns: dict[str, NDArray[Any]], on_map: NDArray[np.object_], place: Place
) -> tuple[Ints, bool]:
    sizes = _numbers(columns, "area_m2")
    in_metres = not place.flat or (sizes is not None and bool(np.isfinite(sizes).any()))
    if sizes is None or (len(sizes) and not np.isfinite(sizes).any()):
        sizes = shapely.area(on_map)
        if not place.flat:
            # Web Mercator stretches lengths by the secant of the latitude.
            y = shapely.get_y(shapely.centroid(on_map)) * np.pi / (WORLD_M / 2)
            sizes = sizes / np.cosh(y) ** 2
    return np.rint(np.nan_to_num(sizes).clip(0, 3e9) * 10).astype(np.int64), in_metres


def _kinds(columns: dict[str, NDArray[Any]]) -> tuple[Ints | None, dict[int, str]]:
    index, names = _numbers(columns, "class_id"), columns.get("class")
    if index is None or names is None or not len(index):
        return None, {}
    kind = np.nan_to_num(index).clip(0, 255).astype(np.int64)
    indexes, first = np.unique(kind, return_index=True)
    return kind, {int(one): str(names[at]) for one, at in zip(indexes, first)}


def _statuses(
    columns: dict[str, NDArray[Any]], statuses: Sequence[str]
) -> tuple[Ints | None, dict[int, str]]:
    index = {name: at for at, name in enumerate(statuses)}
    try:
        indexes = [index[str(name)] for name in columns["status"].tolist()]
        columns["side"]
    except KeyError as error:
        raise DataError(f"The comparison has no {error} among its attributes.") from error
    kind = np.array(indexes, np.int64)
    return kind, {one: statuses[one] for one in np.unique(kind).tolist()}


def plain(value: Any) -> Any:
    """Return a value as a type that JSON has."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value != value:
        return None
    return value if isinstance(value, (bool, int, float)) else str(value)
