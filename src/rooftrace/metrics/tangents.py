"""Whether outlines run as those do that people drew."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["SPACING", "max_tangent_angles"]

SPACING = 2.0
"""Of the points along an outline, in the unit of the coordinates; the authors take 2 px."""

_MOST_STRETCH = 2.0

Floats = NDArray[np.float64]
Polygons = NDArray[np.object_]


def max_tangent_angles(predicted: Polygons, truth: Polygons, spacing: float = SPACING) -> Floats:
    """The largest angle between an outline and the one that it should be, pair by pair.

    Points are laid along the predicted outline, each edge cut into equal steps of about `spacing`,
    and moved to the nearest point of the labelled one; each step is compared with its image there,
    whatever the direction of travel. A step whose image is shorter or longer than a factor of 2
    says nothing of a tangent and is left out: at a corner all points move to one. (Girard et al.
    2021, "Polygonal Building Extraction by Frame Field Learning", CVPR: max tangent angle error,
    here with its authors' spacing and factor. They move points to the nearest outline of any
    labelled polygon; here it is that of the pair.) Holes count as outlines.

    A corner inside of the labelled outline is as near to both sides, and the step from it crosses
    over: a rectangle that is 1 too small all round has 18° at a spacing of 2, one too large none.

    Args:
        predicted: (n,) shapely polygons.
        truth: (n,) shapely polygons in the same plane.
        spacing: above 0, in the unit of the coordinates.

    Returns:
        (n,) degrees in 0..90; NaN where every step was left out.
    """
    rings, owner = shapely.get_rings(predicted, return_index=True)
    points, ring = _laid(*shapely.get_coordinates(rings, return_index=True), spacing)
    outlines = shapely.boundary(truth)
    nearest = shapely.shortest_line(shapely.points(points), outlines[owner[ring]])
    # Each line goes from the point to where it moves.
    moved = shapely.get_coordinates(nearest)[1::2]
    is_step = ring[1:] == ring[:-1]
    own, image = np.diff(points, axis=0)[is_step], np.diff(moved, axis=0)[is_step]
    length, length_image = np.hypot(*own.T), np.hypot(*image.T)
    kept = (length < _MOST_STRETCH * length_image) & (length_image < _MOST_STRETCH * length)
    cosine = (own * image).sum(axis=1)[kept] / (length * length_image)[kept]
    least = np.full(len(predicted), np.inf)
    np.minimum.at(least, owner[ring[1:][is_step][kept]], np.abs(cosine))
    least[np.isinf(least)] = np.nan
    return np.asarray(np.degrees(np.arccos(np.minimum(least, 1.0))), np.float64)


def _laid(
    corner: Floats, ring: NDArray[np.int64], spacing: float
) -> tuple[Floats, NDArray[np.int64]]:
    """(m, 2) points along closed rings of (k, 2) corners, corners among them, and (m,) the ring of
    each; the first point of a ring is its last.
    """
    step = np.zeros_like(corner)
    step[:-1] = np.diff(corner, axis=0)
    is_last = np.diff(ring, append=-1) != 0
    step[is_last] = 0
    parts = np.maximum(1, np.round(np.hypot(*step.T) / spacing)).astype(np.int64)
    edge = np.repeat(np.arange(len(corner)), parts)
    place = np.arange(len(edge)) - np.repeat(np.cumsum(parts) - parts, parts)
    return corner[edge] + step[edge] * (place / parts[edge])[:, None], ring[edge]
