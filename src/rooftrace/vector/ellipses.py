"""Circles and ellipses in place of walls: tanks, silos, round houses and domes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely

from rooftrace.core.types import numbered
from rooftrace.vector.contours import GRID_PX, Contours
from rooftrace.vector.trace import Bools, Floats, Ints

# Prices of a circle and of an ellipse in squared units, see `regularize`.
_CIRCLE, _ELLIPSE = 20.0, 36.0
# Minimum number of proposed corners of a round contour.
_MIN_CORNERS = 7
# Minimum ratio of the semi-axes of a circle.
_SQUAT = 0.88
# Minimum semi-axis in units, and maximum mean square of the distances in squared units. A smaller
# square shed looks as round as a hut, since networks round corners off; sheds are more frequent.
_RADIUS, _MISFIT = 12.0, 0.28
# Maximum amplitude of eight waves around a circle, as a share of its radius; an octagon has 0.032.
_WAVES = 0.017
# A first fit takes each n-th point, and allows misfits and semi-axes this factor.
_EVERY, _SLACK = 4, 1.5


def fit_ellipses(
    contours: Contours, cost: Floats, scale: Floats, unit: float
) -> tuple[Floats, Floats]:
    """Return the (rings, 2) centres and (rings, 2, 2) semi-axes, as rows, of the ellipses that have
    the area moments of contours; 0 where walls, or another shape, fit better.

    Args:
        contours: Contours of the polygons.
        cost: (rings,) cost of the walls.
        scale: (n,) factor on the prices.
        unit: Pixels of a unit.
    """
    centres, axes = np.zeros((len(cost), 2)), np.zeros((len(cost), 2, 2))
    scale = scale[contours.owner]
    # Of a building with courtyards only the walls are fitted.
    may = (contours.count >= _MIN_CORNERS) & (cost > _CIRCLE * scale)
    may &= np.bincount(contours.owner)[contours.owner] == 1
    ring, fits = np.arange(len(cost)), may
    # Some of the points exclude most contours: their squares add up to less than those of all.
    for every, slack in ((_EVERY, _SLACK), (1, 1.0)):
        ring = ring[fits]
        fit = _Fit.of(contours, ring, every)
        misfit = fit.misfit / unit**2 / slack
        price = np.where(fit.is_circle, _CIRCLE, _ELLIPSE) * scale[ring]
        fits = fit.length[:, 0] > _RADIUS * unit / slack
        fits &= (misfit < _MISFIT * contours.sizes[ring]) & (misfit + price < cost[ring])
    # The radii of an octagon have eight waves around the centre.
    own, turn = fit.own, 8 * np.arctan2(*fit.local[::-1])
    away = np.hypot(*fit.local) - 1
    waves = (np.bincount(own, away * f(turn), len(fits)) for f in (np.cos, np.sin))
    fits &= 2 * np.hypot(*waves) < _WAVES * np.bincount(own, minlength=len(fits))
    centres[ring[fits]] = fit.centre[fits]
    axes[ring[fits]] = (fit.length[:, :, None] * np.swapaxes(fit.along, 1, 2))[fits]
    return centres, axes


class _Fit(NamedTuple):
    """Ellipses that have the area moments of contours.

    Args:
        centre: (n, 2) centres.
        length: (n, 2) semi-axes, ascending.
        along: (n, 2, 2) their directions, as columns.
        is_circle: (n,) True for circles.
        misfit: (n,) sum of the squared distances of the points.
        own: (points,) ellipse of each point.
        local: (2, points) points where their ellipse is a circle of radius 1.
    """

    centre: Floats
    length: Floats
    along: Floats
    is_circle: Bools
    misfit: Floats
    own: Ints
    local: Floats

    @classmethod
    def of(cls, contours: Contours, ring: Ints, every: int) -> _Fit:
        """Return the ellipses of rings (n,), given that each n-th point counts."""
        sizes, count = -(-contours.sizes[ring] // every), len(ring)
        own, step = numbered(sizes)
        point = contours.points[contours.first[ring][own] + step * every].T
        middle = np.stack([np.bincount(own, axis, count) for axis in point]) / sizes
        x, y = point - middle[:, own]
        after, stop = np.arange(1, len(x) + 1), np.cumsum(sizes)
        after[stop - 1] = stop - sizes
        x1, y1 = x[after], y[after]
        cross = x * y1 - x1 * y
        area, left, top, xx, xy, yy = (
            np.bincount(own, cross * term, count)
            for term in (
                np.full(len(x), 0.5), (x + x1) / 6, (y + y1) / 6,
                (x * x + x * x1 + x1 * x1) / 12, (2 * (x * y + x1 * y1) + x * y1 + x1 * y) / 24,
                (y * y + y * y1 + y1 * y1) / 12,
            )
        )  # fmt: skip
        centre = np.stack([left, top]) / area
        square = np.array([[xx, xy], [xy, yy]]) / area - centre * centre[:, None]
        length, along = np.linalg.eigh(square.T)
        length = 2 * np.sqrt(length.clip(min=1e-9))
        is_circle = length[:, 0] > _SQUAT * length[:, 1]
        length[is_circle] = np.sqrt(length.prod(axis=1))[is_circle, None]
        x, y = x - centre[0, own], y - centre[1, own]
        local = np.stack(
            [(x * along[own, 0, k] + y * along[own, 1, k]) / length[own, k] for k in range(2)]
        )
        radius = np.hypot(*local).clip(min=1e-9)
        away = (radius - 1) * radius / np.hypot(*(local / length[own].T))
        misfit = np.bincount(own, away * away, count).astype(np.float64, copy=False)
        return cls((middle + centre).T, length, along, is_circle, misfit, own, local)


def draw_ellipse(origin: Floats, centre: Floats, axes: Floats, unit: float) -> shapely.LinearRing:
    """Return an ellipse with semi-axes (2, 2) as a ring of 24 or 32 corners with its area."""
    count = 24 if abs(np.linalg.det(axes)) < (24 * unit) ** 2 else 32
    angle = 2 * np.pi * np.arange(count) / count
    size = np.sqrt(2 * np.pi / count / np.sin(2 * np.pi / count))
    corner = centre + size * np.stack([np.cos(angle), np.sin(angle)], axis=1) @ axes
    return shapely.LinearRing(np.rint(corner / GRID_PX) * GRID_PX + origin)
