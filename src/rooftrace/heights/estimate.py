"""Heights of buildings with their intervals, from samples of a surface and of the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from rooftrace.core.types import BoolArray, Floats, Ints, Polygons
from rooftrace.heights.faces import plane_polygons, slope_and_azimuth_deg, slope_factor
from rooftrace.heights.roof import (
    LEAST_FOR_SHAPE,
    LEAST_SAMPLES,
    SHAPES,
    Roofs,
    fit_planes,
    heights_on,
    level_line,
    measure_roofs,
)
from rooftrace.heights.surface import Samples, quantiles, roughness
from rooftrace.vector.trace import Columns

FLOOR_M = 3.0
"""Height in metres of a floor, by which floors are estimated."""

REASONS = (
    "", "not covered by the surface", "mostly trees", "no step at the outline",
    "no ground seen around it", "terrain lies above the surface",
    "not covered by the terrain model", "covered by the surface in part",
    "covered by another outline",
    f"fewer than {LEAST_SAMPLES} pixels or points inside",
)  # fmt: skip
"""Reasons for which a building has no height; the first where it has one."""

(
    MEASURED, UNCOVERED, TREES, NO_STEP, NO_GROUND, BELOW_TERRAIN, NO_TERRAIN, PARTLY, HIDDEN,
    SMALL,
) = range(len(REASONS))  # fmt: skip
"""Indices of the reasons."""

_MOST_ROOF, _MOST_RING = 600, 150
"""Maximum number of samples of a roof, and of the ground around it, from which planes follow."""

_TOLERANCE_M = (0.08, 0.3)
"""Least and greatest tolerance of a roof plane in metres; between, 5 cm and three times the noise
of the surface at the building."""

_TREE_ROUGHNESS_M = 0.7
"""Roughness in metres, see `Roofs.rough`, from which a surface is a crown."""

_TREE_FIT = 0.3
"""Share of samples on planes below which a rough building is mostly trees, as it is where most
samples lie above all planes."""

_LEAST_COVERED = 0.75
"""Least share of an outline that a surface covers: its highest part may lie in the rest."""

_STEP_M, _HIGHEST = 1.2, 0.97
"""Minimum height in metres of a building above its ground; quantile of its samples that also
reaches it, above the ground at their own places."""

_BELOW_M = -1.0

_FLOOR_SIGMA_M = 0.1
"""Standard deviation in metres of a height from perfect samples."""

_STEP_SIGMA, _RIDGE = 0.3, 0.6
"""Shares of the distance between samples: standard deviation of a height, and by how much a ridge
may be higher than the samples beside it."""

_Z90 = 1.645
"""Half-width of a central 90 % interval in standard deviations."""


@dataclass(frozen=True)
class Heights(Columns):
    """Heights of buildings, float and int columns; NaN where a figure is not known.

    Args:
        height: (n,) metres from the ground at the building to the top of its roof.
        low, high: (n,) 90 % interval of the height in metres.
        median: (n,) median of the surface inside the outline above the ground, in metres.
        roof_height: (n,) metres from the eaves to the top; 0 for a flat roof, NaN where the eaves
            would lie below the ground.
        shape: (n,) index in `SHAPES`, or -1.
        direction: (n,) bearing of the ridge in degrees, 0 to 180.
        ground: (n,) height of the ground at the centre in the surface's vertical datum.
        ground_min: (n,) the lowest ground along the outline, likewise.
        lower: (n,) height above ground in metres of the lower of two clear roof levels.
        line: (n, 3) the line between them, see `roof.level_line`.
        slope_deg, azimuth_deg: (n,) see `faces.slope_and_azimuth_deg`; those of the plane with the
            largest area; NaN below `LEAST_FOR_SHAPE` samples.
        plane_m2: (n,) area of this plane on its slope, in square metres.
        planes: (n, k, 3) a, b and c of z = a x + b y + c in metres to the east and north of the
            centre; k is 0 where planes were not asked for.
        faces: (n, k) multipolygons of the ground below them in these metres; None where none.
        samples: (n,) samples of the surface inside the outline.
        reason: (n,) index in `REASONS`.
    """

    height: Floats
    low: Floats
    high: Floats
    median: Floats
    roof_height: Floats
    shape: Ints
    direction: Floats
    ground: Floats
    ground_min: Floats
    lower: Floats
    line: Floats
    slope_deg: Floats
    azimuth_deg: Floats
    plane_m2: Floats
    planes: Floats
    faces: Polygons
    samples: Ints
    reason: Ints

    @property
    def is_known(self) -> BoolArray:
        """(n,) True for buildings with a height."""
        return np.asarray(self.reason == MEASURED)

    @property
    def floors(self) -> Floats:
        """Estimated floors: the median height by `FLOOR_M`, at least 1; NaN without one."""
        return np.maximum(np.rint(self.median / FLOOR_M), 1.0)

    def shape_names(self) -> np.ndarray:
        """Return (n,) names of the roof shapes; None where undecided."""
        return np.array([*SHAPES, None], np.object_)[self.shape]


def estimate_heights(
    surface: Samples,
    outlines_m: Polygons,
    step_m: float,
    covered: Floats,
    *,
    terrain: Samples | None = None,
    gridded: bool = True,
    hidden: BoolArray | bool = False,
    is_roof: BoolArray | bool = False,
    with_planes: bool = False,
) -> Heights:
    """Return the heights of buildings.

    Args:
        surface: Samples of the surface inside the outlines and around them.
        outlines_m: (n,) outlines in metres from their centres, see `Samples`.
        step_m: Distance in metres between samples.
        terrain: Samples of a terrain model inside the outlines, and around those inside of which it
            has none; None to find the ground around in the surface.
        gridded: Whether the samples are pixels.
        covered: (n,) share of each outline that the surface covers.
        hidden: (n,) True where another outline lies on most of one, so that it has no samples.
        is_roof: (n,) True where the source says that the samples inside are roof, not trees.
        with_planes: Whether the result has the roof planes, too.
    """
    count = len(outlines_m)
    inside = surface.distance == 0
    roof, ring = surface.of(inside), surface.of(~inside)
    noise = roughness(roof, count, step_m) if gridded else np.full(count, np.nan)
    tolerance = np.clip(0.05 + 3 * np.nan_to_num(noise, nan=0.04), *_TOLERANCE_M)
    size = np.bincount(roof.owner, minlength=count)
    (uppermost,) = quantiles(roof.z, roof.owner, count, 0.995)
    roof = roof.thinned(count, _MOST_ROOF)
    roofs = measure_roofs(roof, outlines_m, step_m, tolerance)
    line = level_line(roof, outlines_m, roofs)
    if terrain is None:
        ground, sigma = ground_around(ring.thinned(count, _MOST_RING), count, step_m)
    else:
        ground, sigma = ground_of_terrain(terrain, count, step_m)
    level = ground[:, 2]
    corners, of = shapely.get_coordinates(outlines_m, return_index=True)
    fall = np.zeros(count)
    np.minimum.at(fall, of, (np.nan_to_num(ground[of, :2]) * corners).sum(axis=1))
    height = roofs.top - level
    # On a slope, bare ground within an outline is higher than that at its centre.
    above = np.nan_to_num(roof.z - heights_on(ground, roof))
    (rise,) = quantiles(above, roof.owner, count, _HIGHEST)
    with np.errstate(invalid="ignore"):
        reason = np.full(count, MEASURED)
        reason[np.fmin(height, rise) < _STEP_M] = NO_STEP
        if terrain is not None:
            reason[height < _BELOW_M] = BELOW_TERRAIN
        is_crown = ((roofs.fit < _TREE_FIT) | roofs.most_above) & ~np.asarray(is_roof)
        reason[(roofs.rough > _TREE_ROUGHNESS_M) & is_crown] = TREES
        reason[np.isnan(level)] = NO_GROUND if terrain is None else NO_TERRAIN
        is_whole = covered >= _LEAST_COVERED
        reason[~is_whole] = PARTLY
        reason[size < LEAST_SAMPLES] = UNCOVERED
        reason[is_whole & (size < LEAST_SAMPLES)] = SMALL
        reason[hidden] = HIDDEN
    low, high = _interval(height, roofs, sigma, uppermost - level, step_m)
    known = reason == MEASURED
    sloped = known & (size >= LEAST_FOR_SHAPE)
    area = roofs.share * shapely.area(outlines_m)[:, None] * slope_factor(roofs.planes)
    largest = np.argmax(np.nan_to_num(area), axis=1)
    main = np.arange(count), largest
    slope_deg, azimuth_deg = slope_and_azimuth_deg(roofs.planes[main])
    faces = np.zeros((count, 0), np.object_)
    if with_planes:
        faces = plane_polygons(roof, roofs.number, outlines_m)
        faces[~sloped] = None

    def only(values: Floats) -> Floats:
        return np.where(known, values, np.nan)

    return Heights(
        height=only(height), low=only(low), high=only(high), median=only(roofs.median - level),
        roof_height=only(np.where(roofs.eaves < level, np.nan, roofs.top - roofs.eaves)),
        shape=np.where(known, roofs.shape, -1), direction=only(roofs.direction), ground=level,
        ground_min=level + fall, lower=only(roofs.lower - level),
        line=np.where(known[:, None], line, np.nan), slope_deg=np.where(sloped, slope_deg, np.nan),
        azimuth_deg=np.where(sloped, azimuth_deg, np.nan),
        plane_m2=np.where(sloped, area[main], np.nan), planes=roofs.planes[:, : faces.shape[1]],
        faces=faces, samples=size, reason=reason,
    )  # fmt: skip


def _interval(
    height: Floats, roofs: Roofs, ground_sigma: Floats, uppermost: Floats, step_m: float
) -> tuple[Floats, Floats]:
    """Return the 90 % interval of heights, calibrated on the sets that docs/heights.md names.

    Errors of the ground, of the planes and of the samples' distance add up in squares. A roof may
    be higher by what stands above its planes and by the part of a ridge that lies between samples,
    and lower by the part of its rise that planes leave open.
    """
    sigma = np.sqrt(
        ground_sigma**2 + roofs.spread**2 / 4 + _FLOOR_SIGMA_M**2 + (step_m * _STEP_SIGMA) ** 2
    )
    flat = roofs.shape == SHAPES.index("flat")
    above = np.maximum(uppermost - height, 0) + np.where(flat, 0.0, _RIDGE * step_m)
    rise = np.maximum(roofs.top - roofs.median, 0)
    low = height - _Z90 * sigma - rise * np.clip(2 * (1 - roofs.fit), 0, 1)
    return low, height + _Z90 * sigma + above


def level_parts(
    outlines: Polygons, heights: Heights, metres: Floats
) -> list[list[tuple[shapely.Geometry, float]]]:
    """Return the parts of each outline with two clear levels, and the heights of their tops.

    Args:
        outlines: (n,) outlines on a plane.
        heights: Their heights.
        metres: (n, 2, 2) metres to the east and north for a step of one unit of the plane at each.

    Returns:
        Two parts of each such building, and heights in the datum of `Heights.ground`.
    """
    parts: list[list[tuple[shapely.Geometry, float]]] = [[] for _ in outlines]
    for index in np.flatnonzero(np.isfinite(heights.line[:, 0])).tolist():
        east, north, begin = heights.line[index]
        centre = shapely.get_coordinates(shapely.centroid(outlines[index]))[0]
        area = shapely.area(shapely.envelope(outlines[index])) * np.linalg.det(metres[index])
        far = 10 * float(np.sqrt(area)) + 10
        corner = np.array([[begin, -far], [begin + far, -far], [begin + far, far], [begin, far]])
        local = corner @ np.array([[east, north], [-north, east]])
        turned = np.linalg.solve(metres[index], local.T).T + centre
        high_side = shapely.Polygon(turned)
        upper = shapely.intersection(outlines[index], high_side)
        lower = shapely.difference(outlines[index], high_side)
        sides = [(lower, heights.lower[index]), (upper, heights.height[index])]
        if all(isinstance(side, shapely.Polygon | shapely.MultiPolygon) for side, _ in sides):
            ground = float(heights.ground[index])
            parts[index] = [(side, ground + float(height)) for side, height in sides]
    return parts


RING_M = 12.0
"""Width in metres of the ring around an outline in which ground is looked for."""

_NEAR_M = 4.0
"""Distance in metres at which a sample of the ring counts half."""

_SCALES_M = (1.5, 1.0, 0.6, 0.4, 0.3, 0.3)
"""Deviations in metres at which a sample loses its weight, from the first fit to the last."""

_ABOVE = 0.01
"""Weight of samples above the first low envelope (expectile of the ring)."""

_LEAST = 6
"""Minimum number of samples of ground."""

_INDEPENDENT_M = 2.0
"""Distance in metres beyond which errors of a surface model count as independent."""

_STIFFNESS_M, _TERRAIN_STIFFNESS_M = 2.0, 0.5
_TERRAIN_SIGMA_M = 0.2
"""Standard deviation in metres of a terrain model below a building, where nothing was measured."""


def ground_of_terrain(terrain: Samples, count: int, resolution_m: float) -> tuple[Floats, Floats]:
    """Return the plane of a terrain model inside each outline, see `ground_around`.

    It passes through the median at the centre. Where the model has a hole below the building, as
    AHN has, the ground around it counts.
    """
    below, around = (terrain.of((terrain.distance == 0) == inside) for inside in (True, False))
    (level,) = quantiles(below.z, below.owner, count, 0.5)
    apart = np.abs(below.z - level[below.owner])
    # 1.4826 times the median absolute deviation is a robust standard deviation.
    spread = 1.4826 * np.nan_to_num(quantiles(apart, below.owner, count, 0.5)[0])
    number = np.bincount(below.owner, minlength=count)
    sigma = spread / np.sqrt(np.maximum(number, 1))
    plane, _ = fit_planes(below, np.ones(len(below)), count, stiffness_m=_TERRAIN_STIFFNESS_M)
    plane[:, 2] = level
    if len(around):
        beside, doubt = ground_around(around.thinned(count, _MOST_RING), count, resolution_m)
        plane = np.where(number[:, None] > 0, plane, beside)
        sigma = np.where(number > 0, sigma, doubt)
    return plane, np.hypot(_TERRAIN_SIGMA_M, sigma)


def ground_around(ring: Samples, count: int, resolution_m: float) -> tuple[Floats, Floats]:
    """Return the ground below each building, from a plane through the low samples around it.

    The plane begins as a low envelope (asymmetric least squares, Newey & Powell 1987,
    doi:10.2307/1911031) and is then fitted to what lies near it, less and less far, so that trees,
    cars and walls lose their weight. Samples that their source calls ground, where there are
    enough, are used alone.

    Args:
        ring: Samples outside of all buildings.
        count: Number of buildings.
        resolution_m: Distance in metres between samples.

    Returns:
        (count, 3) planes z = a x + b y + c, NaN where unknown; (count,) standard deviations in
        metres of c, the ground at the centre of the building.
    """
    enough = ring.sums(ring.ground, count) >= _LEAST
    ring = ring.of(ring.ground | ~enough[ring.owner])
    near = 1 / (1 + (ring.distance / _NEAR_M) ** 2)
    plane, _ = fit_planes(ring, near, count, stiffness_m=_STIFFNESS_M)
    for _ in range(6):
        above = ring.z > heights_on(plane, ring)
        plane, _ = fit_planes(
            ring, near * np.where(above, _ABOVE, 1.0), count, stiffness_m=_STIFFNESS_M
        )
    for scale in _SCALES_M:
        apart = (ring.z - heights_on(plane, ring)) / scale
        weight = near * np.exp(-np.minimum(apart**2, 50))
        plane, variance = fit_planes(ring, weight, count, stiffness_m=_STIFFNESS_M)
    on = (np.abs(ring.z - heights_on(plane, ring)) <= 2 * _SCALES_M[-1]) & np.isfinite(ring.z)
    number = ring.sums(on, count)
    apart = np.where(on, ring.z - heights_on(plane, ring), 0.0)
    residual = np.sqrt(ring.sums(apart**2, count) / np.maximum(number, 1))
    # Neighbouring samples share their errors.
    shared = max(1.0, (_INDEPENDENT_M / resolution_m) ** 2)
    sigma = np.sqrt(variance * shared) * np.maximum(residual, 0.05)
    return np.where((number >= _LEAST)[:, None], plane, np.nan), sigma
