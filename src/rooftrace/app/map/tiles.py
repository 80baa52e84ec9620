"""Mapbox vector tiles of outlines, clipped and simplified to the resolution of a tile.

The encoder writes thousands of polygons at once. Everything in a feature is a varint (protobuf
tags, lengths and numbers alike), so a layer is one array of integers that become bytes together.
https://github.com/mapbox/vector-tile-spec/tree/master/2.1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.app.map.outlines import Outlines
from rooftrace.core.types import Floats, Ints
from rooftrace.io.web_mercator import TileName

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
    body = [
        bytes([_LAYER_VERSION, 2]),
        _named(_LAYER_NAME, name),
        _features(_Rings.of(polygons, feature), ids, tags),
        *(_named(_LAYER_KEY, key) for key in attributes),
        _values(values),
        _varints(np.array([_LAYER_EXTENT, EXTENT])),
    ]
    length = sum(map(len, body))
    return b"".join([_varints(np.array([_TILE_LAYER, length])), *body])


@dataclass(frozen=True)
class _Rings:
    """Polygons as a tile stores them.

    Args:
        xy: (m, 2) vertices; a ring's first vertex is not repeated.
        starts: (r + 1,) index in `xy` at which each ring begins.
        feature: (r,) feature of each ring. Exterior rings run clockwise on the screen; their
            interior rings follow and run the other way.
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


def _values(values: Ints) -> bytes:
    stream = np.empty((len(values), 4), np.int64)
    stream[:, 0] = _LAYER_VALUE
    stream[:, 1] = 1 + _byte_counts(values)
    stream[:, 2] = _VALUE_UINT
    stream[:, 3] = values
    return _varints(stream.ravel())


def _named(tag: int, text: str) -> bytes:
    data = text.encode()
    return _varints(np.array([tag, len(data)])) + data


def _starts(lengths: Ints) -> Ints:
    """Return (n + 1,) index at which each of n consecutive spans begins, and the end of the
    last.
    """
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def _byte_counts(values: Ints) -> Ints:
    """Return the number of bytes of each value as a varint, seven bits to a byte; values below
    2^35.
    """
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
    """Vector tiles of one scene's outlines, from `first_zoom` on.

    A tile has the layer `buildings`: each building has its row in the file as its id, and `score`,
    `size`, `kind` and `height` as in `Outlines`, and `old` (0 or 1) in a comparison.
    """

    def __init__(self, outlines: Outlines) -> None:
        self.outlines = outlines

    @cached_property
    def first_zoom(self) -> int:
        """Lowest zoom from which on no tile holds more than `MOST_FEATURES` buildings."""
        for zoom in range(DEEPEST_ZOOM, -1, -1):
            col, row = np.floor(self.outlines.centres * (1 << zoom)).astype(np.int64).T
            _, counts = np.unique(col << 32 | row, return_counts=True)
            if len(counts) and counts.max() > MOST_FEATURES:
                return min(zoom + 1, DEEPEST_ZOOM)
        return 0

    def buildings(self, tile: TileName) -> bytes:
        """Return a tile of single buildings; b"" if there are none."""
        which = self._inside(tile)
        while True:
            which = self._largest(which, MOST_FEATURES)
            encoded = self._encoded(tile, which)
            if len(encoded) <= MOST_BYTES:
                return encoded
            which = self._largest(which, int(len(which) * 0.9 * MOST_BYTES / len(encoded)))

    def _inside(self, tile: TileName) -> Ints:
        side = 1 / (1 << tile.zoom)
        margin = side * _BUFFER / EXTENT
        left, top = tile.col * side, tile.row * side
        area = (left - margin, top - margin, left + side + margin, top + side + margin)
        return np.flatnonzero(self.outlines.within(area))

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
