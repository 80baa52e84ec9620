"""Polygons in pixels to footprints on the ground."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError

from rooftrace.core.errors import GeoreferenceError
from rooftrace.core.types import Footprints, GeoGrid
from rooftrace.vector.simplify import simplify_staircase

__all__ = ["make_footprints", "square_metres_per_px"]

Floats = NDArray[np.float64]


def make_footprints(
    polygons_px: NDArray[np.object_],
    score: NDArray[np.float32],
    grid: GeoGrid,
    *,
    min_area_m2: float | None = None,
    min_area_px: float | None = None,
    simplify_px: float | None = None,
    gsd_m: float | None = None,
) -> Footprints:
    """Footprints in the grid's CRS, or in pixels (x right, y down) where it has none.

    Args:
        polygons_px: (n,) shapely polygons in pixel coordinates of the grid, corner-based.
        score: (n,) in 0..1.
        grid: where the pixels lie.
        min_area_m2: leaves out what is smaller, after simplification.
        min_area_px: leaves out what has fewer pixels, before simplification.
        simplify_px: tolerance of `simplify_staircase`; None or 0 keeps the pixel edges.
        gsd_m: metres from one pixel to the next, for areas, in place of what the grid says.

    Returns:
        Those that are large enough, in the order given. Areas are square metres on the WGS 84
        ellipsoid, or by `gsd_m`, or NaN where neither is known.

    Raises:
        GeoreferenceError: `min_area_m2` is given and metres are not known.
    """
    if min_area_px:
        large = shapely.area(polygons_px) >= min_area_px
        polygons_px, score = polygons_px[large], score[large]
    if simplify_px:
        polygons_px = simplify_staircase(polygons_px, simplify_px)
    if gsd_m is None:
        centre = shapely.get_coordinates(shapely.centroid(polygons_px))
        area_m2 = shapely.area(polygons_px) * square_metres_per_px(grid, centre)
    else:
        area_m2 = shapely.area(polygons_px) * gsd_m**2
    if min_area_m2:
        known = gsd_m is not None or (grid.crs is not None and np.isfinite(area_m2).all())
        if not known:
            where = "no coordinate system" if grid.crs is None else f"the system {grid.crs.name!r}"
            raise GeoreferenceError(
                f"A smallest area of {min_area_m2:g} m² was asked for, but the image has {where}, "
                "which does not say how large its pixels are on the ground.",
                remedy="Give the metres per pixel with --gsd, or the smallest area in pixels.",
            )
        large = area_m2 >= min_area_m2
        polygons_px, score, area_m2 = polygons_px[large], score[large], area_m2[large]
    return Footprints(
        _to_world(polygons_px, grid), score.astype(np.float32, copy=False), area_m2, grid.crs
    )


def square_metres_per_px(grid: GeoGrid, xy_px: Floats) -> Floats:
    """The area of a pixel on the WGS 84 ellipsoid, at places of the grid.

    The Jacobian of pixel to longitude and latitude by central differences, times the ellipsoid's
    area element M N cos(lat) (Snyder 1987, USGS Professional Paper 1395, eq. 4-18 to 4-21).

    Args:
        grid: where the pixels lie.
        xy_px: (n, 2) column and row, corner-based.

    Returns:
        (n,) square metres; NaN without a CRS and where it has no longitude and latitude.
    """
    if grid.crs is None:
        return np.full(len(xy_px), np.nan)
    places = xy_px[:, None, :] + np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])
    x, y = grid.to_world(places[..., 0], places[..., 1])
    try:
        lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(x, y)
    except ProjError:
        # A local system that is tied to no place on the Earth.
        return np.full(len(xy_px), np.nan)
    lon, lat = np.where(np.isfinite([lon, lat]), [lon, lat], np.nan)
    # Across the antimeridian longitudes jump by a whole turn.
    d_lon = np.radians((lon[:, 0::2] - lon[:, 1::2] + 180) % 360 - 180)
    d_lat = np.radians(lat[:, 0::2] - lat[:, 1::2])
    determinant = d_lon[:, 0] * d_lat[:, 1] - d_lon[:, 1] * d_lat[:, 0]
    geod = Geod(ellps="WGS84")
    middle = np.radians(lat.mean(axis=1))
    stretch = 1 - geod.es * np.sin(middle) ** 2
    element = geod.a**2 * (1 - geod.es) * np.cos(middle) / stretch**2
    return np.asarray(np.abs(determinant) * element, np.float64)


def _to_world(polygons_px: NDArray[np.object_], grid: GeoGrid) -> NDArray[np.object_]:
    """In the grid's CRS, exterior rings counter-clockwise; as it came without one."""
    if grid.crs is None:
        return polygons_px

    def place(xy: Floats) -> Floats:
        return np.stack(grid.to_world(xy[:, 0], xy[:, 1]), axis=1)

    placed = np.asarray(shapely.transform(polygons_px, place), np.object_)
    # Pixel rows grow downwards, so most transforms turn rings around.
    return placed if grid.transform.determinant > 0 else np.asarray(shapely.reverse(placed))
