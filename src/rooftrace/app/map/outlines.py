"""Polygons of a file in flat arrays, in the order of their places."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.app.map.place import HALF_M, Place
from rooftrace.io.vector_read import VectorFile

__all__ = ["Outlines", "Ragged", "read_outlines", "spans"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_POLYGONAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
_MORTON_BITS = 20


@dataclass(frozen=True)
class Ragged:
    """n polygons or multipolygons as arrays.

    Args:
        xy: (m, 2) vertices; rings are closed.
        rings: (r + 1,) where each ring begins in `xy`.
        polygons: (p + 1,) where each polygon begins in `rings`; its first is the exterior.
        features: (n + 1,) where each of the n begins in `polygons`.
    """

    xy: Floats
    rings: Ints
    polygons: Ints
    features: Ints

    def __len__(self) -> int:
        return len(self.features) - 1

    @classmethod
    def of(cls, geometry: NDArray[np.object_]) -> Ragged:
        """Of shapely polygons and multipolygons, none of them empty."""
        if not len(geometry):
            none = np.zeros(1, np.int64)
            return cls(np.zeros((0, 2)), none, none, none)
        kind, xy, offsets = shapely.to_ragged_array(geometry, include_z=False)
        starts = [np.asarray(one, np.int64) for one in offsets]
        if kind == shapely.GeometryType.POLYGON:
            starts.append(np.arange(len(geometry) + 1))
        return cls(np.asarray(xy), *starts)

    def take(self, which: Ints) -> Ragged:
        """Some of them, in the order given."""
        polygon, features = spans(self.features, which)
        ring, polygons = spans(self.polygons, polygon)
        vertex, rings = spans(self.rings, ring)
        return Ragged(self.xy[vertex], rings, polygons, features)

    def geometry(self) -> NDArray[np.object_]:
        """(n,) as shapely multipolygons."""
        made = shapely.from_ragged_array(
            shapely.GeometryType.MULTIPOLYGON, self.xy, (self.rings, self.polygons, self.features)
        )
        return np.asarray(made, np.object_)

    @cached_property
    def vertices(self) -> Ints:
        """(n,) how many each has."""
        return np.diff(self.rings[self.polygons[self.features]])


def spans(starts: Ints, which: Ints) -> tuple[Ints, Ints]:
    """The indices of all that lies in some stretches, and where each of these begins among them.

    Args:
        starts: (n + 1,) where each stretch begins.
        which: (k,) of the n.
    """
    lengths = starts[which + 1] - starts[which]
    begins = np.zeros(len(which) + 1, np.int64)
    np.cumsum(lengths, out=begins[1:])
    shift = np.repeat(starts[which] - begins[:-1], lengths)
    return shift + np.arange(begins[-1]), begins


@dataclass(frozen=True)
class Outlines:
    """The buildings of a scene, or the regions of its classes.

    Args:
        shapes: in shares of the map's side, x to the right and y down.
        bounds: (n, 4) left, top, right, bottom of each, likewise.
        rows: (n,) which of the file's features each is, from 0.
        score: (n,) thousandths; None where the file does not say.
        size: (n,) tenths of a square metre, or of a pixel where metres are not known.
        in_metres: which of the two.
        kind: (n,) class indices; None where there is one class.
        classes: names by index, of those that there are.
        columns: attributes of the file, (n,) each, as they are stored.
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

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def centres(self) -> Floats:
        """(n, 2) of the bounds."""
        return (self.bounds[:, :2] + self.bounds[:, 2:]) / 2

    @cached_property
    def areas(self) -> Floats:
        """(n,) on the map, in shares of it."""
        return np.asarray(shapely.area(self.shapes.geometry()))

    @cached_property
    def place_of_row(self) -> dict[int, int]:
        """Where the feature of a row of the file stands in the arrays."""
        return dict(zip(self.rows.tolist(), range(len(self))))

    def attributes(self, row: int) -> dict[str, Any] | None:
        """Of one feature by its row in the file; None where there is none."""
        at = self.place_of_row.get(row)
        if at is None:
            return None
        return {name: _plain(values[at]) for name, values in self.columns.items()}

    def passing(self, score: int, size: int) -> NDArray[np.bool_]:
        """(n,) those with at least this score and size, in the units of `score` and `size`."""
        kept = self.size >= size
        return kept if self.score is None else kept & (self.score >= score)

    def within(self, bounds: tuple[float, float, float, float]) -> NDArray[np.bool_]:
        """(n,) those whose bounds meet others: left, top, right, bottom."""
        left, top, right, bottom = self.bounds.T
        apart = (left > bounds[2]) | (right < bounds[0]) | (top > bounds[3]) | (bottom < bounds[1])
        return np.asarray(~apart)


def read_outlines(path: Path, place: Place) -> Outlines:
    """Read the polygons of a scene.

    Args:
        path: of any format that `VectorFile` reads.
        place: of the scene.

    Raises:
        DataError: the file cannot be read.
        GeoreferenceError: its polygons have no place where the scene lies.
    """
    geometry, crs, columns = _Table(path).table()
    kept = np.isin(shapely.get_type_id(geometry), _POLYGONAL) & ~shapely.is_empty(geometry)
    rows = np.flatnonzero(kept)
    on_map = place.polygons(geometry[rows], crs)
    finite = np.isfinite(shapely.bounds(on_map)).all(axis=1)
    rows, on_map = rows[finite], on_map[finite]
    unit = shapely.transform(on_map, lambda xy: np.stack(
        [0.5 + xy[:, 0] / (2 * HALF_M), 0.5 - xy[:, 1] / (2 * HALF_M)], axis=1
    ))  # fmt: skip
    bounds = shapely.bounds(unit).reshape(-1, 4)
    order = np.argsort(_morton((bounds[:, :2] + bounds[:, 2:]) / 2), kind="stable")
    rows, unit, bounds = rows[order], np.asarray(unit, np.object_)[order], bounds[order]
    columns = {name: values[rows] for name, values in columns.items()}
    size, in_metres = _sizes(columns, on_map[order], place)
    kind, classes = _kinds(columns)
    return Outlines(
        Ragged.of(unit), bounds, rows, _scores(columns), size, in_metres, kind, classes, columns
    )


class _Table(VectorFile):
    """Attributes as they are stored, not as text."""

    def table(self) -> tuple[NDArray[np.object_], CRS | None, dict[str, NDArray[Any]]]:
        names = [name for name in self.fields if name not in ("geometry", "bbox")]
        crs, geometry, values = self._read_all(names)
        return geometry, crs, {name: np.asarray(values[name]) for name in names if name in values}


def _morton(centres: Floats) -> Ints:
    """(n,) along a curve on which neighbours are near (Morton 1966)."""
    code = np.zeros(len(centres), np.int64)
    if not len(centres):
        return code
    low, high = centres.min(axis=0), centres.max(axis=0)
    steps = (centres - low) / np.maximum(high - low, 1e-12) * ((1 << _MORTON_BITS) - 1)
    x, y = steps.astype(np.int64).T
    for bit in range(_MORTON_BITS):
        code |= (x >> bit & 1) << 2 * bit | (y >> bit & 1) << 2 * bit + 1
    return code


def _numbers(columns: dict[str, NDArray[Any]], name: str) -> Floats | None:
    values = columns.get(name)
    if values is None or values.dtype.kind not in "iufO":
        return None
    if values.dtype.kind != "O":
        return np.asarray(values, np.float64)
    try:
        # GeoParquet gives objects, with None among them.
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
    said = _numbers(columns, "area_m2")
    in_metres = not place.flat or (said is not None and bool(np.isfinite(said).any()))
    if said is None or (len(said) and not np.isfinite(said).any()):
        said = shapely.area(on_map)
        if not place.flat:
            # Web Mercator stretches lengths by the secant of the latitude.
            y = shapely.get_y(shapely.centroid(on_map)) * np.pi / HALF_M
            said = said / np.cosh(y) ** 2
    return np.rint(np.nan_to_num(said).clip(0, 3e9) * 10).astype(np.int64), in_metres


def _kinds(columns: dict[str, NDArray[Any]]) -> tuple[Ints | None, dict[int, str]]:
    index, names = _numbers(columns, "class_id"), columns.get("class")
    if index is None or names is None or not len(index):
        return None, {}
    kind = np.nan_to_num(index).clip(0, 255).astype(np.int64)
    found, first = np.unique(kind, return_index=True)
    return kind, {int(one): str(names[at]) for one, at in zip(found, first)}


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value != value:
        return None
    return value if isinstance(value, (bool, int, float)) else str(value)
