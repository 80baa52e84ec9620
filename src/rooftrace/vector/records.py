"""Footprints that wait for their neighbours: a record of each in memory, its polygons in a file.

The file holds two polygons of each footprint, one after the other: the raw one along pixel edges in
steps from corner to corner, an eighth of the size of WKB, and the proposed one as WKB.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.io.spill_file import SpillFile
from rooftrace.vector.trace import Polygons

RECORD = np.dtype(
    [
        ("first", "<i8"), ("class_id", "u1"), ("score", "<f4"), ("divided", "?"),
        ("accepted", "?"), ("refined", "?"), ("area_m2", "<f8"), ("bounds", "<f4", 4),
        ("raw", "<i8"), ("proposed", "<i8"), ("stop", "<i8"),
    ]
)  # fmt: skip
"""Numbers of a footprint whose polygons are in a spill file, 64 bytes.

first: First pixel of its region: row times the scene's width plus column.
class_id: Class index.
score: Mean probability; NaN where unknown.
divided: True for a piece of a region that was divided into buildings.
accepted: True where the proposed polygon is a regular outline.
refined: True where another network has changed the outline.
area_m2: Area of the proposed polygon; NaN where no minimum area was given.
bounds: Left, top, right, bottom of raw and proposed polygon together, rounded outwards.
raw, proposed, stop: Offsets of the start of the two polygons, and of their end.
"""

FootprintRecords = NDArray[np.void]
"""(n,) array of `RECORD`."""


def store_pairs(
    records: FootprintRecords, raw: Polygons, proposed: Polygons, spill: SpillFile
) -> None:
    """Write polygons (n,) and their replacements (n,) to a spill file, and note in the records
    where they lie.
    """
    encoded: list[bytes] = shapely.to_wkb(proposed).tolist()
    both = zip(encode_staircases(raw), encoded, strict=True)
    offsets = spill.append_bytes([*chain.from_iterable(both)])
    records["raw"], records["proposed"], records["stop"] = (
        offsets[:-1:2], offsets[1::2], offsets[2::2],
    )  # fmt: skip
    bounds = np.stack([shapely.bounds(raw), shapely.bounds(proposed)], axis=1)
    low = bounds[:, :, :2].min(axis=1).astype(np.float32)
    high = bounds[:, :, 2:].max(axis=1).astype(np.float32)
    records["bounds"][:, :2] = np.nextafter(low, np.float32(-np.inf))
    records["bounds"][:, 2:] = np.nextafter(high, np.float32(np.inf))


_MARK = b"\2"
"""First byte of a polygon in steps; that of WKB is 0 or 1."""

_RING = np.dtype([("first", "<i4", 2), ("count", "<u4")])
"""First corner of a ring, as x and y, and number of its corners, of which the last is the first."""

_MAX_STEP = 127


def encode_staircases(polygons: Polygons) -> list[bytes]:
    """Return polygons (n,) as bytes, for `decode_staircases`.

    A polygon is stored as the first corner of each ring and the steps from corner to corner. One
    that is not on whole pixels, or that has a long edge, is stored as WKB.
    """
    records: list[bytes] = shapely.to_wkb(polygons).tolist() if len(polygons) else []
    if not records or shapely.is_empty(polygons).any():
        return records
    _, xy, (rings, parts) = shapely.to_ragged_array(polygons)
    step = np.diff(xy, axis=0, prepend=0)
    step[rings[:-1]] = 0
    rough = (xy != np.rint(xy)).any(axis=1) | (np.abs(step) > _MAX_STEP).any(axis=1)
    is_rough = np.add.reduceat(rough, rings[parts[:-1]]) > 0
    heads = np.zeros(len(rings) - 1, _RING)
    heads["first"], heads["count"] = xy[rings[:-1]], np.diff(rings)
    steps = np.delete(step, rings[:-1], axis=0).astype(np.int8).tobytes()
    head = heads.tobytes()
    # Each ring has one step less than corners.
    corner = (2 * (rings[parts] - parts)).tolist()
    ring = (_RING.itemsize * parts).tolist()
    for number in np.flatnonzero(~is_rough).tolist():
        own = slice(ring[number], ring[number + 1])
        count = parts[number + 1] - parts[number]
        records[number] = (
            _MARK + int(count).to_bytes(4, "little") + head[own]
            + steps[corner[number] : corner[number + 1]]
        )  # fmt: skip
    return records


def decode_staircases(records: NDArray[np.object_]) -> Polygons:
    """Return the polygons (n,) of the records of `encode_staircases`."""
    polygons = np.empty(len(records), np.object_)
    in_steps = np.array([one[:1] == _MARK for one in records], np.bool_)
    polygons[~in_steps] = shapely.from_wkb(records[~in_steps])
    if not in_steps.any():
        return polygons
    counts, heads, steps = [], [], []
    for one in records[in_steps]:
        count = int.from_bytes(one[1:5], "little")
        stop = 5 + count * _RING.itemsize
        counts.append(count)
        heads.append(one[5:stop])
        steps.append(one[stop:])
    ring = np.frombuffer(b"".join(heads), _RING)
    rings = np.append(0, np.cumsum(ring["count"], dtype=np.int64))
    step = np.zeros((rings[-1], 2), np.int64)
    is_first = np.zeros(len(step), np.bool_)
    is_first[rings[:-1]] = True
    step[~is_first] = np.frombuffer(b"".join(steps), np.int8).reshape(-1, 2)
    # A ring ends where it began, so that the next one begins at the difference of both.
    step[is_first] = np.diff(ring["first"], axis=0, prepend=0)
    xy = np.cumsum(step, axis=0).astype(np.float64)
    parts = np.append(0, np.cumsum(counts))
    polygons[in_steps] = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, (rings, parts))
    return polygons
