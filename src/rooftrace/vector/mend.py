"""Polygons that rounding has made invalid."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["mended"]

Polygons = NDArray[np.object_]


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
    invalid = np.flatnonzero(~shapely.is_valid(polygons))
    invalid = invalid[np.isfinite(shapely.bounds(polygons[invalid])).all(axis=1)]
    if not len(invalid):
        return polygons
    made: Any = shapely.make_valid(polygons[invalid], method="structure", keep_collapsed=False)
    parts, owner = shapely.get_parts(made, return_index=True)
    solid = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (shapely.area(parts) > 0)
    parts, owner = parts[solid], owner[solid]
    order = np.lexsort((-shapely.area(parts), owner))
    largest = order[np.diff(owner[order], prepend=-1) > 0]
    result = polygons.copy()
    result[invalid[owner[largest]]] = shapely.orient_polygons(parts[largest])
    return result
