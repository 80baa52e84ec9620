"""Circles in place of walls: tanks, silos and round houses."""

from __future__ import annotations

import numpy as np
import shapely

from rooftrace.core.types import numbered
from rooftrace.vector.contours import GRID_PX, Contours
from rooftrace.vector.trace import Floats, Polygons

# Price in squared units, see `regularize`.
_PRICE = 20.0
# Maximum deviation of a circle's box from a square, as a logarithm, and from its share of the box;
# and mean square of the distances to it, in squared units. A square shed whose radius is smaller
# looks as round as a hut, since networks round corners off; sheds are far more frequent.
_ASPECT, _FILL, _MISFIT = 0.2, 0.08, 0.28
_RADIUS = 12.0
# Maximum amplitude of eight waves around a circle, as a share of its radius; an octagon has 0.032.
_WAVES = 0.017


def fit_circles(
    contours: Contours, raw: Polygons, cost: Floats, scale: Floats, unit: float
) -> tuple[Floats, Floats]:
    """Return (rings, 2) centres and (rings,) radii of circles that fit contours better than their
    walls (Kåsa 1976, doi:10.1109/TIM.1976.6312298); the radius is 0 where none does.

    Args:
        contours: Contours of the polygons.
        raw: (n,) polygons along pixel edges.
        cost: (rings,) cost of the walls.
        scale: (n,) factor on the prices.
        unit: Pixels of a unit.
    """
    # Of a building with courtyards only the walls are fitted.
    left, top, right, bottom = shapely.bounds(raw).T
    filled = shapely.area(raw) / ((right - left) * (bottom - top))
    squat = np.abs(np.log((right - left) / (bottom - top))) < _ASPECT
    squat &= np.abs(filled - np.pi / 4) < _FILL
    squat &= np.bincount(contours.owner, minlength=len(raw)) == 1
    chosen, count = squat[contours.owner], len(contours.owner)
    ring = np.flatnonzero(chosen)
    own, step = numbered(contours.sizes[ring])
    ring, inside = ring[own], contours.first[ring][own] + step
    size = np.where(chosen, contours.sizes, 1)
    x, y = contours.points[inside].T
    mean = np.stack([np.bincount(ring, v, count) for v in (x, y)]) / size
    x, y = x - mean[0, ring], y - mean[1, ring]
    z = x * x + y * y
    xx, xy, yy, xz, yz, total = (
        np.bincount(ring, v, count) for v in (x * x, x * y, y * y, x * z, y * z, z)
    )
    area = 2 * np.maximum(xx * yy - xy * xy, 1e-9)
    centre = np.stack([(xz * yy - yz * xy) / area, (yz * xx - xz * xy) / area])
    radius = np.sqrt(total / size + (centre**2).sum(axis=0))
    away = np.hypot(x - centre[0, ring], y - centre[1, ring]) - radius[ring]
    misfit = np.bincount(ring, away * away, count)
    fits = chosen & (radius > _RADIUS * unit)
    fits &= misfit < _MISFIT * unit**2 * contours.sizes
    fits &= misfit / unit**2 + _PRICE * scale[contours.owner] < cost
    # Of an octagon the distances to the centre have eight waves around it.
    angle = 8 * np.arctan2(y - centre[1, ring], x - centre[0, ring])
    waves = (np.bincount(ring, away * wave, count) for wave in (np.cos(angle), np.sin(angle)))
    fits &= 2 * np.hypot(*waves) / size < _WAVES * radius
    return (mean + centre).T, np.where(fits, radius, 0.0)


def draw_circle(origin: Floats, centre: Floats, radius: float, unit: float) -> shapely.LinearRing:
    """Return a circle as a ring of 24 or 32 corners with the area of the circle."""
    count = 24 if radius < 24 * unit else 32
    angle = 2 * np.pi * np.arange(count) / count
    radius *= np.sqrt(2 * np.pi / count / np.sin(2 * np.pi / count))
    corner = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return shapely.LinearRing(np.rint(corner / GRID_PX) * GRID_PX + origin)
