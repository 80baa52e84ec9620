"""Where the cells of a density grid lie: square metres on the ground, aligned across scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ConfigError
from rooftrace.core.types import DensityGrid, GeoGrid
from rooftrace.vector.density_plane import Bounds

__all__ = ["CellGrid"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Polygons = NDArray[np.object_]

MOST_CELLS = 10**7
_SLACK = 1e-9
"""In cells: an edge of the scene that is a multiple but for rounding begins no further cell."""


@dataclass(frozen=True)
class CellGrid:
    """Square cells whose edges lie at multiples of their size, so that neighbours' grids fit.

    A cell holds its left and its lower edge.

    Args:
        shape: (rows, columns); row 0 is the northernmost.
        cell_m: the side of a cell.
        first_col: x of the left edge of column 0, in cells.
        top_row: y of the lower edge of row 0, in cells.
        crs: projected, in metres; None on the plane of an image that lies nowhere.
    """

    shape: tuple[int, int]
    cell_m: float
    first_col: int
    top_row: int
    crs: CRS | None

    @classmethod
    def over(cls, bounds: Bounds, cell_m: float, crs: CRS | None) -> CellGrid:
        """The cells that a rectangle reaches into.

        Raises:
            ConfigError: there are more than ten million.
        """
        left, bottom, right, top = (edge / cell_m for edge in bounds)
        first_col, low_row = floor(left + _SLACK), floor(bottom + _SLACK)
        width = max(ceil(right - _SLACK) - first_col, 1)
        height = max(ceil(top - _SLACK) - low_row, 1)
        if width * height > MOST_CELLS:
            enough = cell_m * (width * height / MOST_CELLS) ** 0.5
            raise ConfigError(
                f"Cells of {cell_m:g} m make {height:,} rows × {width:,} columns, "
                f"{width * height:,} cells; at most {MOST_CELLS:,} are expected.",
                remedy=f"Use larger cells: --cell {_round_up(enough):g}",
            )
        return cls((height, width), cell_m, first_col, low_row + height - 1, crs)

    @classmethod
    def of(cls, density: DensityGrid) -> CellGrid:
        """The cells of a density grid."""
        t, side = density.grid.transform, density.cell_m
        return cls(
            density.grid.shape, side, round(t.c / side), round(t.f / side) - 1, density.grid.crs
        )

    @property
    def grid(self) -> GeoGrid:
        """One pixel for each cell."""
        side = self.cell_m
        corner = Affine(side, 0, self.first_col * side, 0, -side, (self.top_row + 1) * side)
        return GeoGrid(self.shape, corner, self.crs)

    @property
    def count(self) -> int:
        return self.shape[0] * self.shape[1]

    def columns(self, x: Floats) -> Ints:
        """The column of each x; may lie outside the grid."""
        return np.floor(x / self.cell_m).astype(np.int64) - self.first_col

    def rows(self, y: Floats) -> Ints:
        """The row of each y; may lie outside the grid."""
        return self.top_row - np.floor(y / self.cell_m).astype(np.int64)

    def index(self, x: Floats, y: Floats) -> Ints:
        """The number of the cell of each place, row by row; -1 outside the grid."""
        finite = np.isfinite(x) & np.isfinite(y)
        rows, cols = self.rows(np.where(finite, y, 0)), self.columns(np.where(finite, x, 0))
        height, width = self.shape
        inside = finite & (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        return np.where(inside, rows * width + cols, -1)

    def polygons(self, index: Ints) -> Polygons:
        """The outlines of cells by their numbers."""
        row, col = np.divmod(index, self.shape[1])
        left = (self.first_col + col) * self.cell_m
        bottom = (self.top_row - row) * self.cell_m
        boxes = shapely.box(left, bottom, left + self.cell_m, bottom + self.cell_m)
        return np.asarray(boxes, np.object_)

    def areas_of(self, polygons: Polygons) -> tuple[Ints, Floats]:
        """The parts of polygons by cell: (k,) numbers of cells and (k,) areas in m².

        Exact: what lies in several cells is cut along their edges, first into rows.

        Args:
            polygons: (n,) inside the grid but for rounding.
        """
        bounds = shapely.bounds(polygons)
        low, high = self.rows(bounds[:, 3]), self.rows(bounds[:, 1])
        strips, _, row = _cut(polygons, low, high, self.shape[0], self._row_box)
        bounds = shapely.bounds(strips)
        low, high = self.columns(bounds[:, 0]), self.columns(bounds[:, 2])
        pieces, strip, col = _cut(strips, low, high, self.shape[1], self._column_box)
        return row[strip] * self.shape[1] + col, shapely.area(pieces)

    def _row_box(self, row: Ints, bounds: Floats) -> Polygons:
        bottom = (self.top_row - row) * self.cell_m
        left, right = bounds[:, 0] - self.cell_m, bounds[:, 2] + self.cell_m
        return np.asarray(shapely.box(left, bottom, right, bottom + self.cell_m), np.object_)

    def _column_box(self, col: Ints, bounds: Floats) -> Polygons:
        left = (self.first_col + col) * self.cell_m
        bottom, top = bounds[:, 1] - self.cell_m, bounds[:, 3] + self.cell_m
        return np.asarray(shapely.box(left, bottom, left + self.cell_m, top), np.object_)


def _cut(
    polygons: Polygons,
    low: Ints,
    high: Ints,
    count: int,
    box: Callable[[Ints, Floats], Polygons],
) -> tuple[Polygons, Ints, Ints]:
    """Polygons cut into the strips low to high: pieces, whose they are, and their strips."""
    low, high = low.clip(0, count - 1), high.clip(0, count - 1)
    times = high - low + 1
    owner = np.repeat(np.arange(len(polygons)), times)
    strip = np.arange(len(owner)) - np.repeat(np.cumsum(times) - times - low, times)
    pieces = polygons[owner]
    several = times[owner] > 1
    edges = box(strip[several], shapely.bounds(pieces[several]))
    pieces[several] = shapely.intersection(pieces[several], edges)
    there = ~shapely.is_empty(pieces)
    return pieces[there], owner[there], strip[there]


def _round_up(value: float) -> float:
    """To two digits."""
    step = float(10.0 ** (floor(log10(value)) - 1))
    return ceil(value / step) * step
