"""Samples of an elevation raster in and around buildings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import ceil

import cv2
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
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
"""About the number of pixels used around a building; hashes of places (Teschner et al. 2003)."""

_LEAST_WIDTH_PX = 512
"""Least width of a window in pixels: that of the blocks of most tiled files."""

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
    def crs(self) -> CRS:
        assert self.source.grid.crs is not None
        return self.source.grid.crs

    @property
    def resolution_m(self) -> float:
        """Metres per pixel."""
        gsd = self.source.grid.gsd_m
        assert gsd is not None
        return gsd

    def place(self, polygons: Polygons, crs: CRS) -> Polygons:
        """Return polygons of a CRS in pixels of the raster, corner-based, x right and y down."""

        def to_pixels(xy: Floats) -> Floats:
            pixels = self.source.grid.to_pixels(xy)
            # What the CRS cannot show lies outside of the raster.
            return np.where(np.isfinite(pixels), pixels, -1e9)

        there = reprojected(polygons, crs, self.crs, np.inf)
        return np.asarray(shapely.transform(there, to_pixels), np.object_)

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
        window = self._window(polygons_px[:count], ceil(ring_m / scale) + 2)
        if window is None:
            return Samples.grouped(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0))
        raster = self.source.read(window)
        number = _numbers(polygons_px, window)
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
        z = raster.data[0][rows, cols].astype(np.float64) * self.unit_m
        xyz = np.column_stack([np.einsum("nij,nj->ni", metres, local), z])
        return Samples.grouped(owner, xyz, distance)

    def offset_m(self, polygons_px: Polygons) -> Floats | None:
        """Return the metres to the east and north by which outlines must be moved onto roofs.

        None where the surface shows no roofs beside or below them; see `shift.offset_px`.
        """
        grid, scale = self.source.grid, self.resolution_m
        window = self._window(polygons_px, ceil(MOST_M / scale) + 2)
        if window is None:
            return None
        raster = self.source.read(window)
        height = np.where(raster.valid, raster.data[0] * self.unit_m, np.nan)
        pixels = offset_px(height, _numbers(polygons_px, window) > 0, scale)
        if pixels is None:
            return None
        centre = np.array([[window.col + window.width / 2, window.row + window.height / 2]])
        return np.asarray(metres_per_px(grid, centre)[0] @ pixels)

    def _window(self, polygons_px: Polygons, margin: int) -> Window | None:
        """Return the window of polygons and a margin; None outside of the raster."""
        rows, cols = self.source.grid.shape
        left, top, right, bottom = shapely.total_bounds(polygons_px)
        first_row, last_row = max(int(top) - margin, 0), min(ceil(bottom) + margin, rows)
        first, last = max(int(left) - margin, 0), min(ceil(right) + margin, cols)
        if first_row >= last_row or first >= last:
            return None
        # Of a window narrower than its blocks, GDAL would hold a whole row of blocks.
        width = min(max(last - first, _LEAST_WIDTH_PX), cols)
        return Window(first_row, min(first, cols - width), last_row - first_row, width)


def _numbers(polygons: Polygons, window: Window) -> NDArray[np.int32]:
    """Return the number from 1 of the polygon at each pixel of a window; 0 outside of all."""
    number = np.zeros(window.shape_yx, np.int32)
    box = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
    near = np.flatnonzero(shapely.intersects(polygons, box))
    if len(near):
        # Rasterio reads shapely's objects twice as slowly.
        shapes = map(json.loads, shapely.to_geojson(polygons[near]))
        transform = Affine.translation(window.col, window.row)
        rasterize(zip(shapes, (near + 1).tolist()), out=number, transform=transform)
    return number


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
    apart, place = cv2.distanceTransformWithLabels(
        (~built).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    outline_at = np.zeros(int(place.max()) + 1, np.int64)
    outline_at[place[built]] = number[built]
    rows, cols = np.nonzero((apart > _EDGE_PX) & (apart <= most_px) & valid)
    distance = apart[rows, cols].astype(np.float64)
    return np.stack([rows, cols]), outline_at[place[rows, cols]], distance
