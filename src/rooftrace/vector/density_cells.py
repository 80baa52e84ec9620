"""Where the cells of a density grid lie: square metres on the ground, aligned across scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, log10

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Proj, Transformer
from pyproj.exceptions import CRSError, ProjError

from rooftrace.core.errors import ConfigError, GeoreferenceError
from rooftrace.core.types import GeoGrid
from rooftrace.io.reproject import reprojected

__all__ = ["Bounds", "CellGrid", "Ground", "metric_crs", "no_metres"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Polygons = NDArray[np.object_]
Bounds = tuple[float, float, float, float]
"""(left, bottom, right, top)."""

MOST_CELLS = 10**7
_SCALE_ERROR = 0.01
"""Up to this the metres of a map are taken for metres on the ground."""

_BEND_M = 0.01
"""How far a reprojected edge may lie off."""

_UTM_NORTH, _UTM_SOUTH = 84.0, -80.0
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


@dataclass(frozen=True)
class Ground:
    """From the pixels of a grid, and from polygons on it, to the plane of the cells.

    Args:
        grid: of the pixels.
        crs: of the cells; None where `gsd_m` is given.
        gsd_m: metres per pixel of an image that lies nowhere. Its plane has x to the right and y
            upwards from its upper left corner.
    """

    grid: GeoGrid
    crs: CRS | None
    gsd_m: float | None = None

    @classmethod
    def of(cls, grid: GeoGrid, gsd_m: float | None = None, *, name: str = "The image") -> Ground:
        """The plane that suits a grid.

        Args:
            gsd_m: metres per pixel, only where the grid does not say.
            name: of the grid, for errors.

        Raises:
            GeoreferenceError: neither the grid nor `gsd_m` says how large a pixel is.
            ConfigError: both do.
        """
        if gsd_m is not None:
            if _known_place(grid):
                raise ConfigError(
                    f"--gsd {gsd_m:g} was given, but {name} says itself where it lies.",
                    remedy="Leave --gsd out.",
                )
            return cls(grid, None, gsd_m)
        if grid.crs is None or not _known_place(grid):
            raise no_metres(name, grid.crs)
        return cls(grid, metric_crs(grid.crs, grid.bounds_xy))

    @cached_property
    def aligned(self) -> bool:
        """Whether rows and columns of pixels run along those of cells."""
        t = self.grid.transform
        return self.crs is None or (self._same_crs and t.b == 0 and t.d == 0)

    @cached_property
    def _same_crs(self) -> bool:
        return self.grid.crs is not None and self.grid.crs == self.crs

    def metres(self, cols: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """World x and y in metres of places in pixels, 0 being the outer edge of the first."""
        if self.gsd_m is not None:
            return cols * self.gsd_m, -rows * self.gsd_m
        x, y = self.grid.to_world(cols, rows)
        if self._same_crs:
            return x, y
        x, y = self._transformer.transform(x, y)
        return np.asarray(x), np.asarray(y)

    def px_area_m2(self, x: Floats, y: Floats) -> Floats:
        """The area of a pixel at places of the plane."""
        if self.gsd_m is not None:
            return np.full(x.shape, self.gsd_m**2)
        if self._same_crs:
            return np.full(x.shape, abs(self.grid.transform.determinant))
        world = self._transformer.transform(x, y, direction="INVERSE")
        t = ~self.grid.transform
        cols = t.a * world[0] + t.b * world[1] + t.c
        rows = t.d * world[0] + t.e * world[1] + t.f
        ends = [
            np.stack(self.metres(cols + d_col, rows + d_row))
            for d_col, d_row in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))
        ]
        along, down = ends[0] - ends[1], ends[2] - ends[3]
        return np.asarray(np.abs(along[0] * down[1] - along[1] * down[0]))

    def move(self, polygons: Polygons) -> Polygons:
        """Polygons of the grid's CRS, or in pixels without one, on the plane of the cells."""
        if self.gsd_m is not None:
            return np.asarray(shapely.transform(polygons, self._flipped), np.object_)
        assert self.grid.crs is not None
        assert self.crs is not None
        return reprojected(polygons, self.grid.crs, self.crs, _BEND_M)

    def move_pixels(self, polygons: Polygons) -> Polygons:
        """Polygons in pixels (x right, y down) on the plane of the cells."""
        if self.gsd_m is None:
            polygons = np.asarray(shapely.transform(polygons, self._placed), np.object_)
        return self.move(polygons)

    def _flipped(self, xy: Floats) -> Floats:
        return np.stack(self.metres(xy[:, 0], xy[:, 1]), axis=1)

    def _placed(self, xy: Floats) -> Floats:
        return np.stack(self.grid.to_world(xy[:, 0], xy[:, 1]), axis=1)

    @cached_property
    def _transformer(self) -> Transformer:
        assert self.grid.crs is not None
        return Transformer.from_crs(self.grid.crs, self.crs, always_xy=True)


def metric_crs(crs: CRS, bounds: Bounds) -> CRS:
    """A CRS whose metres are metres on the ground, to one percent, throughout a rectangle.

    The CRS itself, if it is such; else the UTM zone of the rectangle's middle, or UPS at the poles;
    else, where that reaches too far, Lambert's azimuthal equal-area projection about the whole
    degree that is nearest to the middle.

    Args:
        crs: of the rectangle.

    Raises:
        GeoreferenceError: the rectangle has no longitude and latitude.
    """
    lon, lat = _degrees(crs, bounds)
    # By its number, so that the grid of one scene is that of its neighbour.
    if crs.is_projected and crs.axis_info[0].unit_name == "metre" and _is_true(crs, lon, lat):
        return crs
    middle_lon, middle_lat = float(lon[0]), float(lat[0])
    if middle_lat > _UTM_NORTH or middle_lat < _UTM_SOUTH:
        zone = CRS.from_epsg(32661 if middle_lat > 0 else 32761)
    else:
        number = int((middle_lon + 180) // 6) % 60 + 1
        zone = CRS.from_epsg((32600 if middle_lat >= 0 else 32700) + number)
    if _is_true(zone, lon, lat):
        return zone
    return CRS.from_proj4(
        f"+proj=laea +lat_0={round(middle_lat)} +lon_0={round(middle_lon)} +datum=WGS84 +units=m"
    )


def no_metres(name: str, crs: CRS | None) -> GeoreferenceError:
    """What is told of an input that does not say where on the ground it lies."""
    has = "no coordinate system" if crs is None else f"the system {crs.name!r}"
    return GeoreferenceError(
        f"{name} has {has}, which does not say how many metres a pixel is.",
        remedy="Give the metres per pixel with --gsd, or assign a coordinate system "
        "(gdal_edit -a_srs).",
    )


def _known_place(grid: GeoGrid) -> bool:
    try:
        return grid.gsd_yx_m is not None
    except ProjError:
        return False


def _degrees(crs: CRS, bounds: Bounds) -> tuple[Floats, Floats]:
    """Longitude and latitude of a rectangle's middle, corners and middles of its sides."""
    left, bottom, right, top = bounds
    x, y = (left + right) / 2, (bottom + top) / 2
    xs = np.array([x, left, x, right, right, right, x, left, left])
    ys = np.array([y, top, top, top, y, bottom, bottom, bottom, y])
    try:
        lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(xs, ys)
    except (ProjError, CRSError):
        lon, lat = xs * np.inf, ys
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise GeoreferenceError(
            f"The rectangle {left:g}, {bottom:g} to {right:g}, {top:g} in the coordinate system "
            f"{crs.name!r} has no longitude and latitude.",
            remedy="Assign the coordinate system that the coordinates are in.",
        )
    return lon, lat


def _is_true(crs: CRS, lon: Floats, lat: Floats) -> bool:
    """Whether lengths on the map are those on the ground at all places, either way."""
    try:
        factors = Proj(crs).get_factors(lon, lat, errcheck=True)
    except (ProjError, CRSError):
        return False
    scales = np.array([factors.meridional_scale, factors.parallel_scale])
    return bool((np.abs(scales - 1) <= _SCALE_ERROR).all())


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
