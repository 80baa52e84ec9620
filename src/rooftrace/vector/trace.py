"""Exact polygons along the pixel edges of a mask.

Foreground is 4-connected: pixels that touch at a corner alone are two buildings. Polygons are
valid, lie on integer pixel coordinates, have vertices only where they turn, and cover exactly the
pixels of the mask.

A binary mask is represented by its signed corners, and the rings that run through them. The weight
of a pixel corner is the second difference of the mask around it,

    w = top-left - top-right - bottom-left + bottom-right,

so it is 0 inside, outside and along straight edges, ±1 at a turn and ±2 at a saddle, where two
pixels touch at a corner alone. Three facts carry this module:

- In every row of the corner grid the corners pair up, in order, into the horizontal edges of the
  outline, and in every column into the vertical ones. A saddle counts twice.
- Walked with the foreground on the right, a horizontal edge starts at a corner of positive weight
  and ends at one of negative weight. So each edge has one successor, and the rings of the outline
  are the cycles of a permutation.
- The weights of disjoint masks add. So the outline of a mask that was divided into blocks follows
  exactly from the corners of the blocks, without the pixels.

The sum of any f over a region is the sum of weight * F over its corners, where F is the integral
image of f: the discrete form of Green's theorem (Tang 1982, doi:10.1016/0146-664X(82)90177-2).

On masks of whole scenes this is 14 times as fast as `rasterio.features.shapes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.types import BoolArray, Floats, Ints, Polygons, Window

Labels = NDArray[np.int32]
Mask8 = NDArray[np.bool_] | NDArray[np.uint8]
Prob = NDArray[np.float32] | NDArray[np.uint8]

# Number of pixels of a strip that is processed at once; it and its two differences fit the cache.
_STRIP_PX = 1 << 18
# Column numbers below this fit 16 bits, for which NumPy sorts by radix.
_RADIX_LIMIT = 1 << 16
# Probabilities are added as multiples of 2^-23, the resolution of float32 just below 1. Sums of
# integers are exact, so a score depends neither on the blocks nor on their order.
_PROB_STEPS = 1 << 23
# A probability in 255ths is _BYTE_STEPS times its number of 255ths, and a rest.
_BYTE_STEPS = _PROB_STEPS // 255
_BYTE_REST = (
    (np.arange(256, dtype=np.float32) * np.float32(1 / 255) + np.float32(1) - np.float32(1))
    * np.float32(_PROB_STEPS)
    - np.arange(256) * _BYTE_STEPS
).astype(np.uint8)
# Number of pixels of a strip for the integral image, which needs 8 bytes for every pixel.
_INTEGRAL_STRIP_PX = 1 << 17


@dataclass(frozen=True)
class Columns:
    """Base of dataclasses whose fields are arrays of equal length, one entry for each row."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def of(self, rows: NDArray[np.bool_] | NDArray[np.integer[Any]] | slice) -> Self:
        """Return some of the rows, by a mask (n,), indices or a slice."""
        return type(self)(*(getattr(self, column.name)[rows] for column in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of one or more tables, one after the other."""
        columns = ([getattr(part, column.name) for part in parts] for column in fields(cls))
        return cls(*(np.concatenate(values) for values in columns))


@dataclass(frozen=True)
class Corners(Columns):
    """Corners of the outline in row-major order; a saddle occurs twice in succession.

    Args:
        row: (n,) row of the corner grid; 0 is the upper edge of pixel row 0.
        col: (n,) column of the corner grid.
        weight: (n,) int8, +1 or -1.
    """

    row: Ints
    col: Ints
    weight: NDArray[np.int8]

    @classmethod
    def of_mask(cls, mask: Mask8, window: Window) -> Corners:
        """Return the corners of a mask (y, x) that lies at `window` of its scene.

        All values but 0 are foreground. Memory beyond the result is that of a few rows.
        """
        height, width = mask.shape
        step = max(1, min(height, _STRIP_PX // (width + 2)))
        padded = np.zeros((step + 2, width + 2), np.bool_)
        across = np.empty((step + 2, width + 1), np.int8)
        weight = np.empty((step + 1, width + 1), np.int8)
        keys, weights = [], []
        # The strip [top, stop) of corner rows needs the pixel rows top - 1 to stop - 1.
        for top in range(0, height + 1, step + 1):
            rows = min(step + 1, height + 1 - top)
            first, last = max(top - 1, 0), min(top + rows, height)
            shift = first - (top - 1)
            padded[0], padded[rows] = False, False
            np.not_equal(mask[first:last], 0, out=padded[shift : shift + last - first, 1:-1])
            bits = padded[: rows + 1].view(np.int8)
            np.subtract(bits[:, 1:], bits[:, :-1], out=across[: rows + 1])
            np.subtract(across[1 : rows + 1], across[:rows], out=weight[:rows])
            flat = weight[:rows].reshape(-1)
            where = np.flatnonzero(flat != 0)
            keys.append(where + top * (width + 1))
            weights.append(flat[where])
        corners = cls._at(np.concatenate(keys), np.concatenate(weights), width + 1)
        return Corners(corners.row + window.row, corners.col + window.col, corners.weight)

    def merged(self) -> Corners:
        """Return the corners of the union of masks that share no pixel, given those of all of them
        in any order.
        """
        stride = int(self.col.max(initial=0)) + 1
        key = self.row * stride + self.col
        order = np.argsort(key, kind="stable")
        key = key[order]
        starts = np.flatnonzero(np.diff(key, prepend=-1))
        if not len(starts):
            return self
        total = np.add.reduceat(self.weight[order], starts, dtype=np.int8)
        return self._at(key[starts[total != 0]], total[total != 0], stride)

    @classmethod
    def _at(cls, key: Ints, weight: NDArray[np.int8], stride: int) -> Corners:
        """Return corners from unique sorted positions; weights of ±2 become two corners."""
        saddle = np.abs(weight) == 2
        if saddle.any():
            times = saddle + np.int64(1)
            key, weight = np.repeat(key, times), np.sign(np.repeat(weight, times))
        row = key // stride
        return cls(row, key - row * stride, weight)


@dataclass(frozen=True, slots=True)
class _Rings:
    """Outlines as cycles of horizontal edges; edge e lies between the corners 2e and 2e + 1.

    Rings are numbered by their first corner in row-major order.

    Args:
        edges: (m,) all edges, ring after ring, each ring in walking order from its first corner.
        offsets: (k + 1,) index in `edges` of each ring's first edge.
        ring_of_edge: (m,) ring of each edge.
        is_shell: (k,) True for an outer ring, False for a hole.
        vertical: (m, 2) corners of the vertical edges, sorted by column, then row.
    """

    edges: Ints
    offsets: Ints
    ring_of_edge: Ints
    is_shell: BoolArray
    vertical: Ints


def _trace_rings(corners: Corners) -> _Rings:
    """Join corners to the rings of 4-connected regions, none of which touches itself.

    Pixels that touch at a corner alone are not joined by it. If both belong to one region, the
    outline of that region would touch itself there, which a valid polygon may not do. So the ring
    is divided at that corner into a shell and a hole, or into two holes.
    """
    n = len(corners)
    row, col, weight = corners.row, corners.col, corners.weight
    col_key = col - (col.min() if n else 0)
    if col_key.max(initial=0) < _RADIX_LIMIT:
        col_key = col_key.astype(np.uint16)
    order = np.argsort(col_key, kind="stable")
    # The first copy of a saddle ends the edge on its left and so has an odd index.
    first = np.arange(1, n - 1, 2)
    twin = (row[first] == row[first + 1]) & (col[first] == col[first + 1])
    first = first[twin]
    # Along its column the first copy (left, up or left, down) comes before the second where the
    # foreground lies top-left and bottom-right, and after it otherwise.
    place = np.empty(n if len(first) else 0, np.int64)
    if len(first):
        place[order] = np.arange(n)
        _swap_twins(order, place, first[weight[first] < 0])
    successor = _successors(order, weight)
    label = _cycle_labels(successor)
    own = first[label[first >> 1] == label[(first + 1) >> 1]]
    if len(own):
        _swap_twins(order, place, own)
        successor = _successors(order, weight)
        cut = np.zeros(len(label), np.bool_)
        cut[label[own >> 1]] = True
        chosen = np.flatnonzero(cut[label])
        local = np.empty(len(label), np.int64)
        local[chosen] = np.arange(len(chosen))
        label[chosen] = chosen[_cycle_labels(local[successor[chosen]])]
    return _arrange(successor, label, weight, order.reshape(-1, 2))


def _swap_twins(order: Ints, place: Ints, first: Ints) -> None:
    """Exchange, in column order, the saddle copies `first` with those after them; in place."""
    at, after = place[first], place[first + 1]
    order[at], order[after] = first + 1, first
    place[first], place[first + 1] = after, at


def _successors(order: Ints, weight: NDArray[np.int8]) -> Ints:
    """Return (m,) the edge after each edge, reached from its end (weight < 0) by the vertical
    edge.
    """
    upper, lower = order[0::2], order[1::2]
    ends_above = weight[upper] < 0
    successor = np.empty(len(upper), np.int64)
    successor[np.where(ends_above, upper, lower) >> 1] = np.where(ends_above, lower, upper) >> 1
    return successor


def _cycle_labels(successor: Ints) -> Ints:
    """Return (m,) the smallest member of each edge's cycle, by pointer doubling."""
    label = np.minimum(np.arange(len(successor)), successor)
    jump = successor
    while True:
        jump = jump[jump]
        ahead = label[jump]
        # Labels that a jump of 2^k leaves unchanged have covered their whole cycle.
        if not (ahead < label).any():
            return label
        np.minimum(label, ahead, out=label)


def _arrange(successor: Ints, label: Ints, weight: NDArray[np.int8], vertical: Ints) -> _Rings:
    """Return the cycles one after the other: list ranking by pointer doubling."""
    m = len(label)
    leader = np.flatnonzero(label == np.arange(m))
    number = np.empty(m, np.int64)
    number[leader] = np.arange(len(leader))
    ring = number[label]
    length = np.bincount(ring, minlength=len(leader))
    offsets = np.concatenate([[0], np.cumsum(length)])
    jump = successor.copy()
    jump[leader] = leader
    to_leader = np.ones(m, np.int64)
    to_leader[leader] = 0
    for _ in range(int(length.max(initial=1) - 1).bit_length()):
        to_leader += to_leader[jump]
        jump = jump[jump]
    position = offsets[ring + 1] - to_leader
    position[leader] = offsets[:-1]
    edges = np.empty(m, np.int64)
    edges[position] = np.arange(m)
    # The first corner of a shell has its one foreground pixel below and to the right.
    return _Rings(edges, offsets, ring, weight[2 * leader] > 0, vertical)


@dataclass(frozen=True)
class TracedPolygons(Columns):
    """Connected regions of a mask, ordered by their first pixel, row by row.

    Args:
        polygons: (n,) shapely polygons in pixel coordinates (x = column, y = row, corner-based).
        score: (n,) float32, mean of the known probabilities of the region's pixels; NaN where
            there is none.
        area_px: (n,) int64, number of the region's pixels.
        first_pixel_yx: (n, 2) int64, row and column of each region's first pixel.
    """

    polygons: NDArray[np.object_]
    score: NDArray[np.float32]
    area_px: Ints
    first_pixel_yx: Ints

    @classmethod
    def none(cls) -> TracedPolygons:
        """Return an empty set of regions."""
        none = np.zeros(0, np.int64)
        return cls(np.zeros(0, np.object_), np.zeros(0, np.float32), none, none.reshape(0, 2))

    @classmethod
    def joined(cls, parts: Sequence[TracedPolygons]) -> TracedPolygons:
        """Return the regions of all parts, which share none, in order."""
        whole = super().joined([cls.none(), *parts])
        return whole.of(np.lexsort(whole.first_pixel_yx.T[::-1]))


def trace(mask: Mask8, window: Window | None = None, prob: Prob | None = None) -> TracedPolygons:
    """Return the polygons of a mask.

    Args:
        mask: (y, x) mask; all values but 0 are foreground.
        window: Position of the mask in its scene; polygons are in the scene's coordinates.
        prob: (y, x) probabilities, float32 in 0..1 or uint8 in 255ths; NaN where unknown. Values
            outside the foreground are ignored.

    Raises:
        ValueError: A foreground pixel's probability is infinite.
    """
    window = window or Window(0, 0, mask.shape[0], mask.shape[1])
    regions = Regions.of(Corners.of_mask(mask, window))
    score = np.full(len(regions.area_px), np.nan, np.float32)
    if prob is not None:
        score = mean_score(regions.integrate(mask, prob, window))
    every = np.ones(len(score), np.bool_)
    return TracedPolygons(regions.polygons(every), score, regions.area_px, regions.first_pixel_yx)


def ring_vertices(polygons: Polygons) -> tuple[Floats, Ints, Ints]:
    """Return (m, 2) the vertices of polygons (n,) ring by ring, (m,) their rings, and (rings,) the
    polygon of each; `shapely.get_rings` copies each ring.
    """
    count = shapely.get_num_interior_rings(polygons) + 1
    polygon = np.repeat(np.arange(len(polygons)), count)
    size = shapely.get_num_coordinates(polygons)[polygon]
    size[count[polygon] > 1] = shapely.get_num_coordinates(shapely.get_rings(polygons[count > 1]))
    return shapely.get_coordinates(polygons), np.repeat(np.arange(len(size)), size), polygon


def mean_score(total: Ints) -> NDArray[np.float32]:
    """Return (n,) mean probabilities, given (n, 2) sums of `Regions.integrate`; NaN if unknown."""
    with np.errstate(invalid="ignore"):
        return (total[:, 0] / (total[:, 1] * float(_PROB_STEPS))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Regions:
    """The connected regions that corners bound, ordered by their first pixel, row by row.

    Args:
        vertical: (edges, 2) corners of the vertical edges, sorted by column, then row.
        linearrings: (rings,) shapely rings, each beginning at its first corner.
        is_shell: (rings,) True for an outer ring, False for a hole.
        region_of_ring: (rings,) int64.
        region_of_edge: (edges,) int64; horizontal edge e lies between the corners 2e and 2e + 1.
        area_px: (regions,) int64.
        first_pixel_yx: (regions, 2) row and column.
    """

    corners: Corners
    vertical: Ints
    linearrings: NDArray[np.object_]
    is_shell: BoolArray
    region_of_ring: Ints
    region_of_edge: Ints
    area_px: Ints
    first_pixel_yx: Ints

    @classmethod
    def of(cls, corners: Corners) -> Regions:
        """Trace the corners."""
        rings = _trace_rings(corners)
        row, left, right = corners.row[0::2], corners.col[0::2], corners.col[1::2]
        starts_left = corners.weight[0::2] > 0
        vertices = np.empty((len(row), 2, 2))
        vertices[:, 0, 0] = np.where(starts_left, left, right)[rings.edges]
        vertices[:, 1, 0] = np.where(starts_left, right, left)[rings.edges]
        vertices[:, :, 1] = row[rings.edges, None]
        owner = np.repeat(np.arange(len(rings.is_shell)), 2 * np.diff(rings.offsets))
        linearrings = np.asarray(
            shapely.linearrings(vertices.reshape(-1, 2), indices=owner), np.object_
        )
        # Rings are ordered by their first corner, and that of a shell belongs to its region's first
        # pixel.
        region = np.cumsum(rings.is_shell) - 1
        first = rings.edges[rings.offsets[:-1]]
        holes = np.flatnonzero(~rings.is_shell)
        if len(holes):
            # The pixel above a hole's first corner is foreground and belongs to the region around
            # the hole. Shells around one pixel are nested, and the innermost begins last.
            points = shapely.points(left[first[holes]] + 0.5, row[first[holes]] - 0.5)
            shells = shapely.polygons(linearrings[rings.is_shell])
            region[holes] = -1
            shell, hole = shapely.STRtree(np.asarray(points, np.object_)).query(
                shells, predicate="contains"
            )
            np.maximum.at(region, holes[hole], shell)
        region_of_edge = region[rings.ring_of_edge]
        area = np.zeros(np.count_nonzero(rings.is_shell), np.int64)
        np.add.at(area, region_of_edge, corners.weight[1::2] * row * (right - left))
        first = first[rings.is_shell]
        return cls(
            corners, rings.vertical, linearrings, rings.is_shell, region, region_of_edge, area,
            np.stack([row[first], left[first]], axis=1),
        )  # fmt: skip

    def integrate(self, mask: Mask8, prob: Prob, window: Window) -> Ints:
        """Return (regions, 2) the sum of the probabilities over each region's pixels, and the
        number of pixels that have one, for `mean_score`.

        Raises:
            ValueError: A foreground pixel's probability is infinite.
        """
        total = np.zeros((len(self.area_px), 2), np.int64)
        total[:, 1] = self.area_px
        layers: list[tuple[int, Mask8, Prob, int]] = [(0, mask, prob, _PROB_STEPS)]
        if prob.dtype == np.uint8:
            rest = np.asarray(cv2.LUT(prob, _BYTE_REST), np.uint8)
            layers = [(0, mask, prob, _BYTE_STEPS), (0, mask, rest, 1)]
        elif np.isnan(prob).any():
            known = (mask != 0) & ~np.isnan(prob)
            total[:, 1] = 0
            layers = [(0, known, prob, _PROB_STEPS)]
            layers += [(1, known, np.ones(mask.shape, np.float32), 1)]
        row, cols = self.corners.row[0::2] - window.row, self.corners.col - window.col
        for column, chosen, values, steps in layers:
            along = _sums_along(chosen, values, row, cols.reshape(-1, 2))
            # Each sum along an edge is exact in float64; sums of these sums need integers.
            whole = (along * steps).astype(np.int64) * self.corners.weight[1::2]
            np.add.at(total[:, column], self.region_of_edge, whole)
        return total

    def polygons(self, chosen: BoolArray) -> NDArray[np.object_]:
        """Return the polygons of the regions that are `chosen` (regions,)."""
        shells = self.linearrings[self.is_shell]
        polygons = np.asarray(shapely.polygons(shells[chosen]), np.object_)
        holes = np.flatnonzero(~self.is_shell)
        holes = holes[chosen[self.region_of_ring[holes]]]
        if len(holes):
            pierced, number = np.unique(self.region_of_ring[holes], return_inverse=True)
            owner = np.concatenate([np.arange(len(pierced)), number])
            rings = np.concatenate([shells[pierced], self.linearrings[holes]])
            order = np.argsort(owner, kind="stable")
            place = (np.cumsum(chosen) - 1)[pierced]
            polygons[place] = shapely.polygons(rings[order], indices=owner[order])
        return polygons


def _sums_along(mask: Mask8, prob: Prob, row: Ints, cols: Ints) -> NDArray[np.float64]:
    """Return (n,) sums of probabilities above each horizontal edge, up to the mask's top.

    Of floats only the foreground counts, since other pixels may be infinite. Of bytes all pixels
    count: those outside of a region cancel each other out.

    Args:
        mask: (y, x) mask.
        prob: (y, x) probabilities.
        row: (n,) rows of the edges, ascending.
        cols: (n, 2) first and last column of each edge.
    """
    height, width = mask.shape
    step = max(1, min(height, _INTEGRAL_STRIP_PX // max(width, 1)))
    is_bytes = prob.dtype == np.uint8
    chosen: NDArray[Any] = np.empty((0 if is_bytes else step, width), prob.dtype)
    local = np.empty((step + 1, width + 1), np.int32 if is_bytes else np.float64)
    above = np.zeros(width + 1)
    sums = np.zeros(len(row))
    for top in range(0, height, step):
        stop = min(top + step, height)
        values: NDArray[Any] = np.ascontiguousarray(prob[top:stop])
        if not is_bytes:
            chosen.fill(0)
            bits = np.ascontiguousarray(mask[top:stop]).view(np.uint8)
            cv2.copyTo(values, bits, chosen[: stop - top])
            values = chosen[: stop - top]
            # Between 1 and 2 float32 has steps of 2^-23: this rounds to multiples of them.
            values += np.float32(1)
            values -= np.float32(1)
        strip = cv2.integral(
            values, local[: stop - top + 1], cv2.CV_32S if is_bytes else cv2.CV_64F
        )
        if not np.isfinite(strip[-1, -1]):
            raise ValueError(f"rows {top}:{stop}: a foreground pixel's probability is infinite")
        edges = slice(*np.searchsorted(row, [top, stop], side="right"))
        at, left, right = row[edges] - top, cols[edges, 0], cols[edges, 1]
        sums[edges] = (strip[at, right] - strip[at, left]) + (above[right] - above[left])
        above += strip[-1]
    return sums
