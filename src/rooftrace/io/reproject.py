"""Polygons from one coordinate system to another, long edges included."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from rooftrace.core.errors import GeoreferenceError
from rooftrace.core.types import GeoGrid

__all__ = ["degrees_text", "moved", "outline_bounds", "outline_pixels", "reprojected"]

Floats = NDArray[np.float64]
Bounds = tuple[float, float, float, float]

_OUTLINE_POINTS = 21
"""Along each side of a rectangle whose image in another system is bent."""


def reprojected(
    geometry: NDArray[np.object_], source: CRS, target: CRS, tolerance: float
) -> NDArray[np.object_]:
    """Geometry in another coordinate system.

    A straight edge is bent in another projection. Where the middle of an edge would lie off by more
    than `tolerance` the edge is given vertices: the deviation falls with the square of its length.

    Args:
        geometry: (n,) shapely polygons and multipolygons in `source`.
        tolerance: in units of `target`.

    Returns:
        (n,) in `target`; coordinates that it does not have are infinite.

    Raises:
        GeoreferenceError: there is no way between the two.
    """
    if not len(geometry) or source.equals(target, ignore_axis_order=True):
        return geometry
    length = _edge_lengths(geometry, source, target, tolerance)
    bent = np.isfinite(length)
    if bent.any():
        geometry = geometry.copy()
        geometry[bent] = shapely.segmentize(geometry[bent], length[bent])
    placed = shapely.transform(geometry, lambda xy: moved(xy, source, target))
    return np.asarray(placed, np.object_)


def outline_bounds(grid: GeoGrid, target: CRS) -> Bounds | None:
    """(left, bottom, right, top) of a grid in another system; None where it has no place there.

    Raises:
        GeoreferenceError: there is no way between the two.
    """
    xy = _outline(grid, target)
    if not len(xy):
        return None
    (left, bottom), (right, top) = xy.min(axis=0), xy.max(axis=0)
    return float(left), float(bottom), float(right), float(top)


def outline_pixels(grid: GeoGrid, other: GeoGrid) -> Floats:
    """(n, 2) columns and rows in another grid of places along the outline of this one.

    Those that have no place in the other's system are left out.
    """
    assert other.crs is not None
    x, y = _outline(grid, other.crs).T
    inverse = ~other.transform
    cols = inverse.a * x + inverse.b * y + inverse.c
    return np.stack([cols, inverse.d * x + inverse.e * y + inverse.f], axis=1)


def _outline(grid: GeoGrid, target: CRS) -> Floats:
    assert grid.crs is not None
    side = np.linspace(0, 1, _OUTLINE_POINTS)
    zero, one = np.zeros_like(side), np.ones_like(side)
    cols = np.concatenate([side, one, side, zero]) * grid.width
    rows = np.concatenate([zero, side, one, side]) * grid.height
    xy = moved(np.stack(grid.to_world(cols, rows), axis=1), grid.crs, target)
    return xy[np.isfinite(xy).all(axis=1)]


def degrees_text(bounds: Bounds, crs: CRS) -> str:
    """Bounds in longitude and latitude, for a message."""
    left, bottom, right, top = bounds
    corners = np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
    try:
        xy = moved(corners, crs, CRS.from_epsg(4326))
    except GeoreferenceError:
        xy = np.full((4, 2), np.inf)
    if not np.isfinite(xy).all():
        return f"{left:g} to {right:g} and {bottom:g} to {top:g} in {crs.name}"
    (west, south), (east, north) = xy.min(axis=0), xy.max(axis=0)
    return f"longitude {west:.5f} to {east:.5f}, latitude {south:.5f} to {north:.5f}"


def _edge_lengths(
    geometry: NDArray[np.object_], source: CRS, target: CRS, tolerance: float
) -> Floats:
    """(n,) how long an edge of each geometry may be; infinite where all are short enough."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    within = ring[1:] == ring[:-1]
    start, stop, edge_of = xy[:-1][within], xy[1:][within], owner[part[ring[1:][within]]]
    ends = moved(xy, source, target)
    straight = (ends[:-1][within] + ends[1:][within]) / 2
    with np.errstate(invalid="ignore"):
        off = np.hypot(*(straight - moved((start + stop) / 2, source, target)).T)
    # Infinite ends give no number: such geometry is left to who asked for it.
    pieces = np.ceil(np.sqrt(np.where(np.isfinite(off), off, 0) / tolerance))
    long = pieces > 1
    length = np.full(len(geometry), np.inf)
    shares = np.hypot(*(stop - start)[long].T) / pieces[long]
    np.minimum.at(length, edge_of[long], shares)
    return length


def moved(xy: Floats, source: CRS, target: CRS) -> Floats:
    """(n, 2) from one system to another, infinite where that has no such place.

    Raises:
        GeoreferenceError: there is no way between the two.
    """
    try:
        return np.stack(_transformer(source, target).transform(*xy.T), axis=1)
    except ProjError as error:
        raise GeoreferenceError(
            f"There is no way from the coordinate system {source.name!r} to {target.name!r}: "
            f"{error}.",
            remedy="Assign the one that the coordinates are in, with gdal_edit -a_srs (images) or "
            "ogr2ogr -a_srs (vector files).",
        ) from error


@lru_cache(maxsize=32)
def _transformer(source: CRS, target: CRS) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)
