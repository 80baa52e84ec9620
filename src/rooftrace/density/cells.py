"""The cells of a density grid, the plane in metres on which they lie, and their figures.

`GroundPlane` leads from the pixels of an image in any coordinate system to metres on the
ground. `CellGrid` divides that plane into squares that are aligned across scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, log10
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Proj, Transformer
from pyproj.exceptions import CRSError, ProjError

from rooftrace.core.arrays import numbered
from rooftrace.core.errors import ConfigError, GeoreferenceError
from rooftrace.core.text import ASSIGN_CRS, plain_number
from rooftrace.core.types import Bounds, Floats, GeoGrid, Ints, Polygons
from rooftrace.io.reproject import BEND_M, crs_text, reprojected, transformer, utm_zone

DENSITY_COLUMNS = (
    "built_up_share", "buildings_per_ha", "mean_area_m2", "nearest_m", "observed_share",
)  # fmt: skip
"""Names of the density figures that are written to files, in their order."""

_M2_PER_HA = 10_000.0

_LEAST_OBSERVED = 0.05
"""Share of a place that must be observed for a class of its density."""


@dataclass(frozen=True)
class DensityFigures:
    """Figures of building density in places: the cells of a grid, or zones.

    All arrays have one shape.

    Args:
        area_m2: float64 area of the place.
        observed_m2: float64 area of the part that was observed: inside the image and not nodata.
        built_m2: float64 area of the parts of buildings that lie in the place.
        buildings: int64 number of buildings whose centroid lies in the place.
        buildings_m2: float64 sum of the whole areas of these buildings.
        nearest_m: float64 mean distance from the centroids of these buildings to the centroid of
            the nearest other building, in any place (Clark & Evans 1954, Ecology 35); NaN if there
            is none.
    """

    area_m2: Floats
    observed_m2: Floats
    built_m2: Floats
    buildings: NDArray[np.int64]
    buildings_m2: Floats
    nearest_m: Floats

    @property
    def built_up_share(self) -> Floats:
        """Share of the observed area that is built up, 0..1; NaN where nothing was observed."""
        return np.minimum(ratio(self.built_m2, self.observed_m2), 1.0)

    @property
    def observed_share(self) -> Floats:
        """Share of the area that was observed, 0..1."""
        return np.minimum(ratio(self.observed_m2, self.area_m2), 1.0)

    @property
    def judged_share(self) -> Floats:
        """`built_up_share`, NaN where too little was observed to call a place sparse or dense."""
        return np.where(self.observed_share < _LEAST_OBSERVED, np.nan, self.built_up_share)

    @property
    def buildings_per_ha(self) -> Floats:
        """Buildings per hectare of observed area; NaN where nothing was observed."""
        return ratio(self.buildings, self.observed_m2) * _M2_PER_HA

    @property
    def mean_area_m2(self) -> Floats:
        """Mean area of a building; NaN where there is none."""
        return ratio(self.buildings_m2, self.buildings)

    def known(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values of the places, masked where nothing was observed and no building lies."""
        unseen = (self.observed_m2 == 0) & (self.buildings == 0)
        masked: NDArray[Any] = np.ma.masked_array(values, unseen)
        return masked

    def total(self) -> DensityFigures:
        """Return the figures of all places together, in arrays of shape (); none may overlap."""
        measured = np.isfinite(self.nearest_m)
        distances = (self.nearest_m[measured] * self.buildings[measured]).sum()
        return DensityFigures(
            np.asarray(self.area_m2.sum()),
            np.asarray(self.observed_m2.sum()),
            np.asarray(self.built_m2.sum()),
            np.asarray(self.buildings.sum()),
            np.asarray(self.buildings_m2.sum()),
            ratio(distances, self.buildings[measured].sum()),
        )

    def columns(self) -> dict[str, Floats]:
        """Return the figures named in `DENSITY_COLUMNS`."""
        return {name: getattr(self, name) for name in DENSITY_COLUMNS}

    def to_json(self) -> dict[str, float | int | None]:
        """Return the figures and the number of buildings of one place; None if not known."""
        figures = {name: float(value) for name, value in self.columns().items()}
        known = {name: value if np.isfinite(value) else None for name, value in figures.items()}
        return known | {"buildings": int(self.buildings)}


def ratio(over: Floats | NDArray[np.int64], under: Floats | NDArray[np.int64]) -> Floats:
    """Divide; NaN where the divisor is not positive."""
    over, under = np.asarray(over, np.float64), np.asarray(under, np.float64)
    ratio = np.full(np.broadcast_shapes(over.shape, under.shape), np.nan)
    return np.asarray(np.divide(over, under, out=ratio, where=under > 0))


_SCALE_ERROR = 0.01
"""Maximum relative scale error up to which the metres of a map count as metres on the ground."""

_UTM_NORTH, _UTM_SOUTH = 84.0, -80.0
_MERCATOR = ("Mercator", "Popular Visualisation Pseudo Mercator")


@dataclass(frozen=True)
class GroundPlane:
    """The mapping from pixels of a grid, and from polygons, to the plane of the cells.

    Args:
        grid: Grid of the pixels.
        crs: CRS of the cells; None where `gsd_m` is given.
        gsd_m: Metres per pixel of an image without georeference. Its plane has x to the right and y
            upwards, with the origin at the upper left corner of the image.
    """

    grid: GeoGrid
    crs: CRS | None
    gsd_m: float | None = None

    @classmethod
    def of(
        cls, grid: GeoGrid, gsd_m: float | None = None, *, name: str = "The image"
    ) -> GroundPlane:
        """Return the plane that suits a grid.

        Args:
            grid: Grid of the pixels.
            gsd_m: Metres per pixel, only where the grid does not give them.
            name: Name of the grid in error messages.
        """
        try:
            is_placed = grid.gsd_yx_m is not None
        except ProjError:
            is_placed = False
        if gsd_m is not None:
            if is_placed:
                raise ConfigError(
                    f"--gsd {plain_number(gsd_m, 6)} was given, but {name} is georeferenced.",
                    remedy="Remove --gsd.",
                )
            return cls(grid, None, gsd_m)
        if grid.crs is None or not is_placed:
            raise GeoreferenceError(
                f"{name} is in {crs_text(grid.crs)}, so that the size of a pixel in metres is not "
                "known.",
                remedy="Give the metres per pixel with --gsd, or assign a coordinate system: "
                + ASSIGN_CRS,
            )
        return cls(grid, metric_crs(grid.crs, grid.bounds_xy))

    @cached_property
    def _same_crs(self) -> bool:
        return self.grid.crs is not None and self.grid.crs == self.crs

    def metres(self, cols: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """Return x and y in metres of pixel coordinates; 0 is the outer edge of the first pixel."""
        if self.gsd_m is not None:
            return cols * self.gsd_m, -rows * self.gsd_m
        x, y = self.grid.to_world(cols, rows)
        if self._same_crs:
            return x, y
        x, y = self._transformer.transform(x, y)
        return np.asarray(x), np.asarray(y)

    def pixels(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return the columns and rows of positions of the plane, the inverse of `metres`."""
        if self.gsd_m is not None:
            return x / self.gsd_m, -y / self.gsd_m
        if not self._same_crs:
            x, y = self._transformer.transform(x, y, direction="INVERSE")
        cols, rows = self.grid.to_pixels(np.stack([x, y], axis=-1).reshape(-1, 2)).T
        return cols.reshape(x.shape), rows.reshape(x.shape)

    def px_area_m2(self, x: Floats, y: Floats) -> Floats:
        """Return the area of a pixel at positions of the plane."""
        if self.gsd_m is not None:
            return np.full(x.shape, self.gsd_m**2)
        if self._same_crs:
            return np.full(x.shape, abs(self.grid.transform.determinant))
        cols, rows = self.pixels(x, y)
        ends = [
            np.stack(self.metres(cols + d_col, rows + d_row))
            for d_col, d_row in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))
        ]
        along, down = ends[0] - ends[1], ends[2] - ends[3]
        return np.asarray(np.abs(along[0] * down[1] - along[1] * down[0]))

    def reproject(self, polygons: Polygons, crs: CRS | None) -> Polygons:
        """Return polygons on the plane of the cells.

        Args:
            polygons: (n,) polygons.
            crs: CRS of the polygons; None: they are in pixels of the grid (x right, y down).
        """
        if crs is not None and self.crs is None:
            raise GeoreferenceError(
                f"The buildings are in {crs_text(crs)}, but their mask has no coordinate system.",
                remedy="Georeference the mask, or leave out the buildings: they are then "
                "traced in the mask.",
            )
        if crs is None:
            place = self.metres if self.crs is None else self.grid.to_world
            moved = shapely.transform(polygons, lambda xy: np.stack(place(*xy.T), axis=1))
            polygons, crs = np.asarray(moved, np.object_), self.grid.crs
        if self.crs is None:
            return polygons
        assert crs is not None
        moved = reprojected(polygons, crs, self.crs, BEND_M)
        lost = np.count_nonzero(~np.isfinite(shapely.bounds(moved)).all(axis=1))
        if lost:
            raise GeoreferenceError(
                f"{lost} of {len(moved)} buildings in {crs_text(crs)} have "
                f"no coordinates in {crs_text(self.crs)}, the system of the mask: too far away.",
                remedy="Give buildings and mask of one place, or check both coordinate systems.",
            )
        return moved

    @property
    def _transformer(self) -> Transformer:
        assert self.grid.crs is not None
        assert self.crs is not None
        return transformer(self.grid.crs, self.crs)


def metric_crs(crs: CRS, bounds: Bounds) -> CRS:
    """Return a CRS whose metres are true on the ground, to one percent, throughout a rectangle.

    It is the given CRS if that is metric and true. Otherwise it is the UTM zone of the rectangle's
    centre, or UPS at the poles. Where neither is true throughout, it is Lambert's azimuthal
    equal-area projection, centred on the nearest whole degree.

    Args:
        crs: CRS of the rectangle.
        bounds: The rectangle.

    Raises:
        GeoreferenceError: The rectangle has no longitude and latitude.
    """
    lon, lat = _degrees(crs, bounds)
    # A compound CRS has its projection in the horizontal part.
    map_crs = next((part for part in crs.sub_crs_list if part.is_projected), crs)
    operation = map_crs.coordinate_operation
    # Near the equator Web Mercator is true enough, but the cells of scenes farther north or south
    # would then not fit together with those there.
    mercator = operation is not None and operation.method_name.startswith(_MERCATOR)
    is_metric = map_crs.is_projected and map_crs.axis_info[0].unit_name == "metre"
    if is_metric and not mercator and _is_true(crs, lon, lat):
        return crs
    middle_lon, middle_lat = float(lon[0]), float(lat[0])
    if middle_lat > _UTM_NORTH or middle_lat < _UTM_SOUTH:
        zone = CRS.from_epsg(32661 if middle_lat > 0 else 32761)
    else:
        zone = utm_zone(middle_lon, middle_lat)
    if _is_true(zone, lon, lat):
        return zone
    return CRS.from_proj4(
        f"+proj=laea +lat_0={round(middle_lat)} +lon_0={round(middle_lon)} +datum=WGS84 +units=m"
    )


def _degrees(crs: CRS, bounds: Bounds) -> tuple[Floats, Floats]:
    """Return longitude and latitude of a rectangle's centre, corners and midpoints of the sides."""
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
            f"{crs_text(crs)} has no longitude and latitude.",
            remedy="Assign the coordinate system that the coordinates are in.",
        )
    return lon, lat


def _is_true(crs: CRS, lon: Floats, lat: Floats) -> bool:
    """Return True if lengths on the map equal those on the ground in all directions."""
    try:
        factors = Proj(crs).get_factors(lon, lat, errcheck=True)
    except (ProjError, CRSError):
        return False
    scales = np.array([factors.meridional_scale, factors.parallel_scale])
    return bool((np.abs(scales - 1) <= _SCALE_ERROR).all())


MAX_CELLS = 10**7
"""Maximum number of cells of a grid."""

_SLACK = 1e-9
"""Tolerance in cells: an edge that exceeds a multiple by rounding alone begins no further cell."""


@dataclass(frozen=True)
class CellGrid:
    """Square cells whose edges lie at multiples of their size, so that neighbours align.

    A cell includes its left and its lower edge.

    Args:
        shape: (rows, columns); row 0 is the northernmost.
        cell_m: Side of a cell in metres.
        first_col: x of the left edge of column 0, in cells.
        top_row: y of the lower edge of row 0, in cells.
        crs: Projected CRS in metres; None on the plane of an image without georeference.
    """

    shape: tuple[int, int]
    cell_m: float
    first_col: int
    top_row: int
    crs: CRS | None

    @classmethod
    def over(cls, bounds: Bounds, cell_m: float, crs: CRS | None) -> CellGrid:
        """Return the cells that a rectangle overlaps.

        Raises:
            ConfigError: There are more than `MAX_CELLS`.
        """
        left, bottom, right, top = (edge / cell_m for edge in bounds)
        first_col, low_row = floor(left + _SLACK), floor(bottom + _SLACK)
        width = max(ceil(right - _SLACK) - first_col, 1)
        height = max(ceil(top - _SLACK) - low_row, 1)
        if width * height > MAX_CELLS:
            enough = cell_m * (width * height / MAX_CELLS) ** 0.5
            raise ConfigError(
                f"Cells of {cell_m:g} m make {height:,} rows × {width:,} columns, "
                f"{width * height:,} cells; at most {MAX_CELLS:,} are expected.",
                remedy=f"Use larger cells: --cell {plain_number(_round_up(enough), 6)}",
            )
        return cls((height, width), cell_m, first_col, low_row + height - 1, crs)

    @property
    def grid(self) -> GeoGrid:
        """A grid with one pixel for each cell."""
        side = self.cell_m
        corner = Affine(side, 0, self.first_col * side, 0, -side, (self.top_row + 1) * side)
        return GeoGrid(self.shape, corner, self.crs)

    @property
    def count(self) -> int:
        return self.shape[0] * self.shape[1]

    def columns(self, x: Floats) -> Ints:
        """Return the column of each x, which may lie outside the grid."""
        return np.floor(x / self.cell_m).astype(np.int64) - self.first_col

    def rows(self, y: Floats) -> Ints:
        """Return the row of each y, which may lie outside the grid."""
        return self.top_row - np.floor(y / self.cell_m).astype(np.int64)

    def index(self, x: Floats, y: Floats) -> Ints:
        """Return the index of the cell at each position, row by row; -1 outside the grid."""
        finite = np.isfinite(x) & np.isfinite(y)
        rows, cols = self.rows(np.where(finite, y, 0)), self.columns(np.where(finite, x, 0))
        height, width = self.shape
        inside = finite & (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        return np.where(inside, rows * width + cols, -1)

    def polygons(self, index: Ints) -> Polygons:
        """Return the outlines of cells, given their indices."""
        row, col = np.divmod(index, self.shape[1])
        left = (self.first_col + col) * self.cell_m
        bottom = (self.top_row - row) * self.cell_m
        boxes = shapely.box(left, bottom, left + self.cell_m, bottom + self.cell_m)
        return np.asarray(boxes, np.object_)

    def areas_of(self, polygons: Polygons) -> tuple[Ints, Floats]:
        """Return the parts of polygons by cell: (k,) indices of cells and (k,) areas in m².

        The areas are exact: polygons are divided along the edges of cells, first into rows.

        Args:
            polygons: (n,) polygons inside the grid except for rounding.
        """
        strips, _, row = self._cut(polygons, 1)
        pieces, strip, col = self._cut(strips, 0)
        row = self.top_row - row[strip]
        return row * self.shape[1] + col - self.first_col, shapely.area(pieces)

    def _cut(self, polygons: Polygons, axis: int) -> tuple[Polygons, Ints, Ints]:
        """Divide polygons at multiples of the cells' side along x (0) or y (1).

        Returns:
            The pieces, the index of each piece's polygon, and the number of its strip, from the
            origin.
        """
        first = self.first_col if axis == 0 else self.top_row + 1 - self.shape[0]
        last = first + self.shape[1 - axis] - 1
        edges = shapely.bounds(polygons)[:, [axis, axis + 2]]
        low, high = np.floor(edges / self.cell_m).astype(np.int64).clip(first, last).T
        owner, strip = numbered(high - low + 1)
        strip += low[owner]
        pieces = polygons[owner]
        several = (high > low)[owner]
        boxes = shapely.bounds(pieces[several])
        # Along the other axis, the strip goes beyond the polygon.
        boxes[:, [1 - axis, 3 - axis]] += (-self.cell_m, self.cell_m)
        boxes[:, axis] = strip[several] * self.cell_m
        boxes[:, axis + 2] = boxes[:, axis] + self.cell_m
        pieces[several] = shapely.intersection(pieces[several], shapely.box(*boxes.T))
        there = ~shapely.is_empty(pieces)
        return pieces[there], owner[there], strip[there]


@dataclass(frozen=True)
class DensityGrid:
    """Building density of a scene, cell by cell.

    Args:
        cells: The cells.
        figures: Figures of each cell, in arrays of the shape of the cells.
        outside: Number of buildings that are not counted, since their centroid lies on ground that
            was not observed.
    """

    cells: CellGrid
    figures: DensityFigures
    outside: int = 0

    @property
    def grid(self) -> GeoGrid:
        """Grid with one pixel per cell, north up, in metres."""
        return self.cells.grid


def _round_up(value: float) -> float:
    """Return a value rounded up to two digits."""
    step = float(10.0 ** (floor(log10(value)) - 1))
    return ceil(value / step) * step
