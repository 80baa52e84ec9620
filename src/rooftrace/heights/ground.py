"""The ground at buildings: from a terrain model, or from the surface around them."""

from __future__ import annotations

import numpy as np

from rooftrace.core.types import Floats
from rooftrace.heights.planes import fit_planes, heights_on
from rooftrace.heights.samples import Samples, quantiles

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

_STIFFNESS_M = 2.0
_TERRAIN_SIGMA_M = 0.2
"""Standard deviation in metres of a terrain model below a building, where nothing was measured."""


def ground_of_terrain(terrain: Samples, count: int) -> tuple[Floats, Floats]:
    """Return the median of a terrain model inside each outline, see `ground_around`."""
    (level,) = quantiles(terrain.z, terrain.owner, count, 0.5)
    apart = np.abs(terrain.z - level[terrain.owner])
    # 1.4826 times the median absolute deviation is a robust standard deviation.
    spread = 1.4826 * np.nan_to_num(quantiles(apart, terrain.owner, count, 0.5)[0])
    number = np.bincount(terrain.owner, minlength=count)
    return level, np.hypot(_TERRAIN_SIGMA_M, spread / np.sqrt(np.maximum(number, 1)))


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
        (count,) heights in metres at the centre of the building, NaN where unknown; (count,) their
        standard deviations in metres.
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
    return np.where(number >= _LEAST, plane[:, 2], np.nan), sigma
