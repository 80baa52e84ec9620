"""Polygons that rounding has made invalid."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.io.reproject import moved

__all__ = ["mended", "rounded"]

Polygons = NDArray[np.object_]

_LON_LAT = CRS.from_user_input("OGC:CRS84")
_ROUNDS = 4
"""The vertices that mending makes are rounded, too; then what is left of it is mended again."""

_METHODS: tuple[dict[str, Any], ...] = (
    {"method": "structure", "keep_collapsed": False},
    {"method": "linework"},
)
"""Of crossings that are narrower than what numbers can tell apart the first may lose the polygon,
and the second its holes: what has nearly the area that it had is taken."""


def mended(polygons: Polygons) -> Polygons:
    """Valid polygons, each the largest part of its own.

    A ring may touch itself. Where its coordinates are moved, by a transform or to fewer digits,
    they are rounded, and what touched may cross by some 1e-10 of a pixel: enough for a database to
    refuse the polygon. What is cut off is as small.

    Args:
        polygons: (n,) shapely polygons, of which most are valid.

    Returns:
        (n,) those that were valid as they came, the others with exterior rings counter-clockwise;
        what has no area, or no place, as it came.
    """
    result = polygons
    for _ in range(_ROUNDS):
        invalid = np.flatnonzero(~shapely.is_valid(result))
        invalid = invalid[np.isfinite(shapely.bounds(result[invalid])).all(axis=1)]
        if not len(invalid):
            break
        if result is polygons:
            result = polygons.copy()
        _mend(result, invalid)
    return result


def rounded(geometry: Polygons, crs: CRS, digits: int) -> Polygons:
    """Polygons that are still valid when their longitudes and latitudes are rounded.

    Args:
        geometry: (n,) shapely polygons in `crs`.
        crs: of the geometry.
        digits: that are left after the point.

    Returns:
        (n,) in `crs`: as they came, but for those that rounding would make invalid, whose vertices
        are where it takes them. Multipolygons, those across the antimeridian, and what rounding
        leaves nothing of, come as they are.
    """
    if not len(geometry):
        return geometry
    placed = shapely.transform(geometry, lambda xy: moved(xy, crs, _LON_LAT))
    coarse = shapely.transform(placed, lambda xy: np.round(xy, digits))
    bad = ~shapely.is_valid(coarse) & (shapely.get_type_id(coarse) == shapely.GeometryType.POLYGON)
    index = np.flatnonzero(bad)
    bounds = shapely.bounds(coarse[index])
    known = np.isfinite(bounds).all(axis=1)
    index, bounds = index[known], bounds[known]
    index = index[bounds[:, 2] - bounds[:, 0] < 180]
    if not len(index):
        return geometry
    snapped = shapely.set_precision(mended(placed[index]), 10.0**-digits, mode="valid_output")
    largest, owner = _largest(snapped)
    result = geometry.copy()
    back = shapely.transform(largest, lambda xy: moved(xy, _LON_LAT, crs))
    result[index[owner]] = shapely.orient_polygons(back)
    return result


def _mend(polygons: Polygons, invalid: NDArray[np.intp]) -> None:
    given = polygons[invalid]
    wanted = np.asarray(shapely.area(given))
    lost = wanted.copy()
    for method in _METHODS:
        largest, owner = _largest(shapely.make_valid(given, **method))
        off = np.abs(shapely.area(largest) - wanted[owner])
        # Better than nothing: the next round goes on with it.
        off += np.where(shapely.is_valid(largest), 0, wanted[owner] / 2)
        better = off < lost[owner]
        owner = owner[better]
        lost[owner] = off[better]
        polygons[invalid[owner]] = shapely.orient_polygons(largest[better])


def _largest(geometry: Any) -> tuple[Polygons, NDArray[np.intp]]:
    """The largest polygon of each geometry that has one with an area, and whose it is."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    solid = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (shapely.area(parts) > 0)
    parts, owner = parts[solid], owner[solid]
    order = np.lexsort((-shapely.area(parts), owner))
    largest = order[np.diff(owner[order], prepend=-1) > 0]
    return parts[largest], owner[largest]
