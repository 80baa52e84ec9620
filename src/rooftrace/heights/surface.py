"""Samples of an elevation raster in and around buildings."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.types import Floats, Polygons, RasterSource, Window
from rooftrace.heights.samples import Samples
from rooftrace.heights.shift import MOST_M, offset_px
from rooftrace.io.gdal import number_polygons
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
    """An elevation raster: a surface model or a terrain model.

    Args:
        source: The raster with one band of heights in metres; its grid has a CRS.
    """

    source: RasterSource

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
        there = reprojected(polygons, crs, self.crs, np.inf)
        # What the CRS cannot show lies outside of the raster.
        xy = self.source.grid.to_pixels(shapely.get_coordinates(there))
        placed = np.where(np.isfinite(xy), xy, -1e9)
        return np.asarray(shapely.set_coordinates(there.copy(), placed), np.object_)

    def samples(
        self, polygons_px: Polygons, count: int, centre_px: Floats, ring_m: float
    ) -> tuple[Samples, Floats]:
        """Return the heights inside the first outlines and those around them, and (count,) the
        share of each outline that the model covers.

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
            nothing = Samples.grouped(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0))
            return nothing, np.zeros(count)
        raster = self.source.read(window)
        owner = number_polygons(polygons_px, window)
        pixels, seen = (
            np.bincount(some.ravel(), minlength=count + 1)[1 : count + 1]
            for some in (owner, owner * raster.valid)
        )
        within = shapely.area(shapely.clip_by_rect(polygons_px[:count], 0, 0, *grid.shape[::-1]))
        covered = within / np.maximum(shapely.area(polygons_px[:count]), 1e-9)
        covered *= seen / np.maximum(pixels, 1)
        keep = _inside(owner) & raster.valid
        few = np.bincount(owner[keep], minlength=len(polygons_px) + 1) < _LEAST_INSIDE
        keep |= few[owner] & (owner > 0) & raster.valid
        apart = np.zeros(window.shape_yx, np.float32)
        if ring_m > 0:
            owner, apart = _nearest(owner)
            rows, cols = np.nonzero((apart > _EDGE_PX) & (apart <= ring_m / scale) & raster.valid)
            size = np.bincount(owner[rows, cols], minlength=len(polygons_px) + 1)
            # Some pixels are enough; their places choose them, whatever the window.
            place = (rows + window.row) * 73_856_093 ^ (cols + window.col) * 19_349_663
            enough = _ENOUGH_AROUND * _HASHES // np.maximum(size, 1)
            keep[rows, cols] = (place & (_HASHES - 1)) < enough[owner[rows, cols]]
        rows, cols = np.nonzero(keep & (owner <= count))
        of = owner[rows, cols].astype(np.int64) - 1
        east = cols + (window.col + 0.5) - centre_px[of, 0]
        south = rows + (window.row + 0.5) - centre_px[of, 1]
        metres = metres_per_px(grid, centre_px)
        x, y = (east * metres[of, axis, 0] + south * metres[of, axis, 1] for axis in range(2))
        z = raster.data[0][rows, cols].astype(np.float64)
        distance = apart[rows, cols].astype(np.float64) * scale
        return Samples.grouped(of, np.column_stack([x, y, z]), distance), covered

    def offset_m(self, polygons_px: Polygons) -> Floats | None:
        """Return the metres to the east and north by which outlines must be moved onto roofs.

        None where the surface shows no roofs beside or below them; see `shift.offset_px`.
        """
        grid, scale = self.source.grid, self.resolution_m
        window = self._window(polygons_px, ceil(MOST_M / scale) + 2)
        if window is None:
            return None
        raster = self.source.read(window)
        height = np.where(raster.valid, raster.data[0], np.nan)
        pixels = offset_px(height, number_polygons(polygons_px, window) > 0, scale)
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


def _inside(number: np.ndarray) -> np.ndarray:
    """Return the pixels whose four neighbours lie in the same outline."""
    inside = number > 0
    inside[1:] &= number[1:] == number[:-1]
    inside[:-1] &= number[:-1] == number[1:]
    inside[:, 1:] &= number[:, 1:] == number[:, :-1]
    inside[:, :-1] &= number[:, :-1] == number[:, 1:]
    return inside


def _nearest(number: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the number of the nearest outline of each pixel, and its distance in pixels."""
    built = number > 0
    apart, place = cv2.distanceTransformWithLabels(
        (~built).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    outline_at = np.zeros(int(place.max()) + 1, np.int32)
    outline_at[place[built]] = number[built]
    return outline_at[place], np.asarray(apart, np.float32)
