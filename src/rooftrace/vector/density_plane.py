"""The plane that cells lie on: metres on the ground, whatever the image is in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Proj, Transformer
from pyproj.exceptions import CRSError, ProjError

from rooftrace.core.errors import ConfigError, GeoreferenceError
from rooftrace.core.types import GeoGrid
from rooftrace.io.reproject import reprojected

__all__ = ["Bounds", "Ground", "metric_crs"]

Floats = NDArray[np.float64]
Polygons = NDArray[np.object_]
Bounds = tuple[float, float, float, float]
"""(left, bottom, right, top)."""

_SCALE_ERROR = 0.01
"""Up to this the metres of a map are taken for metres on the ground."""

_BEND_M = 0.01
"""How far a reprojected edge may lie off."""

_UTM_NORTH, _UTM_SOUTH = 84.0, -80.0
_MERCATOR = ("Mercator", "Popular Visualisation Pseudo Mercator")


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
            raise _no_metres(name, grid.crs)
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

    def move(self, polygons: Polygons, crs: CRS | None) -> Polygons:
        """Polygons on the plane of the cells.

        Args:
            crs: of the polygons; None: they are in pixels of the grid (x right, y down).

        Raises:
            GeoreferenceError: they have a CRS and the grid lies nowhere, or they lie so far from it
                that they have no place there.
        """
        if crs is not None and self.crs is None:
            raise GeoreferenceError(
                f"The buildings have the coordinate system {crs.name!r}, but their mask has none.",
                remedy="Give the mask a georeference, or leave the buildings out: they are then "
                "taken from the mask.",
            )
        if self.crs is None:
            return np.asarray(shapely.transform(polygons, self._on_plane), np.object_)
        if crs is None:
            polygons = np.asarray(shapely.transform(polygons, self._in_world), np.object_)
            crs = self.grid.crs
        assert crs is not None
        moved = reprojected(polygons, crs, self.crs, _BEND_M)
        lost = np.count_nonzero(~np.isfinite(shapely.bounds(moved)).all(axis=1))
        if lost:
            raise GeoreferenceError(
                f"{lost} of {len(moved)} buildings in the coordinate system {crs.name!r} have "
                f"no place in {self.crs.name!r}, where their mask lies: they are far from it.",
                remedy="Give buildings and mask of one place, or look at both coordinate systems.",
            )
        return moved

    def _on_plane(self, xy: Floats) -> Floats:
        return np.stack(self.metres(xy[:, 0], xy[:, 1]), axis=1)

    def _in_world(self, xy: Floats) -> Floats:
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
    if _is_metric(crs) and _is_true(crs, lon, lat):
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


def _no_metres(name: str, crs: CRS | None) -> GeoreferenceError:
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


def _is_metric(crs: CRS) -> bool:
    """Whether its unit is the metre, and it is no Mercator projection about the equator."""
    operation = crs.coordinate_operation
    # Near the equator Web Mercator's are true enough; but scenes farther off would not fit then.
    mercator = operation is not None and operation.method_name.startswith(_MERCATOR)
    return crs.is_projected and crs.axis_info[0].unit_name == "metre" and not mercator


def _is_true(crs: CRS, lon: Floats, lat: Floats) -> bool:
    """Whether lengths on the map are those on the ground at all places, either way."""
    try:
        factors = Proj(crs).get_factors(lon, lat, errcheck=True)
    except (ProjError, CRSError):
        return False
    scales = np.array([factors.meridional_scale, factors.parallel_scale])
    return bool((np.abs(scales - 1) <= _SCALE_ERROR).all())
