"""Polygons of a file in flat arrays, sorted along a space-filling curve, and their vector tiles.

A Mapbox vector tile has outlines that are clipped and simplified to its resolution. The encoder
writes thousands of polygons at once. Everything in a feature is a varint (protobuf tags, lengths
and numbers alike), so a layer is one array of integers that become bytes together.
https://github.com/mapbox/vector-tile-spec/tree/master/2.1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.app.map.place import Place
from rooftrace.core.arrays import in_steps
from rooftrace.core.errors import DataError
from rooftrace.core.types import Floats, Ints
from rooftrace.io.pmtiles import sample
from rooftrace.io.vector_read import VectorFile
from rooftrace.io.web_mercator import WORLD_M, TileName, interleave_bits
from rooftrace.vector.compare import GONE, MAP_WORDS, OUTSIDE

_POLYGONAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
_MORTON_BITS = 20
_AT_ONCE = 100_000
"""Polygons that are flattened at once."""

Table = tuple[NDArray[np.object_], CRS | None, dict[str, NDArray[Any]]]
"""(n,) geometries, their CRS, and (n,) values of each attribute."""


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

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """Return the features of several arrays, one after the other."""
        starts = []
        for name in ("rings", "polygons", "features"):
            ends = np.cumsum([0, *(getattr(part, name)[-1] for part in parts)])
            shifted = [getattr(part, name)[:-1] + end for part, end in zip(parts, ends)]
            starts.append(np.concatenate([*shifted, ends[-1:]]))
        return cls(np.concatenate([part.xy for part in parts]), *starts)

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
    def counted(self) -> NDArray[np.bool_]:
        """(n,) whether a feature counts: of a building in both layers, only its newer outlines."""
        if self.is_old is None or self.kind is None:
            return np.ones(len(self), np.bool_)
        return np.asarray(~self.is_old | np.isin(self.kind, (GONE, OUTSIDE)))

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


def read_outlines(table: Table, place: Place, statuses: Sequence[str] = ()) -> Outlines:
    """Return the polygons of a scene.

    Args:
        table: See `LayerTable`.
        place: Position of the scene on the map.
        statuses: Names of the statuses of a comparison, which are the classes of its polygons. Its
            score is that of one layer only, so it is not used.

    Raises:
        DataError: The statuses are missing.
        GeoreferenceError: The polygons cannot be transformed to the scene's system.
    """
    geometry, crs, columns = table
    polygonal = polygon_rows(geometry)
    measured = numbers_of(columns, "area_m2")
    if measured is not None and not np.isfinite(measured).any():
        measured = None
    parts = []
    # Shapely's polygons take four times the memory of the arrays.
    for start in range(0, max(len(polygonal), 1), _AT_ONCE):
        some = polygonal[start : start + _AT_ONCE]
        on_map = place.polygons(geometry[some], crs)
        bounds = shapely.bounds(on_map).reshape(-1, 4)
        finite = np.isfinite(bounds).all(axis=1)
        on_map = on_map[finite]
        areas = _areas(on_map, place) if measured is None else measured[some[finite]]
        parts.append((some[finite], bounds[finite], areas, Ragged.of(on_map)))
    rows, bounds, areas = (np.concatenate(one) for one in list(zip(*parts))[:3])
    bounds = 0.5 + bounds[:, [0, 3, 2, 1]] * (1, -1, 1, -1) / WORLD_M
    order = np.argsort(_morton((bounds[:, :2] + bounds[:, 2:]) / 2), kind="stable")
    rows, bounds = rows[order], bounds[order]
    shapes = Ragged.joined([one for *_, one in parts]).take(order)
    shapes = replace(shapes, xy=0.5 + shapes.xy * (1, -1) / WORLD_M)
    columns = {name: values[rows] for name, values in columns.items()}
    size, in_metres = _steps(areas[order].clip(0, 3e9), 10), measured is not None or not place.flat
    is_old: NDArray[np.bool_] | None = None
    kind, classes = _statuses(columns, statuses) if statuses else _kinds(columns)
    score = None if statuses else numbers_of(columns, "score")
    if statuses:
        is_old = np.asarray(columns["side"] == "old", np.bool_)
    metres = None if statuses else numbers_of(columns, "height")
    height = None
    if metres is not None and (metres >= 0.1).any():
        height = _steps(metres.clip(0, 1e4), 10)
    return Outlines(
        shapes, bounds, rows, None if score is None else _steps(score.clip(0, 1), 1000),
        size, in_metres, kind, classes, columns, is_old, height,
    )  # fmt: skip


class LayerTable(VectorFile):
    """A vector file whose attributes keep their stored types."""

    def table(self) -> Table:
        """Return the rows of the file."""
        names = [name for name in self.fields if name not in ("geometry", "bbox")]
        crs, geometry, values, _ = self._read_all(names)
        # Whole numbers with nulls are masked arrays; without its mask, a null would be 0.
        return geometry, crs, {name: values[name] for name in names if name in values}


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


def numbers_of(columns: dict[str, NDArray[Any]], name: str) -> Floats | None:
    """Return (n,) numbers of a column, NaN for null; None if there is no such column of numbers."""
    values = columns.get(name)
    if values is None or values.dtype.kind not in "iufO":
        return None
    if values.dtype.kind != "O":
        return np.ma.filled(values.astype(np.float64), np.nan)
    try:
        # GeoParquet columns are object arrays in which None may occur.
        return np.array([np.nan if one is None else one for one in values.tolist()], np.float64)
    except (TypeError, ValueError):
        return None


def _steps(values: Floats, per_unit: int) -> Ints:
    """Return values in whole steps, rounded down, so that a filter passes what is at least its
    value. A float32 just below a step counts as it; NaN counts as 0.
    """
    return np.floor(np.round(np.nan_to_num(values) * per_unit, 3)).astype(np.int64)


def _areas(on_map: NDArray[np.object_], place: Place) -> Floats:
    """Return (n,) areas in square metres, or in pixels of a scene without a position."""
    areas = np.asarray(shapely.area(on_map))
    if place.flat:
        return areas
    # Web Mercator stretches lengths by the secant of the latitude.
    y = shapely.get_y(shapely.centroid(on_map)) * np.pi / (WORLD_M / 2)
    return np.asarray(areas / np.cosh(y) ** 2)


def _kinds(columns: dict[str, NDArray[Any]]) -> tuple[Ints | None, dict[int, str]]:
    index, names = numbers_of(columns, "class_id"), columns.get("class")
    if index is None or names is None or not len(index):
        return None, {}
    kind = np.nan_to_num(index).clip(0, 255).astype(np.int64)
    indexes, first = np.unique(kind, return_index=True)
    return kind, {int(one): str(names[at]) for one, at in zip(indexes, first)}


def _statuses(
    columns: dict[str, NDArray[Any]], statuses: Sequence[str]
) -> tuple[Ints | None, dict[int, str]]:
    index = {name: at for at, name in enumerate(statuses)}
    # Compared with a map of the same time, two statuses have other names.
    index |= {word: index[name] for name, word in MAP_WORDS.items()}
    if not {"side", "status"} <= {*columns}:
        raise DataError("The layer has no statuses of rooftrace compare.")
    names = [str(name) for name in columns["status"].tolist()]
    try:
        indexes = [index[name] for name in names]
    except KeyError as error:
        raise DataError(f"The comparison has the unknown status {error}.") from error
    return np.array(indexes, np.int64), dict(sorted(zip(indexes, names)))


def plain(value: Any) -> Any:
    """Return a value as a type that JSON has."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value is np.ma.masked or value != value:
        return None
    return value if isinstance(value, (bool, int, float)) else str(value)


EXTENT = 4096
"""Units along the side of a tile."""

_POLYGON = 3
# Field numbers of protobuf with their wire types, as they stand in the file.
_TILE_LAYER, _LAYER_VERSION, _LAYER_NAME = 0x1A, 0x78, 0x0A
_LAYER_FEATURE, _LAYER_KEY, _LAYER_VALUE, _LAYER_EXTENT = 0x12, 0x1A, 0x22, 0x28
_FEATURE_ID, _FEATURE_TAGS, _FEATURE_TYPE, _FEATURE_GEOMETRY = 0x08, 0x12, 0x18, 0x22
_VALUE_UINT = 0x28
_MOVE_ONE, _LINE, _CLOSE = 9, 2, 15
_FIXED = 10
"""Numbers in a feature besides those of its attributes and its geometry."""


def encode_tile(
    name: str,
    polygons: NDArray[np.object_],
    feature: Ints,
    ids: Ints,
    attributes: Mapping[str, Ints],
) -> bytes:
    """Return a tile with one layer; b"" if there are no features.

    Args:
        name: Name of the layer.
        polygons: (p,) polygons in whole units of a tile, x right and y down.
        feature: (p,) index of the feature of each polygon, ascending; each has at least one.
        ids: (n,) ids of the features, not negative.
        attributes: (n,) values by attribute name, not negative.
    """
    if not len(ids):
        return b""
    values, tags = _pooled(attributes)
    stream = np.empty((len(values), 4), np.int64)
    stream[:, 0] = _LAYER_VALUE
    stream[:, 1] = 1 + _byte_counts(values)
    stream[:, 2] = _VALUE_UINT
    stream[:, 3] = values
    body = [
        bytes([_LAYER_VERSION, 2]),
        _named(_LAYER_NAME, name),
        _features(_Rings.of(polygons, feature), ids, tags),
        *(_named(_LAYER_KEY, key) for key in attributes),
        _varints(stream.ravel()),
        _varints(np.array([_LAYER_EXTENT, EXTENT])),
    ]
    length = sum(map(len, body))
    return b"".join([_varints(np.array([_TILE_LAYER, length])), *body])


@dataclass(frozen=True)
class _Rings:
    """Polygons as a tile stores them: exterior rings run clockwise on the screen; their interior
    rings follow and run the other way.

    `starts` is the index in `xy` at which each ring begins; its first vertex is not repeated.
    `feature` is the feature of each ring.
    """

    xy: Ints
    starts: Ints
    feature: Ints

    @classmethod
    def of(cls, polygons: NDArray[np.object_], feature: Ints) -> _Rings:
        # On the screen y points down, so that the other way round is clockwise.
        _, xy, (rings, owner) = shapely.to_ragged_array(shapely.orient_polygons(polygons))
        vertices = np.delete(xy, rings[1:] - 1, axis=0)
        starts = np.asarray(rings - np.arange(len(rings)), np.int64)
        return cls(np.rint(vertices).astype(np.int64), starts, np.repeat(feature, np.diff(owner)))


def _pooled(attributes: Mapping[str, Ints]) -> tuple[Ints, Ints]:
    """Return the distinct values, and (n, 2 k) pairs of key and index of value."""
    columns = list(attributes.values())
    values, index = np.unique(np.concatenate(columns), return_inverse=True)
    indexes = index.reshape(len(columns), -1).T
    keys = np.broadcast_to(np.arange(len(columns)), indexes.shape)
    return values, np.stack([keys, indexes], axis=2).reshape(len(indexes), -1)


def _features(rings: _Rings, ids: Ints, tags: Ints) -> bytes:
    count = len(ids)
    vertices = np.diff(rings.starts)
    # MoveTo, its point, LineTo, the other points, ClosePath.
    numbers = 2 * vertices + 3
    per_feature = np.bincount(rings.feature, numbers, count).astype(np.int64)
    head = _FIXED + tags.shape[1]
    begins = _starts(head + per_feature)
    stream = np.zeros(begins[-1], np.int64)
    first_ring = np.searchsorted(rings.feature, np.arange(count))
    ring_at = _starts(numbers)[:-1] + head * (rings.feature + 1)
    _put_geometry(stream, rings, ring_at, first_ring)
    begin = begins[:-1]
    stream[begin] = _LAYER_FEATURE
    stream[begin + 2] = _FEATURE_ID
    stream[begin + 3] = ids
    stream[begin + 4] = _FEATURE_TAGS
    stream[begin[:, None] + 6 + np.arange(tags.shape[1])] = tags
    after = begin + 6 + tags.shape[1]
    stream[after] = _FEATURE_TYPE
    stream[after + 1] = _POLYGON
    stream[after + 2] = _FEATURE_GEOMETRY
    # Lengths are filled in from the innermost outwards, because each is a number with a length.
    size = _byte_counts(stream)
    upto = _starts(size)
    stream[begin + 5] = upto[after] - upto[begin + 6]
    stream[after + 3] = upto[begins[1:]] - upto[after + 4]
    size[begin + 5] = _byte_counts(stream[begin + 5])
    size[after + 3] = _byte_counts(stream[after + 3])
    upto = _starts(size)
    stream[begin + 1] = upto[begins[1:]] - upto[begin + 2]
    size[begin + 1] = _byte_counts(stream[begin + 1])
    return _varints(stream, size)


def _put_geometry(stream: Ints, rings: _Rings, ring_at: Ints, first_ring: Ints) -> None:
    """Write the commands of every ring; points are differences from the point before."""
    starts = rings.starts[:-1]
    vertices = np.diff(rings.starts)
    step = np.diff(rings.xy, axis=0, prepend=np.zeros((1, 2), np.int64))
    begin = starts[first_ring]
    step[begin] = rings.xy[begin]
    zigzag = (step << 1) ^ (step >> 63)
    ring = np.repeat(np.arange(len(vertices)), vertices)
    within = np.arange(len(rings.xy)) - starts[ring]
    at = ring_at[ring] + 2 * within + np.where(within, 2, 1)
    stream[at], stream[at + 1] = zigzag.T
    stream[ring_at] = _MOVE_ONE
    stream[ring_at + 3] = (vertices - 1) << 3 | _LINE
    stream[ring_at + 2 * vertices + 2] = _CLOSE


def _named(tag: int, text: str) -> bytes:
    data = text.encode()
    return _varints(np.array([tag, len(data)])) + data


def _starts(lengths: Ints) -> Ints:
    """Return (n + 1,) index at which each of n consecutive spans begins; the last is the end."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def _byte_counts(values: Ints) -> Ints:
    """Return the bytes of each value below 2^35 as a varint, seven bits to a byte."""
    count = np.ones(len(values), np.int64)
    for bits in (7, 14, 21, 28):
        more = values >= 1 << bits
        if not more.any():
            break
        count += more
    return count


def _varints(values: Ints, counts: Ints | None = None) -> bytes:
    """Return numbers as varints, the lowest seven bits first."""
    counts = _byte_counts(values) if counts is None else counts
    at = _starts(counts)
    out = np.empty(at[-1], np.uint8)
    begin, rest, left = at[:-1], values, counts
    while len(rest):
        more = left > 1
        out[begin] = (rest & 0x7F) | (more.astype(np.int64) << 7)
        begin, rest, left = begin[more] + 1, rest[more] >> 7, left[more] - 1
    return out.tobytes()


TILE_PX = 512
"""Side of a tile on the screen, in pixels."""

MOST_BYTES = 500_000
MOST_FEATURES = 12_000
DEEPEST_ZOOM = 16
"""Deepest zoom with tiles of its own; the browser enlarges them from there on.

A unit of these tiles is 0.15 m at the equator.
"""

_UNITS_PER_PX = EXTENT // TILE_PX
_BUFFER = 8 * _UNITS_PER_PX
_UNCLIPPED = EXTENT // 4
"""Distance in units up to which a shape may reach out of its tile unclipped: clipping takes
longer.
"""

_SNAP = _UNITS_PER_PX // 4
_TINY = _UNITS_PER_PX // 2
_MANY_VERTICES = 40


class VectorTiles:
    """Vector tiles of one scene's outlines; below `first_zoom` a sample stands for all.

    A tile has the layer `buildings`: each building has its row in the file as its id, and `score`,
    `size`, `kind` and `height` as in `Outlines`, and `old` (0 or 1) in a comparison.
    """

    def __init__(self, outlines: Outlines) -> None:
        self.outlines = outlines
        self._samples: dict[int, tuple[NDArray[np.int32], Floats]] = {}

    @cached_property
    def first_zoom(self) -> int:
        """Lowest zoom from which on no tile holds more than `MOST_FEATURES` buildings."""
        for zoom in range(DEEPEST_ZOOM, -1, -1):
            col, row = np.floor(self.outlines.centres * (1 << zoom)).astype(np.int64).T
            _, counts = np.unique(col << 32 | row, return_counts=True)
            if len(counts) and counts.max() > MOST_FEATURES:
                return min(zoom + 1, DEEPEST_ZOOM)
        return 0

    @cached_property
    def _areas(self) -> Floats:
        """(n,) areas, where the side of the map is 1."""
        shapes = self.outlines.shapes
        parts = in_steps(np.arange(len(shapes)), _AT_ONCE)
        return np.concatenate([shapely.area(shapes.take(some).geometry()) for some in parts])

    def _sample(self, zoom: int) -> tuple[NDArray[np.int32], Floats]:
        """Return (n,) the square of each outline, -1 without, -2 if left out; see `sample`."""
        if zoom not in self._samples:
            large, small, squares = sample(self._areas, self.outlines.centres, zoom)
            square = np.full(len(self.outlines), -2, np.int32)
            square[large], square[small] = -1, np.arange(len(small))
            self._samples[zoom] = square, squares
        return self._samples[zoom]

    def buildings(self, tile: TileName) -> bytes:
        """Return a tile of single buildings; b"" if there are none."""
        side = 1 / (1 << tile.zoom)
        margin = side * _BUFFER / EXTENT
        left, top = tile.col * side, tile.row * side
        area = (left - margin, top - margin, left + side + margin, top + side + margin)
        which = np.flatnonzero(self.outlines.within(area))
        if tile.zoom < self.first_zoom:
            which = which[self._sample(tile.zoom)[0][which] > -2]
        while True:
            which = self._largest(which, MOST_FEATURES)
            encoded = self._encoded(tile, which)
            if len(encoded) <= MOST_BYTES:
                return encoded
            which = self._largest(which, int(len(which) * 0.9 * MOST_BYTES / len(encoded)))

    def _largest(self, which: Ints, most: int) -> Ints:
        if len(which) <= most:
            return which
        smallest = np.argpartition(self.outlines.size[which], len(which) - most)
        return np.sort(which[smallest[len(which) - most :]])

    def _encoded(self, tile: TileName, which: Ints) -> bytes:
        outlines = self.outlines
        scale, origin = float(EXTENT << tile.zoom), np.array([tile.col, tile.row]) * EXTENT
        rings = outlines.shapes.take(which)
        shapes = _drawn(
            replace(rings, xy=rings.xy * scale - origin).geometry(),
            outlines.bounds[which] * scale - np.tile(origin, 2),
            1 if tile.zoom >= DEEPEST_ZOOM else _SNAP,
        )
        if tile.zoom < self.first_zoom:
            square, squares = self._sample(tile.zoom)
            is_small = square[which] >= 0
            corners = squares[square[which[is_small]]] * scale - np.tile(origin, 2)
            shapes[is_small] = shapely.box(*np.rint(corners).T)
        parts, owner = shapely.get_parts(shapes, return_index=True)
        solid = shapely.area(parts) > 0
        drawn, feature = np.unique(owner[solid], return_inverse=True)
        kept_rows = which[drawn]
        attributes = {"size": outlines.size[kept_rows]}
        if outlines.score is not None:
            attributes["score"] = outlines.score[kept_rows]
        if outlines.kind is not None:
            attributes["kind"] = outlines.kind[kept_rows]
        if outlines.is_old is not None:
            attributes["old"] = outlines.is_old[kept_rows].astype(np.int64)
        if outlines.height is not None:
            attributes["height"] = outlines.height[kept_rows]
        return encode_tile("buildings", parts[solid], feature, outlines.rows[kept_rows], attributes)


def _drawn(shapes: NDArray[np.object_], bounds: Floats, snap: int) -> NDArray[np.object_]:
    """Return (n,) shapes in units of a tile as it shows them: clipped, and no finer than `snap`."""
    low, high = bounds[:, :2], bounds[:, 2:]
    long = (shapely.get_num_coordinates(shapes) > _MANY_VERTICES) & (snap > 1)
    shapes[long] = shapely.simplify(shapes[long], snap)
    far = np.any((low < -_UNCLIPPED) | (high > EXTENT + _UNCLIPPED), axis=1)
    frame = (-_BUFFER, -_BUFFER, EXTENT + _BUFFER, EXTENT + _BUFFER)
    shapes[far] = shapely.clip_by_rect(shapes[far], *frame)
    rounded = shapely.transform(shapes, lambda xy: np.rint(xy / snap) * snap)
    # Vertices on straight lines are dropped, and rings without an area.
    outlines = np.asarray(shapely.simplify(rounded, 0, preserve_topology=False), np.object_)
    if snap > 1:
        tiny = (high - low < _TINY).all(axis=1)
        middle = (low[tiny] + high[tiny]) / 2
        half = np.maximum(high[tiny] - low[tiny], _UNITS_PER_PX // 4) / 2
        corner = np.floor(middle - half)
        outlines[tiny] = shapely.box(*corner.T, *np.maximum(np.ceil(middle + half), corner + 1).T)
    return outlines
