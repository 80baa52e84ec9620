"""Polygons in pixels to footprints on the ground."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError

from rooftrace.core.types import Footprints, GeoGrid
from rooftrace.io.mend import mended
from rooftrace.vector.rectangles import smallest_rectangles

__all__ = ["make_footprints", "metres_per_px", "square_metres_per_px"]

Floats = NDArray[np.float64]
Polygons = NDArray[np.object_]

# Without metres: the image's upper side is taken for north.
_UPRIGHT = np.array([[1.0, 0.0], [0.0, -1.0]])


def make_footprints(
    polygons_px: Polygons,
    score: NDArray[np.float32],
    grid: GeoGrid,
    *,
    gsd_m: float | None = None,
) -> Footprints:
    """Footprints in the grid's CRS, or in pixels (x right, y down) where it has none.

    Args:
        polygons_px: (n,) shapely polygons in pixel coordinates of the grid, corner-based.
        score: (n,) in 0..1.
        grid: where the pixels lie.
        gsd_m: metres from one pixel to the next, for areas and perimeters, in place of what the
            grid says.

    Returns:
        All of them, in the order given. Metres are those of the WGS 84 ellipsoid at each polygon,
        or by `gsd_m`, or NaN where neither is known.
    """
    local = metres_per_px(grid, shapely.get_coordinates(shapely.centroid(polygons_px)))
    across = _size(local)
    # A place that is none, or a pixel that has no size there, tells neither metres nor directions.
    known = np.isfinite(across) & (across > 0)
    size_m = np.where(known, across, np.nan)
    if gsd_m is not None:
        size_m = np.full(len(polygons_px), float(gsd_m))
    # Directions and ratios of lengths need no scale, so they are known where metres are not.
    unscaled = np.where(known[:, None, None], local, _UPRIGHT)
    size = _size(unscaled)
    on_ground = _laid_out(polygons_px, unscaled / size[:, None, None])
    around = smallest_rectangles(on_ground)
    area = shapely.area(polygons_px)
    return Footprints(
        _to_world(polygons_px, grid),
        score.astype(np.float32, copy=False),
        area * size_m**2,
        grid.crs,
        perimeter_m=shapely.length(on_ground) * size_m,
        orientation_deg=(90 - np.degrees(around.angle)) % 180,
        rectangularity=np.minimum(area / around.area, 1),
    )


def square_metres_per_px(grid: GeoGrid, xy_px: Floats) -> Floats:
    """The area of a pixel on the WGS 84 ellipsoid, at places of the grid.

    Args:
        grid: where the pixels lie.
        xy_px: (n, 2) column and row, corner-based.

    Returns:
        (n,) square metres; NaN without a CRS and where it has no longitude and latitude.
    """
    return _size(metres_per_px(grid, xy_px)) ** 2


def metres_per_px(grid: GeoGrid, xy_px: Floats) -> Floats:
    """How far a step of one pixel leads on the WGS 84 ellipsoid, at places of the grid.

    The Jacobian of pixel to longitude and latitude by central differences, times the radii of the
    ellipsoid's curvature, N cos(lat) and M (Snyder 1987, USGS Professional Paper 1395, eq. 4-18 to
    4-21).

    Args:
        grid: where the pixels lie.
        xy_px: (n, 2) column and row, corner-based.

    Returns:
        (n, 2, 2) metres to the east and to the north (rows) for a step to the next column and to
        the next row (columns); NaN without a CRS and where it has no longitude and latitude.
    """
    unknown = np.full((len(xy_px), 2, 2), np.nan)
    if grid.crs is None:
        return unknown
    places = xy_px[:, None, :] + np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])
    x, y = grid.to_world(places[..., 0], places[..., 1])
    try:
        lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(x, y)
    except ProjError:
        # A local system that is tied to no place on the Earth.
        return unknown
    lon, lat = np.where(np.isfinite([lon, lat]), [lon, lat], np.nan)
    # Across the antimeridian longitudes jump by a whole turn.
    d_lon = np.radians((lon[:, 0::2] - lon[:, 1::2] + 180) % 360 - 180)
    d_lat = np.radians(lat[:, 0::2] - lat[:, 1::2])
    geod = Geod(ellps="WGS84")
    middle = np.radians(lat.mean(axis=1))
    stretch = np.sqrt(1 - geod.es * np.sin(middle) ** 2)
    east = geod.a * np.cos(middle) / stretch
    north = geod.a * (1 - geod.es) / stretch**3
    return np.stack([d_lon * east[:, None], d_lat * north[:, None]], axis=1)


def _size(metres: Floats) -> Floats:
    """(n,) metres from one pixel to the next: the geometric mean over directions."""
    across = metres[:, 0, 0] * metres[:, 1, 1] - metres[:, 0, 1] * metres[:, 1, 0]
    return np.asarray(np.sqrt(np.abs(across)))


def _laid_out(polygons: Polygons, step: Floats) -> Polygons:
    """Each polygon by its own linear map (n, 2, 2)."""
    xy, owner = shapely.get_coordinates(polygons, return_index=True)
    placed = np.einsum("nij,nj->ni", step[owner], xy)
    # What is given is left as it is.
    return np.asarray(shapely.set_coordinates(polygons.copy(), placed), np.object_)


def _to_world(polygons_px: Polygons, grid: GeoGrid) -> Polygons:
    """In the grid's CRS, exterior rings counter-clockwise; as it came without one."""
    if grid.crs is None:
        return polygons_px

    def place(xy: Floats) -> Floats:
        return np.stack(grid.to_world(xy[:, 0], xy[:, 1]), axis=1)

    placed = np.asarray(shapely.transform(polygons_px, place), np.object_)
    # Pixel rows grow downwards, so most transforms turn rings around.
    return mended(placed if grid.transform.determinant > 0 else shapely.reverse(placed))
