"""Samples of an elevation raster in and around buildings."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import cv2
import numpy as np
import shapely
from affine import Affine
from pyproj import CRS

from rooftrace.core.types import Floats, Ints, Polygons, RasterSource, Window
from rooftrace.heights.samples import Samples
from rooftrace.heights.shift import MOST_M, offset_px
from rooftrace.io.gdal import rasterize
from rooftrace.io.reproject import reprojected
from rooftrace.vector.footprints import metres_per_px

_LEAST_INSIDE = 9
"""Number of pixels inside an outline below which those on its edge count, too."""

_ENOUGH_AROUND, _HASHES = 250, 1 << 16
"""About the number of pixels around a building that are used, and the number of hashes of places
(Teschner et al. 2003) by which they are chosen."""


_EDGE_PX = 1.5
"""Distance in pixels from an outline within which a pixel may mix ground and wall."""


@dataclass(frozen=True)
class Surface:
    """An elevation raster: a surface model or a terrain model, with heights in one band.

    Args:
        source: The raster; its grid has a CRS.
        unit_m: Metres per unit of its heights.
    """

    source: RasterSource
    unit_m: float = 1.0

    @property
    def resolution_m(self) -> float:
        """Metres per pixel."""
        gsd = self.source.grid.gsd_m
        assert gsd is not None
        return gsd

    def place(self, polygons: Polygons, crs: CRS) -> Polygons:
        """Return polygons of a CRS in pixels of the raster, corner-based, x right and y down."""
        grid = self.source.grid
        assert grid.crs is not None
        placed = shapely.transform(reprojected(polygons, crs, grid.crs, np.inf), grid.to_pixels)
        return np.asarray(placed, np.object_)

    def samples(
        self, polygons_px: Polygons, count: int, centre_px: Floats, ring_m: float
    ) -> Samples:
        """Return the heights inside the first outlines, and those around them.

        A pixel inside counts where its four neighbours lie in the same outline, so that walls
        count for no roof; one around counts for the nearest outline, 1.5 pixels and more from all.

        Args:
            polygons_px: (n,) outlines of all buildings that are near, see `place`.
            count: Number of buildings, the first of the outlines, whose samples are returned.
            centre_px: (count, 2) centre of each.
            ring_m: Distance in metres from the outline; 0 for the inside alone.
        """
        grid, scale = self.source.grid, self.resolution_m
        margin = ceil(ring_m / scale) + 2
        window = _window(polygons_px[:count], margin).intersection(Window.whole(grid.shape))
        if window is None:
            none = np.zeros(0)
            return Samples.grouped(none.astype(np.int64), np.zeros((0, 3)), none)
        raster = self.source.read(window)
        height = raster.data[0]
        number = np.zeros(window.shape_yx, np.int32)
        near = _meet(polygons_px, window)
        if len(near):
            rasterize(
                zip(polygons_px[near], (near + 1).tolist()),
                out=number,
                transform=Affine.translation(window.col, window.row),
            )
        inside = _inside(number) & raster.valid
        few = np.bincount(number[inside], minlength=len(polygons_px) + 1) < _LEAST_INSIDE
        inside |= few[number] & (number > 0) & raster.valid
        rows, cols = np.nonzero(inside)
        owner, distance = number[rows, cols].astype(np.int64) - 1, np.zeros(len(rows))
        if ring_m > 0:
            around, of_ring, apart = _ring(number, raster.valid, ring_m / scale)
            # Some pixels are enough; their places choose them, whatever the window.
            size = np.bincount(of_ring, minlength=len(polygons_px) + 1)
            place = (around[0] + window.row) * 73_856_093 ^ (around[1] + window.col) * 19_349_663
            kept = place % _HASHES < (_ENOUGH_AROUND * _HASHES // np.maximum(size, 1))[of_ring]
            around, of_ring, apart = around[:, kept], of_ring[kept], apart[kept]
            rows, cols = np.concatenate([[rows, cols], around], axis=1)
            owner = np.concatenate([owner, of_ring - 1])
            distance = np.concatenate([distance, apart * scale])
        own = owner < count
        rows, cols, owner, distance = rows[own], cols[own], owner[own], distance[own]
        local = np.stack([cols + window.col + 0.5, rows + window.row + 0.5], axis=1)
        local -= centre_px[owner]
        metres = metres_per_px(grid, centre_px)[owner]
        xyz = np.empty((len(owner), 3))
        xyz[:, :2] = np.einsum("nij,nj->ni", metres, local)
        xyz[:, 2] = height[rows, cols].astype(np.float64) * self.unit_m
        return Samples.grouped(owner, xyz, distance)

    def offset_m(self, polygons_px: Polygons) -> Floats | None:
        """Return the metres to the east and north by which outlines must be moved onto roofs.

        None where the surface shows no roofs beside or below them; see `shift.offset_px`.
        """
        grid, scale = self.source.grid, self.resolution_m
        margin = ceil(MOST_M / scale) + 2
        window = _window(polygons_px, margin).intersection(Window.whole(grid.shape))
        if window is None:
            return None
        raster = self.source.read(window)
        built = np.zeros(window.shape_yx, np.uint8)
        rasterize(
            ((polygon, 1) for polygon in polygons_px),
            out=built,
            transform=Affine.translation(window.col, window.row),
        )
        height = np.where(raster.valid, raster.data[0] * self.unit_m, np.nan)
        pixels = offset_px(height, built > 0, scale)
        if pixels is None:
            return None
        centre = np.array([[window.col + window.width / 2, window.row + window.height / 2]])
        return np.asarray(metres_per_px(grid, centre)[0] @ pixels)


def _window(polygons: Polygons, margin: int) -> Window:
    left, top, right, bottom = shapely.total_bounds(polygons)
    row, col = int(np.floor(top)) - margin, int(np.floor(left)) - margin
    return Window(row, col, ceil(bottom) + margin - row, ceil(right) + margin - col)


def _meet(polygons: Polygons, window: Window) -> Ints:
    bounds = shapely.bounds(polygons)
    left, top, right, bottom = bounds.T
    return np.flatnonzero(
        (left < window.col + window.width)
        & (right > window.col)
        & (top < window.row_stop)
        & (bottom > window.row)
    )


def _inside(number: np.ndarray) -> np.ndarray:
    """Return the pixels whose four neighbours lie in the same outline."""
    inside = number > 0
    inside[1:] &= number[1:] == number[:-1]
    inside[:-1] &= number[:-1] == number[1:]
    inside[:, 1:] &= number[:, 1:] == number[:, :-1]
    inside[:, :-1] &= number[:, :-1] == number[:, 1:]
    return inside


def _ring(number: np.ndarray, valid: np.ndarray, most_px: float) -> tuple[Ints, Ints, Floats]:
    """Return (2, n) pixels around the outlines, (n,) nearest outlines and (n,) distances."""
    built = number > 0
    if not built.any():
        return np.zeros((2, 0), np.int64), np.zeros(0, np.int64), np.zeros(0)
    apart, place = cv2.distanceTransformWithLabels(
        (~built).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    outline_at = np.zeros(int(place.max()) + 1, np.int64)
    outline_at[place[built]] = number[built]
    rows, cols = np.nonzero((apart > _EDGE_PX) & (apart <= most_px) & valid)
    return (
        np.stack([rows, cols]),
        outline_at[place[rows, cols]],
        apart[rows, cols].astype(np.float64),
    )
