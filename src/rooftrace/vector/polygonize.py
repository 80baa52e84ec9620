"""Masks to polygons along pixel edges, exactly.

Foreground is 4-connected: pixels that meet at a corner alone are two buildings. Polygons are valid,
lie on integer pixel coordinates, have vertices only where they turn, and cover the mask's pixels
and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.types import Window
from rooftrace.vector.corners import Corners, Ints, Rings, find_corners, trace_rings

__all__ = ["Regions", "TracedPolygons", "check_shapes", "mean_score", "trace"]

Mask8 = NDArray[np.bool_] | NDArray[np.uint8]
Prob = NDArray[np.float32] | NDArray[np.uint8]

# Probabilities are added as multiples of 2^-23, what float32 resolves just below 1. Whole numbers
# add exactly, so a score depends neither on the blocks nor on the order they came in.
_PROB_STEPS = 1 << 23
# Rows taken at a time for the integral image, which would need 8 bytes for every pixel.
_STRIP_PX = 1 << 17


@dataclass(frozen=True, slots=True)
class TracedPolygons:
    """Connected regions of a mask, ordered by their first pixel, row by row.

    Args:
        polygons: (n,) shapely polygons in pixel coordinates (x = column, y = row, corner-based).
        score: (n,) float32, the mean probability of the region's pixels; NaN where none was given.
        area_px: (n,) int64, the number of the region's pixels.
        first_pixel_yx: (n, 2) int64, row and column of each region's first pixel.
    """

    polygons: NDArray[np.object_]
    score: NDArray[np.float32]
    area_px: Ints
    first_pixel_yx: Ints

    def __len__(self) -> int:
        return len(self.polygons)

    @classmethod
    def none(cls) -> TracedPolygons:
        """No region."""
        none = np.zeros(0, np.int64)
        return cls(np.zeros(0, np.object_), np.zeros(0, np.float32), none, none.reshape(0, 2))

    @classmethod
    def concatenated(cls, parts: Sequence[TracedPolygons]) -> TracedPolygons:
        """The regions of all parts, which share none, put in order."""
        parts = [part for part in parts if len(part)]
        if not parts:
            return cls.none()
        first = np.concatenate([part.first_pixel_yx for part in parts])
        order = np.lexsort((first[:, 1], first[:, 0]))
        return cls(
            np.concatenate([part.polygons for part in parts])[order],
            np.concatenate([part.score for part in parts])[order],
            np.concatenate([part.area_px for part in parts])[order],
            first[order],
        )

    def of(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> TracedPolygons:
        """Some of the regions, by a mask (n,) or by ascending numbers."""
        return TracedPolygons(
            self.polygons[chosen],
            self.score[chosen],
            self.area_px[chosen],
            self.first_pixel_yx[chosen],
        )


def trace(mask: Mask8, window: Window | None = None, prob: Prob | None = None) -> TracedPolygons:
    """The polygons of a mask.

    Args:
        mask: (y, x); everything but 0 is foreground.
        window: where the mask lies in its scene; polygons are in the scene's coordinates.
        prob: (y, x) of the mask, float32 in 0..1 or uint8 standing for 0..1 by 255ths. What it
            holds outside the foreground does not matter.

    Raises:
        ValueError: shapes differ, or a foreground pixel's probability is not finite.
    """
    window = window or Window(0, 0, mask.shape[0], mask.shape[1])
    check_shapes(mask, window, prob)
    regions = Regions.of(find_corners(mask).moved(window.row, window.col))
    score = np.full(len(regions), np.nan, np.float32)
    if prob is not None:
        score = mean_score(regions.integrate(mask, prob, window), regions.area_px)
    every = np.ones(len(regions), np.bool_)
    return TracedPolygons(regions.polygons(every), score, regions.area_px, regions.first_pixel_yx)


def check_shapes(mask: Mask8, window: Window, prob: Prob | None) -> None:
    """Raises ValueError where a mask or its probabilities do not fill their window."""
    if mask.shape != window.shape_yx:
        raise ValueError(f"the mask has shape {mask.shape}, its window {window.shape_yx}")
    if prob is not None and prob.shape != mask.shape:
        raise ValueError(f"the probabilities have shape {prob.shape}, the mask {mask.shape}")


def mean_score(total: Ints, area_px: Ints) -> NDArray[np.float32]:
    """(n,) the mean probability from what `Regions.integrate` gives and the numbers of pixels."""
    return (total / (area_px * float(_PROB_STEPS))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Regions:
    """The connected regions that corners bound, ordered by their first pixel, row by row.

    Args:
        corners: in the scene's coordinates.
        rings: through them.
        linearrings: (rings,) shapely rings.
        region_of_ring: (rings,) int64.
        area_px: (regions,) int64.
    """

    corners: Corners
    rings: Rings
    linearrings: NDArray[np.object_]
    region_of_ring: Ints
    area_px: Ints

    @classmethod
    def of(cls, corners: Corners) -> Regions:
        """Traces the corners."""
        rings = trace_rings(corners)
        linearrings = _linearrings(corners, rings)
        # Rings are ordered by their first corner, and a shell's is its region's first pixel.
        region = np.cumsum(rings.is_shell) - 1
        holes = np.flatnonzero(~rings.is_shell)
        if len(holes):
            region[holes] = _regions_around(corners, rings, linearrings, holes)
        width = corners.col[1::2] - corners.col[0::2]
        foreground_above: Ints = corners.weight[1::2].astype(np.int64)
        area = rings.sums(foreground_above * corners.row[0::2] * width)
        return cls(corners, rings, linearrings, region, _by_region(area, region))

    def __len__(self) -> int:
        return len(self.area_px)

    @property
    def first_pixel_yx(self) -> Ints:
        """(regions, 2) row and column."""
        corner = 2 * self.rings.first_edge()[self.rings.is_shell]
        return np.stack([self.corners.row[corner], self.corners.col[corner]], axis=1)

    @property
    def region_of_edge(self) -> Ints:
        """(edges,) by edge number, as in `Rings`."""
        return self.region_of_ring[self.rings.ring_of_edge]

    def integrate(self, mask: Mask8, prob: Prob, window: Window) -> Ints:
        """(regions,) the sums of the probabilities over each one's pixels, for `mean_score`.

        Raises:
            ValueError: a foreground pixel's probability is not finite.
        """
        corners = self.corners.moved(-window.row, -window.col)
        along = _sums_along(mask, prob, corners.row[0::2], corners.col.reshape(-1, 2))
        # Each sum along an edge is exact in float64; sums of these sums need the integers.
        steps: Ints = (along * _PROB_STEPS).astype(np.int64)
        return _by_region(self.rings.sums(steps * corners.weight[1::2]), self.region_of_ring)

    def polygons(self, chosen: NDArray[np.bool_]) -> NDArray[np.object_]:
        """The polygons of the regions that are `chosen` (regions,)."""
        shells = self.linearrings[self.rings.is_shell]
        polygons = np.asarray(shapely.polygons(shells[chosen]), np.object_)
        holes = np.flatnonzero(~self.rings.is_shell)
        holes = holes[chosen[self.region_of_ring[holes]]]
        if len(holes):
            pierced, number = np.unique(self.region_of_ring[holes], return_inverse=True)
            owner = np.concatenate([np.arange(len(pierced)), number])
            rings = np.concatenate([shells[pierced], self.linearrings[holes]])
            order = np.argsort(owner, kind="stable")
            place = (np.cumsum(chosen) - 1)[pierced]
            polygons[place] = shapely.polygons(rings[order], indices=owner[order])
        return polygons

    def corners_of(self, chosen: NDArray[np.bool_]) -> Corners:
        """The corners of the regions that are `chosen` (regions,)."""
        kept = np.repeat(chosen[self.region_of_edge], 2)
        return Corners(self.corners.row[kept], self.corners.col[kept], self.corners.weight[kept])


def _linearrings(corners: Corners, rings: Rings) -> NDArray[np.object_]:
    """(rings,) shapely rings, each from its first corner on."""
    starts_left = corners.weight[0::2] > 0
    left, right = corners.col[0::2], corners.col[1::2]
    vertices = np.empty((len(rings.edges), 2, 2))
    vertices[:, 0, 0] = np.where(starts_left, left, right)[rings.edges]
    vertices[:, 1, 0] = np.where(starts_left, right, left)[rings.edges]
    vertices[:, :, 1] = corners.row[0::2][rings.edges, None]
    owner = np.repeat(np.arange(len(rings)), 2 * np.diff(rings.offsets))
    return np.asarray(shapely.linearrings(vertices.reshape(-1, 2), indices=owner), np.object_)


def _regions_around(
    corners: Corners, rings: Rings, linearrings: NDArray[np.object_], holes: Ints
) -> Ints:
    """(holes,) the region that each hole lies in."""
    # The pixel above a hole's first corner is foreground, and of the region around the hole.
    first = 2 * rings.first_edge()[holes]
    points = shapely.points(corners.col[first] + 0.5, corners.row[first] - 0.5)
    shells = np.asarray(shapely.polygons(linearrings[rings.is_shell]), np.object_)
    shell, hole = shapely.STRtree(np.asarray(points, np.object_)).query(
        shells, predicate="contains"
    )
    # Shells around one pixel lie in one another, and the innermost begins last.
    region = np.full(len(holes), -1, np.int64)
    np.maximum.at(region, hole, shell)
    return region


def _sums_along(mask: Mask8, prob: Prob, row: Ints, cols: Ints) -> NDArray[np.float64]:
    """(n,) the sum of foreground probabilities above each horizontal edge, up to the mask's top.

    Args:
        mask: (y, x).
        prob: (y, x).
        row: (n,) of the edges, ascending.
        cols: (n, 2) where they begin and end.
    """
    height, width = mask.shape
    step = max(1, min(height, _STRIP_PX // max(width, 1)))
    chosen = np.empty((step, width), prob.dtype)
    local = np.empty((step + 1, width + 1))
    above = np.zeros(width + 1)
    sums = np.zeros(len(row))
    for top in range(0, height, step):
        stop = min(top + step, height)
        chosen.fill(0)
        bits = np.ascontiguousarray(mask[top:stop]).view(np.uint8)
        cv2.copyTo(np.ascontiguousarray(prob[top:stop]), bits, chosen[: stop - top])
        values = chosen[: stop - top]
        if prob.dtype == np.uint8:
            values = values * np.float32(1 / 255)
        # Between 1 and 2 float32 has steps of 2^-23: this rounds to whole numbers of them.
        values += np.float32(1)
        values -= np.float32(1)
        strip = cv2.integral(values, local[: stop - top + 1], cv2.CV_64F)
        if not np.isfinite(strip[-1, -1]):
            raise ValueError(f"rows {top}:{stop}: a foreground pixel's probability is not finite")
        edges = slice(*np.searchsorted(row, [top, stop], side="right"))
        at, left, right = row[edges] - top, cols[edges, 0], cols[edges, 1]
        sums[edges] = (strip[at, right] - strip[at, left]) + (above[right] - above[left])
        above += strip[-1]
    return sums


def _by_region(per_ring: Ints, region: Ints) -> Ints:
    """(regions,) sums over the rings of each; exact below 2^53."""
    return np.bincount(region, weights=per_ring).astype(np.int64)
