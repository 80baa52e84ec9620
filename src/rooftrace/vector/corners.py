"""A binary mask as its signed corners, and the rings that run through them.

The weight of a pixel corner is the second difference of the mask around it,

    w = top-left - top-right - bottom-left + bottom-right,

so it is 0 inside, outside and along straight edges, ±1 at a turn and ±2 at a saddle, where two
pixels touch by their corners alone. Three facts carry this module:

- In every row of the corner grid the corners pair up, in order, into the horizontal edges of the
  outline, and in every column into the vertical ones. A saddle counts twice.
- Walked with the foreground on the right hand, a horizontal edge starts at a corner of positive
  weight and ends at one of negative weight. So each edge has one successor, and the rings of the
  outline are the cycles of a permutation.
- The weights of disjoint masks add. So the outline of a mask that was cut into blocks comes from
  the corners of the blocks, exactly and without the pixels.

The sum of any f over a region is the sum of weight * F over its corners, F being the integral
image of f: the discrete form of Green's theorem (Tang 1982, doi:10.1016/0146-664X(82)90177-2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Corners", "Rings", "find_corners", "merge_corners", "trace_rings"]

Ints = NDArray[np.int64]

# Rows taken at a time: the strip and its two differences stay in the processor's cache.
_STRIP_PX = 1 << 18
# Columns of a corner list are sorted by a radix sort where they fit 16 bits.
_RADIX_LIMIT = 1 << 16


@dataclass(frozen=True, slots=True)
class Corners:
    """Turns of the outline, in row-major order; a saddle stands twice, one after the other.

    Args:
        row: (n,) of the corner grid, 0 being the upper edge of pixel row 0.
        col: (n,) of the corner grid.
        weight: (n,) int8, +1 or -1.
    """

    row: Ints
    col: Ints
    weight: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.row)

    def moved(self, rows: int, cols: int) -> Corners:
        """The same corners in a grid whose origin lies `rows` and `cols` before this one's."""
        return Corners(self.row + rows, self.col + cols, self.weight)


@dataclass(frozen=True, slots=True)
class Rings:
    """Outlines as cycles of horizontal edges. Edge e lies between the corners 2e and 2e + 1.

    Rings are numbered by their first corner in row-major order.

    Args:
        edges: (m,) all edges, ring after ring, each ring in walking order from its first corner.
        offsets: (k + 1,) where each ring begins in `edges`.
        ring_of_edge: (m,) by edge number.
        is_shell: (k,) True for an outer ring, False for a hole.
        vertical: (m, 2) the corners of the vertical edges, sorted by column, then row.
    """

    edges: Ints
    offsets: Ints
    ring_of_edge: Ints
    is_shell: NDArray[np.bool_]
    vertical: Ints

    def __len__(self) -> int:
        return len(self.is_shell)

    def first_edge(self) -> Ints:
        """(k,) the edge that each ring starts with."""
        return self.edges[self.offsets[:-1]]

    def sums(self, per_edge: Ints) -> Ints:
        """(k,) the sum over each ring of a value (m,) per edge."""
        if not len(self):
            return np.zeros(0, np.int64)
        return np.add.reduceat(per_edge[self.edges], self.offsets[:-1])


def find_corners(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> Corners:
    """The corners of a mask (y, x), in its own corner grid; everything but 0 is foreground.

    Memory beyond the result is that of a few rows.
    """
    height, width = mask.shape
    step = max(1, min(height, _STRIP_PX // (width + 2)))
    padded = np.zeros((step + 2, width + 2), np.bool_)
    across = np.empty((step + 2, width + 1), np.int8)
    weight = np.empty((step + 1, width + 1), np.int8)
    found: list[tuple[Ints, NDArray[np.int8]]] = []
    # Strip [top, stop) of corner rows needs the pixel rows top - 1 up to stop - 1.
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
        found.append((where + top * (width + 1), flat[where]))
    key = np.concatenate([where for where, _ in found])
    return _expand(key, np.concatenate([w for _, w in found]), width + 1)


def merge_corners(parts: Sequence[Corners]) -> Corners:
    """The corners of the union of masks that share no pixel, all in one corner grid."""
    if not parts:
        none = np.zeros(0, np.int64)
        return Corners(none, none, np.zeros(0, np.int8))
    row = np.concatenate([part.row for part in parts])
    col = np.concatenate([part.col for part in parts])
    stride = int(col.max(initial=0)) + 1
    key = row * stride + col
    order = np.argsort(key, kind="stable")
    key = key[order]
    weight = np.concatenate([part.weight for part in parts])[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    if not len(starts):
        return Corners(row, col, weight)
    total = np.add.reduceat(weight, starts, dtype=np.int8)
    kept = total != 0
    return _expand(key[starts[kept]], total[kept], stride)


def _expand(key: Ints, weight: NDArray[np.int8], stride: int) -> Corners:
    """Corners from unique sorted positions; weights of ±2 become two corners."""
    saddle = np.abs(weight) == 2
    if saddle.any():
        times = saddle + np.int64(1)
        key, weight = np.repeat(key, times), np.sign(np.repeat(weight, times))
    row = key // stride
    return Corners(row, key - row * stride, weight)


def trace_rings(corners: Corners) -> Rings:
    """Joins corners to the rings of 4-connected regions, none of which touches itself.

    Pixels that meet at a corner alone are not joined by it. Where the two belong to one region all
    the same, that region's outline would touch itself there, which no valid polygon may do: the
    ring is cut in two at that corner, a shell and a hole or two holes.
    """
    n = len(corners)
    row, col, weight = corners.row, corners.col, corners.weight
    col_key = col - (col.min() if n else 0)
    if col_key.max(initial=0) < _RADIX_LIMIT:
        col_key = col_key.astype(np.uint16)
    order = np.argsort(col_key, kind="stable")
    # The first copy of a saddle ends the edge on its left and so has an odd number.
    first = np.arange(1, n - 1, 2)
    twin = (row[first] == row[first + 1]) & (col[first] == col[first + 1])
    first = first[twin]
    # Along its column the first copy (left, up or left, down) comes before the second where the
    # foreground lies top-left and bottom-right, after it where it lies the other way.
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
    """Exchanges, in column order, saddle copies `first` and the ones after them; in place."""
    at, after = place[first], place[first + 1]
    order[at], order[after] = first + 1, first
    place[first], place[first + 1] = after, at


def _successors(order: Ints, weight: NDArray[np.int8]) -> Ints:
    """(m,) the edge after each edge: from its end (weight < 0) along the vertical edge."""
    upper, lower = order[0::2], order[1::2]
    ends_above = weight[upper] < 0
    successor = np.empty(len(upper), np.int64)
    successor[np.where(ends_above, upper, lower) >> 1] = np.where(ends_above, lower, upper) >> 1
    return successor


def _cycle_labels(successor: Ints) -> Ints:
    """(m,) the smallest member of each one's cycle, by pointer doubling."""
    label = np.minimum(np.arange(len(successor)), successor)
    jump = successor
    while True:
        jump = jump[jump]
        ahead = label[jump]
        # Labels that a jump of 2^k leaves as they are have seen their whole cycle.
        if not (ahead < label).any():
            return label
        np.minimum(label, ahead, out=label)


def _arrange(successor: Ints, label: Ints, weight: NDArray[np.int8], vertical: Ints) -> Rings:
    """Cycles laid one after the other: list ranking by pointer doubling."""
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
    return Rings(edges, offsets, ring, weight[2 * leader] > 0, vertical)
