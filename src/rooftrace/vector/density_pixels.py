"""Pixels of a mask counted by the cells that their centres lie in, whatever the blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Window
from rooftrace.io.legend import NODATA
from rooftrace.vector.density_cells import CellGrid
from rooftrace.vector.density_plane import Ground

__all__ = ["PixelCounter", "pixel_bounds"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask8 = NDArray[np.uint8]

_NODE_PX = 64
"""From one place that is projected to the next; between them the map is taken for bilinear, which
is off by less than a thousandth of a pixel."""

_SQUARE_PX = 16
"""Pixels are assigned by squares of this size where a square lies in one cell."""

_TOGETHER = 1024
"""Squares whose pixels are looked at one by one, at a time."""


@dataclass(frozen=True)
class _Rectangles:
    """A block cut by lines into rectangles.

    Args:
        rows, cols: where each begins, from the block's own corner; ascending.
        cell: (rows, columns) the number of the cell that a rectangle lies in; -1 where it lies in
            several.
    """

    rows: Ints
    cols: Ints
    cell: Ints


class PixelCounter:
    """Counts valid and building pixels by cell.

    Counts are whole numbers and a pixel's cell depends on its place alone, so the result does not
    depend on the blocks.

    Args:
        ground: where the pixels lie.
        cells: that reach over all of them.
        building_class: the class index that is counted.
    """

    def __init__(self, ground: Ground, cells: CellGrid, building_class: int) -> None:
        self._ground, self._cells, self._class = ground, cells, building_class
        self.valid_px: Ints = np.zeros(cells.count, np.int64)
        self.built_px: Ints = np.zeros(cells.count, np.int64)

    def feed(self, window: Window, mask: Mask8) -> None:
        """Takes a block of class indices (y, x), NODATA where nothing is known."""
        if self._ground.aligned:
            self._add(window, mask, self._along_cells(window))
            return
        squares = _Squares.of(self._ground, window)
        parts = self._by_squares(window, squares)
        self._add(window, mask, parts)
        self._add_one_by_one(window, mask, squares, parts)

    def _add(self, window: Window, mask: Mask8, parts: _Rectangles) -> None:
        """Counts the rectangles that lie in one cell."""
        whole = parts.cell >= 0
        built = _sums(mask, self._class, parts)
        valid = _areas(window, parts) - _sums(mask, NODATA, parts)
        np.add.at(self.built_px, parts.cell[whole], built[whole])
        np.add.at(self.valid_px, parts.cell[whole], valid[whole])

    def _along_cells(self, window: Window) -> _Rectangles:
        row_of, col_of = self._tables
        row_of = row_of[window.row : window.row_stop]
        col_of = col_of[window.col : window.col_stop]
        rows = np.flatnonzero(np.diff(row_of, prepend=-1))
        cols = np.flatnonzero(np.diff(col_of, prepend=-1))
        return _Rectangles(rows, cols, row_of[rows][:, None] * self._cells.shape[1] + col_of[cols])

    @cached_property
    def _tables(self) -> tuple[Ints, Ints]:
        """The cells' row of each row of pixels, and their column of each column."""
        height, width = self._ground.grid.shape
        rows: Floats = np.arange(height, dtype=np.float64) + 0.5
        cols: Floats = np.arange(width, dtype=np.float64) + 0.5
        x, _ = self._ground.metres(cols, np.zeros(width))
        _, y = self._ground.metres(np.zeros(height), rows)
        return self._cells.rows(y), self._cells.columns(x)

    def _by_squares(self, window: Window, squares: _Squares) -> _Rectangles:
        corners = self._cells.index(squares.x, squares.y)
        first = corners[:-1, :-1]
        # Cells are convex: what lies between four corners in one cell lies in it.
        one = (first == corners[1:, :-1]) & (first == corners[:-1, 1:])
        one &= first == corners[1:, 1:]
        rows = (squares.rows[:-1] - window.row).clip(0)
        cols = (squares.cols[:-1] - window.col).clip(0)
        return _Rectangles(rows, cols, np.where(one, first, -1))

    def _add_one_by_one(
        self, window: Window, mask: Mask8, squares: _Squares, parts: _Rectangles
    ) -> None:
        """Counts the pixels of squares that lie in several cells, each in its own."""
        down, along = np.nonzero(parts.cell < 0)
        for start in range(0, len(down), _TOGETHER):
            chosen = slice(start, start + _TOGETHER)
            rows, cols, x, y = squares.pixels(down[chosen], along[chosen])
            inside = (
                (rows >= window.row) & (rows < window.row_stop)
                & (cols >= window.col) & (cols < window.col_stop)
            )  # fmt: skip
            cell = self._cells.index(x[inside], y[inside])
            values = mask[rows[inside] - window.row, cols[inside] - window.col]
            known = (cell >= 0) & (values != NODATA)
            np.add.at(self.valid_px, cell[known], 1)
            np.add.at(self.built_px, cell[known & (values == self._class)], 1)


@dataclass(frozen=True)
class _Squares:
    """The squares of the grid that a block touches; where their corners lie on the ground.

    Args:
        rows, cols: the lines between squares, in pixels of the grid.
        x, y: (lines, lines) of the corners.
    """

    rows: Ints
    cols: Ints
    x: Floats
    y: Floats

    @classmethod
    def of(cls, ground: Ground, window: Window) -> _Squares:
        height, width = ground.grid.shape
        rows, node_rows = _lines(window.row, window.row_stop, height)
        cols, node_cols = _lines(window.col, window.col_stop, width)
        x, y = ground.metres(*np.meshgrid(node_cols.astype(float), node_rows.astype(float)))
        along, down = _between(cols, node_cols), _between(rows, node_rows)
        return cls(rows, cols, _bilinear(x, down, along), _bilinear(y, down, along))

    def pixels(self, down: Ints, along: Ints) -> tuple[Ints, Ints, Floats, Floats]:
        """Row, column, x and y (k, 16, 16) of the centres of the pixels of k squares."""
        top, left = self.rows[down], self.cols[along]
        height, width = self.rows[down + 1] - top, self.cols[along + 1] - left
        step = np.arange(_SQUARE_PX)
        v = ((step + 0.5) / height[:, None])[:, :, None]
        u = ((step + 0.5) / width[:, None])[:, None, :]
        rows = np.where(v < 1, (top[:, None] + step)[:, :, None], -1)
        cols = np.where(u < 1, (left[:, None] + step)[:, None, :], -1)
        x, y = (self._inside(values, down, along, u, v) for values in (self.x, self.y))
        rows, cols = np.broadcast_arrays(rows, cols)
        return rows, cols, x, y

    def _inside(self, values: Floats, down: Ints, along: Ints, u: Floats, v: Floats) -> Floats:
        a, b = values[down, along], values[down, along + 1]
        c, d = values[down + 1, along], values[down + 1, along + 1]
        a, b, c, d = (corner[:, None, None] for corner in (a, b, c, d))
        return np.asarray(a + (b - a) * u + (c - a) * v + (d - b - c + a) * (u * v))


def pixel_bounds(ground: Ground) -> tuple[float, float, float, float]:
    """(left, bottom, right, top) of all pixels of a grid on the plane of the cells, exactly as
    `PixelCounter` places them.
    """
    height, width = ground.grid.shape
    rows, cols = (np.append(np.arange(0, n, _NODE_PX), n).astype(float) for n in (height, width))
    zero_r, zero_c = np.zeros_like(rows), np.zeros_like(cols)
    along = np.concatenate([cols, cols, zero_r, zero_r + width])
    down = np.concatenate([zero_c, zero_c + height, rows, rows])
    x, y = ground.metres(along, down)
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _lines(start: int, stop: int, size: int) -> tuple[Ints, Ints]:
    """The lines between squares that reach from start to stop, and the nodes that do."""
    low, high = start // _NODE_PX, -(-stop // _NODE_PX)
    nodes = np.minimum(np.arange(low, high + 1) * _NODE_PX, size)
    first, last = start // _SQUARE_PX, -(-stop // _SQUARE_PX)
    return np.minimum(np.arange(first, last + 1) * _SQUARE_PX, size), nodes


def _between(lines: Ints, nodes: Ints) -> tuple[Ints, Floats]:
    """The node before each line, and how far it lies on the way to the next, 0..1."""
    node = (np.searchsorted(nodes, lines, side="right") - 1).clip(0, len(nodes) - 2)
    return node, (lines - nodes[node]) / (nodes[node + 1] - nodes[node])


def _bilinear(values: Floats, down: tuple[Ints, Floats], along: tuple[Ints, Floats]) -> Floats:
    (row, v), (col, u) = down, along
    v = v[:, None]
    above, below = values[row], values[row + 1]
    left = above[:, col] * (1 - v) + below[:, col] * v
    right = above[:, col + 1] * (1 - v) + below[:, col + 1] * v
    return np.asarray(left * (1 - u) + right * u)


def _sums(mask: Mask8, value: int, parts: _Rectangles) -> Ints:
    """How many pixels of each rectangle have a value."""
    counts = np.zeros(parts.cell.shape, np.int64)
    for number, (start, stop) in enumerate(zip(parts.rows, [*parts.rows[1:], len(mask)])):
        band = (mask[start:stop] == value).view(np.uint8)
        counts[number] = np.add.reduceat(_down(band), parts.cols)
    return counts


def _down(band: Mask8) -> NDArray[np.int32]:
    """The sum of each column."""
    return np.asarray(cv2.reduce(band, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0], np.int32)


def _areas(window: Window, parts: _Rectangles) -> Ints:
    """Of the rectangles, in pixels."""
    heights = np.diff(parts.rows, append=window.height)
    return np.asarray(heights[:, None] * np.diff(parts.cols, append=window.width), np.int64)
