"""Mapbox vector tiles, version 2.1, of thousands of polygons at once.

Everything in a feature is a varint (its tags of protobuf, lengths and numbers alike), so a layer
is one array of integers that become bytes together.
https://github.com/mapbox/vector-tile-spec/tree/master/2.1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXTENT", "Rings", "encode_tile"]

Ints = NDArray[np.int64]

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
"""Numbers of a feature besides those of its attributes and its geometry."""


@dataclass(frozen=True)
class Rings:
    """Polygons in the units of a tile.

    Args:
        xy: (m, 2) int64, vertices, x right and y down; a ring's first is not repeated at its end.
        starts: (r + 1,) where each ring begins in `xy`; a ring has three vertices or more.
        feature: (r,) which feature a ring belongs to, ascending; each has at least one. Exterior
            rings run clockwise on the screen, interior ones the other way, after theirs.
    """

    xy: Ints
    starts: Ints
    feature: Ints


def encode_tile(name: str, rings: Rings, ids: Ints, attributes: Mapping[str, Ints]) -> bytes:
    """A tile of one layer; of no features, no bytes.

    Args:
        name: of the layer.
        rings: of n features.
        ids: (n,) not negative.
        attributes: (n,) each, not negative.
    """
    if not len(ids):
        return b""
    values, tags = _pooled(attributes)
    body = [
        bytes([_LAYER_VERSION, 2]),
        _named(_LAYER_NAME, name),
        _features(rings, ids, tags),
        *(_named(_LAYER_KEY, key) for key in attributes),
        _values(values),
        _varints(np.array([_LAYER_EXTENT, EXTENT])),
    ]
    length = sum(map(len, body))
    return b"".join([_varints(np.array([_TILE_LAYER, length])), *body])


def _pooled(attributes: Mapping[str, Ints]) -> tuple[Ints, Ints]:
    """The values that there are, and (n, 2 k) which key has which of them."""
    columns = list(attributes.values())
    values, index = np.unique(np.concatenate(columns), return_inverse=True)
    chosen = index.reshape(len(columns), -1).T
    keys = np.broadcast_to(np.arange(len(columns)), chosen.shape)
    return values, np.stack([keys, chosen], axis=2).reshape(len(chosen), -1)


def _features(rings: Rings, ids: Ints, tags: Ints) -> bytes:
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
    # Lengths, from the innermost on: each is a number that has a length itself.
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


def _put_geometry(stream: Ints, rings: Rings, ring_at: Ints, first_ring: Ints) -> None:
    """Commands of every ring; points are told by their distance from the one before."""
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
    """(n + 1,) where each of some stretches begins, and the last ends."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def _byte_counts(values: Ints) -> Ints:
    """How many bytes each takes as a varint, seven bits in a byte; below 2^35."""
    count = np.ones(len(values), np.int64)
    for bits in (7, 14, 21, 28):
        more = values >= 1 << bits
        if not more.any():
            break
        count += more
    return count


def _varints(values: Ints, counts: Ints | None = None) -> bytes:
    """Numbers as bytes, the lowest seven bits first."""
    counts = _byte_counts(values) if counts is None else counts
    at = _starts(counts)
    out = np.empty(at[-1], np.uint8)
    begin, rest, left = at[:-1], values, counts
    while len(rest):
        more = left > 1
        out[begin] = (rest & 0x7F) | (more.astype(np.int64) << 7)
        begin, rest, left = begin[more] + 1, rest[more] >> 7, left[more] - 1
    return out.tobytes()
