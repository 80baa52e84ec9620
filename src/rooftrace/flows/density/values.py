"""Totals by zone of a value of each building, such as its height."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import DataError
from rooftrace.core.text import list_first
from rooftrace.core.types import Floats, Polygons
from rooftrace.io.reproject import reprojected
from rooftrace.io.vector_read import VectorFile

_FLOORS = ("num_floors", "num_floors_estimated")


def zone_values(
    path: Path, layer: str | None, value: str, zones: Polygons, plane: CRS
) -> dict[str, NDArray[Any]]:
    """Return the mean of a value of the buildings in each zone, and what follows from heights.

    A building belongs to the zones that its centroid lies in; those without a value are left out.

    Args:
        path: File of buildings.
        layer: Layer of a file with several.
        value: Numeric attribute: metres, where volumes are to mean something.
        zones: (n,) zones in a plane in metres.
        plane: CRS of the plane.

    Returns:
        (n,) `VALUE_count`, `VALUE_mean` (NaN without any) and `VALUE_area_m2`, the sum of value
        times area: for heights the volume in m³. For `height` it is called `volume_m3`, and counts
        `height_median` where the layer has it, which is right for slanted roofs. `floor_m2` is the
        sum of area times floors where the layer has these.

    Raises:
        DataError: The layer has no such attribute, or it is not a number.
    """
    file = VectorFile(path, layer)
    if value not in file.fields:
        raise DataError(
            f"{path} has no attribute {value!r}; it has {list_first(sorted(file.fields), 12)}.",
            remedy="Give the name of a column of numbers, such as --value height.",
        )
    medians = "height_median" if value == "height" and "height_median" in file.fields else value
    floors = [name for name in _FLOORS if name in file.fields][:1]
    buildings = file.read([*dict.fromkeys([value, medians, *floors])], typed=True)
    outlines = reprojected(buildings.geometry, buildings.crs, plane, np.inf)
    area = shapely.area(outlines)
    zone, building = shapely.STRtree(shapely.centroid(outlines)).query(zones, "covers")
    numbers = {name: _numbers(values, name, path) for name, values in buildings.values.items()}
    known = np.isfinite(numbers[value])[building]
    zone, building = zone[known], building[known]

    def total(values: Floats) -> Floats:
        summed = np.bincount(zone, weights=values[building], minlength=len(zones))
        return np.asarray(summed, np.float64)

    count = np.bincount(zone, minlength=len(zones))
    mean = total(numbers[value]) / np.where(count > 0, count, np.nan)
    name = "volume_m3" if value == "height" else f"{value}_area_m2"
    columns: dict[str, NDArray[Any]] = {
        f"{value}_count": count,
        f"{value}_mean": np.round(mean, 3),
        name: np.round(total(np.nan_to_num(numbers[medians]) * area), 1),
    }
    if floors:
        columns["floor_m2"] = np.round(total(np.nan_to_num(numbers[floors[0]]) * area), 1)
    return columns


def _numbers(values: NDArray[Any], name: str, path: Path) -> Floats:
    try:
        return np.ma.filled(values.astype(np.float64), np.nan)
    except (TypeError, ValueError):
        raise DataError(
            f"The attribute {name!r} of {path} holds text; expected numbers.",
            remedy="Give the name of a column of numbers, such as --value height.",
        ) from None
