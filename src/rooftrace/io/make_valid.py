"""Make polygons valid: each source of invalid ones has its own rule of what they mean.

- An outline that a person drew (`valid_geometry`) covers what GDAL colours where it is drawn: what
  it surrounds an odd number of times. Labels agree with their masks only by this rule.
- A polygon of a file (`valid_by_structure`) has exterior and interior rings.
- A polygon that was valid before its coordinates were rounded (`make_polygons_valid`, `rounded`)
  has nearly the same area as before.
"""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.types import Floats, Polygons

_ROUNDS = 4
"""Maximum number of repairs: new vertices are rounded, too, and may make a polygon invalid."""

_METHODS: tuple[dict[str, Any], ...] = (
    {"method": "structure", "keep_collapsed": False},
    {"method": "linework"},
)
"""Methods of `shapely.make_valid`. At crossings narrower than the precision of numbers the first
may lose the polygon and the second its holes: the result with the most similar area is used."""


def made_valid(geometry: Any, **method: Any) -> Any:
    """Return valid geometry like `shapely.make_valid`, in two dimensions.

    Of coordinates as large as those of UTM, GEOS loses so many digits that it fails at rings that
    touch ("unable to assign free hole to a shell"), so each geometry is moved near the origin. By
    whole numbers no coordinate is rounded there and back.
    """
    low, high = np.split(np.atleast_2d(shapely.bounds(geometry)), 2, axis=1)
    offset = np.trunc(np.clip(0, low, high))

    def moved(given: Any, by: Floats) -> Any:
        _, owner = shapely.get_coordinates(given, return_index=True)
        return shapely.transform(given, lambda xy: xy + by[owner])

    # A damaged coordinate may be so large that its products overflow.
    with np.errstate(over="ignore", invalid="ignore"):
        return moved(shapely.make_valid(moved(geometry, -offset), **method), offset)


def valid_geometry(geometry: Polygons) -> Polygons:
    """Return (n,) geometries as GDAL draws them, made valid; their type may change."""
    valid = geometry.copy()
    invalid = ~shapely.is_valid(valid)
    valid[invalid] = made_valid(valid[invalid])
    return valid


def valid_polygons(polygons: Polygons) -> Polygons:
    """Return (n,) polygons as GDAL draws them, made valid.

    If a polygon falls into several parts, the largest is kept. A polygon without area becomes
    empty.
    """
    valid = valid_geometry(polygons)
    others = np.flatnonzero(shapely.get_type_id(valid) != shapely.GeometryType.POLYGON)
    largest, owner = largest_parts(valid[others])
    valid[others] = shapely.Polygon()
    valid[others[owner]] = largest
    return valid


def valid_by_structure(geometry: Polygons) -> Polygons:
    """Return (n,) geometries made valid, without lines and points; their type may change.

    An interior ring never becomes a part of its own, even where it leaves its exterior.
    """
    return np.asarray(made_valid(geometry, **_METHODS[0]), np.object_)


def make_polygons_valid(polygons: Polygons) -> Polygons:
    """Return valid polygons; of a polygon that falls into parts, the largest part.

    A ring may touch itself. A transform, or fewer digits, rounds its coordinates, and what touched
    may cross by some 1e-10 of a pixel: enough for a database to refuse the polygon. The parts that
    are cut off are as small.

    Args:
        polygons: (n,) shapely polygons, most of them valid.

    Returns:
        (n,) polygons: valid ones unchanged, the others with exterior rings counter-clockwise.
        Polygons without an area or with infinite coordinates are unchanged.
    """
    result = polygons
    for _ in range(_ROUNDS):
        invalid = np.flatnonzero(~shapely.is_valid(result))
        invalid = invalid[np.isfinite(shapely.bounds(result[invalid])).all(axis=1)]
        if not len(invalid):
            break
        if result is polygons:
            result = polygons.copy()
        given = result[invalid]
        area = np.asarray(shapely.area(given))
        best = area.copy()
        for method in _METHODS:
            largest, owner = largest_parts(made_valid(given, **method))
            difference = np.abs(shapely.area(largest) - area[owner])
            # An invalid result is better than none: the next round repairs it further.
            difference += np.where(shapely.is_valid(largest), 0, area[owner] / 2)
            better = difference < best[owner]
            owner = owner[better]
            best[owner] = difference[better]
            result[invalid[owner]] = shapely.orient_polygons(largest[better])
    return result


def rounded(geometry: Polygons, digits: int) -> Polygons:
    """Return polygons with few decimal places that are valid.

    Args:
        geometry: (n,) shapely polygons and multipolygons, in degrees or pixels.
        digits: Decimal places of their coordinates.

    Returns:
        (n,) polygons. Those that rounding would make invalid are repaired; of a polygon that falls
        into parts, the largest part. Polygons that the repair would remove, and infinite ones, are
        rounded alone.
    """
    coarse = np.asarray(shapely.transform(geometry, lambda xy: np.round(xy, digits)), np.object_)
    index = np.flatnonzero(~shapely.is_valid(coarse))
    index = index[np.isfinite(shapely.bounds(coarse[index])).all(axis=1)]
    snapped = shapely.set_precision(valid_by_structure(geometry[index]), 10.0**-digits)
    multi = shapely.get_type_id(geometry[index]) == shapely.GeometryType.MULTIPOLYGON
    for chosen, kept in ((~multi, largest_parts), (multi, _solid)):
        repaired, owner = kept(snapped[chosen])
        coarse[index[chosen][owner]] = shapely.orient_polygons(repaired)
    return coarse


def polygon_parts(geometry: Polygons) -> tuple[Polygons, NDArray[np.intp]]:
    """Return (m,) the polygons inside (n,) geometries, and (m,) the index of their geometry."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    while (shapely.get_type_id(parts) > shapely.GeometryType.POLYGON).any():
        parts, inner = shapely.get_parts(parts, return_index=True)
        owner = owner[inner]
    areal = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)
    return np.asarray(parts[areal], np.object_), owner[areal]


def areal(geometry: Polygons) -> Polygons:
    """Return valid polygons and multipolygons: rounding may cross rings that touch."""
    return without_lines(valid_geometry(geometry))


def without_lines(valid: Polygons) -> Polygons:
    """Return valid geometries, with the polygons of each collection in its place, joined."""
    mixed = np.flatnonzero(shapely.get_type_id(valid) > shapely.GeometryType.MULTIPOLYGON)
    for index in mixed.tolist():
        parts, _ = polygon_parts(valid[[index]])
        # Parts of a collection may overlap, those of a multipolygon may not.
        valid[index] = parts[0] if len(parts) == 1 else shapely.union_all(parts)
    return valid


def largest_parts(geometry: Any) -> tuple[Polygons, NDArray[np.intp]]:
    """Return the largest polygon of each geometry that has one, and the geometry's index."""
    parts, owner = polygon_parts(geometry)
    order = np.lexsort((-shapely.area(parts), owner))
    largest = order[np.diff(owner[order], prepend=-1) > 0]
    return parts[largest], owner[largest]


def _solid(geometry: Any) -> tuple[Polygons, NDArray[np.intp]]:
    """Return the polygons of each geometry that has one as a multipolygon, and its index."""
    parts, owner = polygon_parts(geometry)
    index, number = np.unique(owner, return_inverse=True)
    return np.asarray(shapely.multipolygons(parts, indices=number), np.object_), index
