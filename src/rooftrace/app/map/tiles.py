"""Vector tiles of outlines: what lies in a tile, clipped, no finer than its pixels.

Where a tile would hold too many buildings they are merged into cells.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.app.map.mvt import EXTENT, Rings, encode_tile
from rooftrace.app.map.outlines import Outlines, Ragged, spans
from rooftrace.app.map.place import TileId

__all__ = ["DEEPEST_ZOOM", "MOST_BYTES", "TILE_PX", "VectorTiles"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TILE_PX = 512
"""Of the screen, for which a tile is made."""

MOST_BYTES = 500_000
MOST_FEATURES = 12_000
DEEPEST_ZOOM = 16
"""A unit of its tiles is 0.15 m at the equator; from there on the browser enlarges them."""

_UNITS_PER_PX = EXTENT // TILE_PX
_BUFFER = 8 * _UNITS_PER_PX
_UNCLIPPED = EXTENT // 4
"""What reaches no farther out of a tile is sent whole: to clip it takes longer."""

_SNAP = _UNITS_PER_PX // 4
_TINY = _UNITS_PER_PX // 2
_MANY_VERTICES = 40
_CELLS = (128, 64)
"""Along the side of a tile, of four pixels each; where that is too much, of eight."""


class VectorTiles:
    """Tiles of one scene's outlines.

    Below `first_zoom` a tile has the layer `cells`: squares with how many buildings have their
    middle there, `n`, the share that they cover and the means of their scores, in thousandths, and
    of their sizes. From it on there is the layer `buildings`, each with its row in the file as its
    id, and `score`, `size` and `kind` as in `Outlines`.

    Args:
        outlines: of the scene.
    """

    def __init__(self, outlines: Outlines) -> None:
        self.outlines = outlines

    @cached_property
    def first_zoom(self) -> int:
        """From which on no tile holds more than `MOST_FEATURES`."""
        for zoom in range(DEEPEST_ZOOM, -1, -1):
            col, row = np.floor(self.outlines.centres * (1 << zoom)).astype(np.int64).T
            _, counts = np.unique(col << 32 | row, return_counts=True)
            if len(counts) and counts.max() > MOST_FEATURES:
                return min(zoom + 1, DEEPEST_ZOOM)
        return 0

    def buildings(self, tile: TileId) -> bytes:
        """One by one; no bytes where there are none."""
        which = self._inside(tile)
        while True:
            which = self._largest(which, MOST_FEATURES)
            made = self._encoded(tile, which)
            if len(made) <= MOST_BYTES:
                return made
            which = self._largest(which, int(len(which) * 0.9 * MOST_BYTES / len(made)))

    def cells(self, tile: TileId, score: int = 0, size: int = 0) -> bytes:
        """Those with at least this score and size, counted in cells."""
        passing = self.outlines.passing(score, size)
        for across in _CELLS:
            made = self._counted(tile, passing, across)
            if len(made) <= MOST_BYTES:
                break
        return made

    def _counted(self, tile: TileId, passing: NDArray[np.bool_], across: int) -> bytes:
        outlines, scale = self.outlines, 1 << tile.zoom
        at = (outlines.centres * scale - (tile.col, tile.row)) * across
        inside = ((at >= 0) & (at < across)).all(axis=1) & passing
        col, row = np.floor(at[inside]).astype(np.int64).T
        cell = row * across + col
        count = np.bincount(cell, minlength=across**2)
        used = np.flatnonzero(count)
        n = count[used]

        def total(values: Floats | Ints) -> Floats:
            return np.asarray(np.bincount(cell, values[inside], across**2)[used], np.float64)

        share = total(outlines.areas) * (scale * across) ** 2
        attributes = {
            "n": n,
            "share": _rounded(share.clip(0, 1) * 1000, 20),
            "size": _rounded(total(outlines.size) / n, 10),
        }
        if outlines.score is not None:
            attributes["score"] = _rounded(total(outlines.score) / n, 10)
        side = EXTENT // across
        corner = np.stack([used % across, used // across], axis=1) * side
        rings = _boxes(corner, corner + side)
        return encode_tile("cells", rings, np.arange(len(used)), attributes)

    def _inside(self, tile: TileId) -> Ints:
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

    def _encoded(self, tile: TileId, which: Ints) -> bytes:
        outlines = self.outlines
        scale, origin = float(EXTENT << tile.zoom), np.array([tile.col, tile.row]) * EXTENT
        bounds = outlines.bounds[which] * scale - np.tile(origin, 2)
        snap = 1 if tile.zoom >= DEEPEST_ZOOM else _SNAP
        tiny = np.zeros(len(which), np.bool_)
        if snap > 1:
            tiny[:] = (bounds[:, 2:] - bounds[:, :2] < _TINY).all(axis=1)
        shapes = outlines.shapes.take(which[~tiny])
        shapes = Ragged(shapes.xy * scale - origin, shapes.rings, shapes.polygons, shapes.features)
        shapes, feature = _cut(shapes, bounds[~tiny], snap)
        rings = _quantised(shapes, snap)
        numbers = np.flatnonzero(~tiny)[feature]
        parts = [Rings(rings.xy, rings.starts, numbers[rings.feature])]
        if tiny.any():
            middle = (bounds[tiny, :2] + bounds[tiny, 2:]) / 2
            half = np.maximum(bounds[tiny, 2:] - bounds[tiny, :2], _UNITS_PER_PX // 4) / 2
            low = np.floor(middle - half).astype(np.int64)
            boxes = _boxes(low, np.maximum(np.ceil(middle + half).astype(np.int64), low + 1))
            parts.append(Rings(boxes.xy, boxes.starts, np.flatnonzero(tiny)[boxes.feature]))
        together = _in_order(parts)
        shown, feature = np.unique(together.feature, return_inverse=True)
        kept = which[shown]
        attributes = {"size": outlines.size[kept]}
        if outlines.score is not None:
            attributes["score"] = outlines.score[kept]
        if outlines.kind is not None:
            attributes["kind"] = outlines.kind[kept]
        return encode_tile(
            "buildings",
            Rings(together.xy, together.starts, feature),
            outlines.rows[kept],
            attributes,
        )


def _rounded(values: Floats, step: int) -> Ints:
    """To multiples of a step, so that few values differ and a tile is small."""
    return np.rint(values / step).astype(np.int64) * step


def _cut(shapes: Ragged, bounds: Floats, snap: int) -> tuple[Ragged, Ints]:
    """What reaches far out of the tile clipped, what has many vertices simplified.

    Returns:
        The shapes, and which of those given each is, ascending.
    """
    low, high = bounds[:, :2], bounds[:, 2:]
    far = np.any((low < -_UNCLIPPED) | (high > EXTENT + _UNCLIPPED), axis=1)
    long = (shapes.vertices > _MANY_VERTICES) & (snap > 1)
    which = np.flatnonzero(far | long)
    everyone = np.arange(len(shapes))
    if not len(which):
        return shapes, everyone
    geometry = shapes.take(which).geometry()
    if snap > 1:
        geometry = shapely.simplify(geometry, snap, preserve_topology=True)
    cut = far[which]
    frame = (-_BUFFER, -_BUFFER, EXTENT + _BUFFER, EXTENT + _BUFFER)
    geometry[cut] = shapely.clip_by_rect(geometry[cut], *frame)
    parts, owner = shapely.get_parts(geometry, return_index=True)
    polygonal = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    polygonal &= ~shapely.is_empty(parts)
    changed = Ragged.of(parts[polygonal])
    rest = np.setdiff1d(everyone, which)
    others = shapes.take(rest)
    together = Ragged(
        np.concatenate([others.xy, changed.xy]),
        _joined(others.rings, changed.rings),
        _joined(others.polygons, changed.polygons),
        _joined(others.features, changed.features),
    )
    feature = np.concatenate([rest, which[owner[polygonal]]])
    order = np.argsort(feature, kind="stable")
    return together.take(order), feature[order]


def _joined(first: Ints, second: Ints) -> Ints:
    return np.concatenate([first, second[1:] + first[-1]])


def _quantised(shapes: Ragged, snap: int) -> Rings:
    """On whole units, without vertices that say nothing and rings without an area."""
    xy = np.rint(shapes.xy / snap).astype(np.int64) * snap
    open_rings = np.diff(shapes.rings) - 1
    ring = np.repeat(np.arange(len(open_rings)), open_rings + 1)
    last = np.zeros(len(xy), np.bool_)
    last[shapes.rings[1:] - 1] = True
    xy, ring = xy[~last], ring[~last]
    for useless in (_doubled, _straight):
        kept = ~useless(xy, ring)
        xy, ring = xy[kept], ring[kept]
    count = np.bincount(ring, minlength=len(open_rings))
    area = _areas(xy, ring, len(open_rings))
    polygon = np.repeat(np.arange(len(shapes.polygons) - 1), np.diff(shapes.polygons))
    exterior = np.zeros(len(open_rings), np.bool_)
    exterior[shapes.polygons[:-1]] = True
    sound = (count >= 3) & (area != 0)
    # A hole goes with the polygon that it is in.
    sound &= sound[shapes.polygons[:-1]][polygon]
    kept = sound[ring]
    xy, ring = xy[kept], ring[kept]
    count = np.where(sound, count, 0)
    starts = np.concatenate([[0], np.cumsum(count[sound])])
    number = np.cumsum(sound) - 1
    xy = _turned(xy, number[ring], starts, (area > 0)[sound] != exterior[sound])
    owner = np.repeat(np.arange(len(shapes)), np.diff(shapes.features))
    return Rings(xy, starts, owner[polygon[sound]])


def _neighbours(ring: Ints) -> tuple[Ints, Ints]:
    """Of each vertex, the one before and the one after on its ring."""
    count = len(ring)
    first = np.flatnonzero(np.diff(ring, prepend=-1))
    stop = np.append(first[1:], count)
    before, after = np.arange(count) - 1, np.arange(count) + 1
    before[first], after[stop - 1] = stop - 1, first
    return before, after


def _doubled(xy: Ints, ring: Ints) -> NDArray[np.bool_]:
    if not len(ring):
        return np.zeros(0, np.bool_)
    before, _ = _neighbours(ring)
    return np.asarray((xy == xy[before]).all(axis=1))


def _straight(xy: Ints, ring: Ints) -> NDArray[np.bool_]:
    """On the line between their neighbours."""
    if not len(ring):
        return np.zeros(0, np.bool_)
    before, after = _neighbours(ring)
    (ax, ay), (bx, by) = (xy - xy[before]).T, (xy[after] - xy).T
    return np.asarray(ax * by == ay * bx)


def _areas(xy: Ints, ring: Ints, count: int) -> Floats:
    """(count,) twice the area of each ring, positive where it runs clockwise on the screen."""
    if not len(ring):
        return np.zeros(count)
    _, after = _neighbours(ring)
    cross = xy[:, 0] * xy[after, 1] - xy[after, 0] * xy[:, 1]
    return np.asarray(np.bincount(ring, cross, count), np.float64)


def _turned(xy: Ints, ring: Ints, starts: Ints, wrong: NDArray[np.bool_]) -> Ints:
    """With some rings the other way round."""
    at = np.arange(len(xy))
    mirrored = starts[ring] + starts[ring + 1] - 1 - at
    return xy[np.where(wrong[ring], mirrored, at)]


def _boxes(low: Ints, high: Ints) -> Rings:
    """(n, 2) upper left and lower right corners, as rings that run clockwise on the screen."""
    left, top = low.T
    right, bottom = high.T
    corners = np.stack([left, top, right, top, right, bottom, left, bottom], axis=1)
    count = len(low)
    return Rings(corners.reshape(-1, 2), np.arange(count + 1) * 4, np.arange(count))


def _in_order(parts: list[Rings]) -> Rings:
    """The rings of several, ordered by their features."""
    if len(parts) == 1:
        return parts[0]
    xy = np.concatenate([part.xy for part in parts])
    starts = parts[0].starts
    for part in parts[1:]:
        starts = _joined(starts, part.starts)
    feature = np.concatenate([part.feature for part in parts])
    order = np.argsort(feature, kind="stable")
    vertex, ordered = spans(starts, order)
    return Rings(xy[vertex], ordered, feature[order])
