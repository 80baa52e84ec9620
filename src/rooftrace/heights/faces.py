"""Polygons of roof planes: the parts of an outline in which each plane holds the samples."""

from __future__ import annotations

import numpy as np
import shapely

from rooftrace.core.types import Floats, Ints, Polygons
from rooftrace.heights.roof import MAX_PLANES
from rooftrace.heights.surface import Samples

LEVEL_DEG = 3.0
"""Slope in degrees below which noise decides where a plane faces."""

_LEAST_M2 = 1.5
"""Minimum area in square metres of a polygon of a plane."""

_STRAIGHT = 1.5
"""Steps between planes that are straightened, in distances between samples."""

_SHAKEN = 0.05
"""Maximum offset of samples for their cells, in distances between samples."""


def slope_and_azimuth_deg(planes: Floats) -> tuple[Floats, Floats]:
    """Return the slopes of planes z = a x + b y + c (…, 3), and the bearings of steepest descent.

    The slope is atan(hypot(a, b)), the azimuth atan2(-a, -b).

    Args:
        planes: a, b and c with x to the east and y to true north.

    Returns:
        (…) degrees from level, 0 to 90; (…) degrees clockwise from true north, 0 to 360, NaN below
        `LEVEL_DEG`.
    """
    a, b = planes[..., 0], planes[..., 1]
    slope = np.degrees(np.arctan(np.hypot(a, b)))
    azimuth = np.degrees(np.arctan2(-a, -b)) % 360
    return slope, np.where(slope >= LEVEL_DEG, azimuth, np.nan)


def slope_factor(planes: Floats) -> Floats:
    """Return the area on planes (…, 3) for one square metre of ground: sqrt(1 + a² + b²)."""
    return np.asarray(np.sqrt(1 + planes[..., 0] ** 2 + planes[..., 1] ** 2))


def plane_polygons(roof: Samples, number: Ints, outlines_m: Polygons) -> Polygons:
    """Return (count, MAX_PLANES) multipolygons of the ground below each plane; None where none.

    An outline is divided among its samples (Voronoi cells), and cells of one plane are joined; the
    steps between two planes are straightened. Samples on no plane leave holes.

    Args:
        roof: Samples inside the outlines.
        number: (n,) plane of each, see `roof.roof_planes`.
        outlines_m: (count,) outlines in metres from their centres.
    """
    faces = np.full((len(outlines_m), MAX_PLANES), None, np.object_)
    edges = np.searchsorted(roof.owner, np.arange(len(outlines_m) + 1))
    for index, (first, last) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist())):
        xy = np.column_stack([roof.x[first:last], roof.y[first:last]])
        # Several points of a scan may lie at one place.
        xy, kept = np.unique(xy.round(3), axis=0, return_index=True)
        of = number[first:last][kept]
        if len(xy) < 3 or of.max() < 0:
            continue
        outline = outlines_m[index]
        step_m = float(np.sqrt(shapely.area(outline) / len(xy)))
        # Cells of a regular grid meet in corners of four, which rounding makes invalid.
        xy = xy + np.random.default_rng(0).uniform(-_SHAKEN, _SHAKEN, xy.shape) * step_m
        cells = shapely.get_parts(
            shapely.voronoi_polygons(shapely.multipoints(xy), extend_to=outline, ordered=True)
        )
        held = np.unique(of)
        regions = [shapely.coverage_union_all(cells[of == k]) for k in held]
        faces_m = shapely.coverage_simplify(regions, _STRAIGHT * step_m, simplify_boundary=False)
        for k, region in zip(held.tolist(), shapely.intersection(faces_m, outline)):
            parts = shapely.get_parts(region)
            parts = parts[shapely.area(parts) >= _LEAST_M2]
            if k >= 0 and len(parts):
                faces[index, k] = shapely.multipolygons(parts)
    return faces
