"""Samples in and around buildings, how an elevation raster gives them, and how far outlines lie
beside their roofs.

A sample is one height at one place: a pixel of a surface model, or a point of a laser scan. Code
that gets samples does not depend on which of the two they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.types import BoolArray, Floats, Ints, Polygons, RasterSource, Window
from rooftrace.io.gdal import number_polygons
from rooftrace.io.reproject import reprojected
from rooftrace.vector.footprints import metres_per_px
from rooftrace.vector.trace import Columns


@dataclass(frozen=True)
class Samples(Columns):
    """Heights in and around buildings, ordered by building, then from place to place.

    Args:
        owner: (n,) int64 index of the building, ascending.
        x, y: (n,) float64 metres to the east and north of the building's centre.
        z: (n,) float64 metres in the vertical datum of the surface.
        distance: (n,) float64 metres to the outline; 0 inside.
        ground: (n,) bool, True where the source says that the sample is ground.
    """

    owner: Ints
    x: Floats
    y: Floats
    z: Floats
    distance: Floats
    ground: BoolArray

    @classmethod
    def grouped(
        cls, owner: Ints, xyz: Floats, distance: Floats, ground: BoolArray | None = None
    ) -> Samples:
        """Return samples grouped by building; those of a building keep their order.

        Args:
            owner: (n,) int64 index of the building, below 65,536.
            xyz: (n, 3) metres, see `Samples`.
            distance: (n,) metres to the outline.
            ground: (n,) bool; default: not known.
        """
        # NumPy sorts numbers of 16 bits by radix.
        order = np.argsort(owner.astype(np.uint16), kind="stable")
        x, y, z = xyz[order].T
        known = np.zeros(len(owner), np.bool_) if ground is None else ground[order]
        return cls(owner[order], x, y, z, distance[order], known)

    @cached_property
    def _first(self) -> Ints:
        """Return the row of the first sample of each building that has any."""
        return np.flatnonzero(np.diff(self.owner, prepend=-1))

    def sums(self, values: Floats | BoolArray, count: int) -> Floats:
        """Return (count,) sums of values (n,) of the samples of each building."""
        total = np.zeros(count)
        if len(self):
            total[self.owner[self._first]] = np.add.reduceat(values, self._first, dtype=np.float64)
        return total

    def thinned(self, count: int, most: int) -> Samples:
        """Return at most `most` samples of each building, evenly over their order."""
        size = np.bincount(self.owner, minlength=count)
        start = np.cumsum(size) - size
        rank = np.arange(len(self.owner)) - start[self.owner]
        total = np.maximum(size, most)[self.owner]
        # The quotient rises by one at every sample that is kept.
        return self.of((rank + 1) * most // total > rank * most // total)


def quantiles(values: Floats, owner: Ints, count: int, *shares: float) -> list[Floats]:
    """Return (count,) quantiles of the samples of each building by share; NaN where it has none.

    A quantile is a sample, without interpolation. The owners ascend.
    """
    least, greatest = (np.nanmin(values), np.nanmax(values)) if len(values) else (0.0, 0.0)
    # One sort of numbers that ascend with the owner takes a third of the time of `np.lexsort`.
    above = np.nan_to_num(values - least, nan=greatest - least)
    ordered = np.append(values[np.argsort(owner * (greatest - least + 1) + above)], np.nan)
    size = np.bincount(owner, minlength=count)
    start = np.cumsum(size) - size
    steps = (np.rint(share * np.maximum(size - 1, 0)).astype(np.int64) for share in shares)
    return [ordered[np.where(size > 0, start + step, -1)] for step in steps]


def roughness(samples: Samples, count: int, step_m: float) -> Floats:
    """Return (count,) median deviations of samples from a line through their two neighbours.

    It is the noise of a surface, in metres of standard deviation, where roofs are made of planes:
    1.4826 median(|z[i-1] - 2 z[i] + z[i+1]|) / sqrt(6), along rows of pixels. NaN where a building
    has no three samples in a row.

    Args:
        samples: Samples in the order of the pixels.
        count: Number of buildings.
        step_m: Distance in metres from pixel to pixel.
    """
    steps = np.hypot(np.diff(samples.x), np.diff(samples.y))
    beside = (np.diff(samples.owner) == 0) & (steps < 1.2 * step_m)
    three = beside[:-1] & beside[1:]
    bend = np.abs(samples.z[:-2] - 2 * samples.z[1:-1] + samples.z[2:])[three]
    (middle,) = quantiles(bend, samples.owner[1:-1][three], count, 0.5)
    return np.asarray(1.4826 * middle / np.sqrt(6))


MOST_M = 5.0
"""Maximum offset in metres that is looked for."""

_RING_M, _FLOOR_M, _STEP_M = 2.0, 25.0, 4.0
"""Width of the ring that should be ground, side of the square whose lowest height is ground, and
height from which a step counts in full, in metres."""

_LEAST_STEP = 0.25
"""Minimum difference, in `_STEP_M`, between outlines and their rings at the best offset."""


@dataclass(frozen=True)
class RoofOffset:
    """Offset from roofs to their outlines.

    Args:
        east_m, north_m: Median over the places, in metres.
        spread_m: Median absolute deviation of the places from it, in metres.
        places: Number of places that it follows from.
    """

    east_m: float
    north_m: float
    spread_m: float
    places: int

    @classmethod
    def of(cls, offsets: list[Floats]) -> RoofOffset | None:
        """Return the median of (2,) offsets; None of fewer than one."""
        if not offsets:
            return None
        east, north = np.median(offsets, axis=0).tolist()
        spread = np.median(np.abs(np.array(offsets) - (east, north)), axis=0).max()
        return cls(east, north, float(spread), len(offsets))

    @property
    def length_m(self) -> float:
        return float(np.hypot(self.east_m, self.north_m))

    def to_json(self) -> dict[str, Any]:
        """Return the figures in centimetres of precision."""
        return {name: round(value, 2) for name, value in vars(self).items()}


def offset_px(
    height: NDArray[np.floating[Any]], built: NDArray[np.bool_], pixel_m: float
) -> Floats | None:
    """Return the columns and rows by which outlines must be moved onto the roofs of a surface.

    The offset is that at which the outlines hold high ground and a ring around them low ground: the
    greatest correlation of the surface's steps with the outlines minus their ring.

    Args:
        height: (y, x) metres; NaN where not known.
        built: (y, x) pixels inside outlines.
        pixel_m: Metres per pixel.

    Returns:
        (2,) pixels to the right and down, between pixels by a parabola; None where no offset within
        `MOST_M` stands out.
    """
    most = ceil(MOST_M / pixel_m)
    known = np.isfinite(height)
    filled = np.where(known, height, np.nanmax(height) if known.any() else 0).astype(np.float32)
    floor = cv2.erode(filled, np.ones((ceil(_FLOOR_M / pixel_m),) * 2, np.uint8))
    step = np.where(known, np.clip((filled - floor) / _STEP_M, 0, 1), 0)
    inside = built.astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * ceil(_RING_M / pixel_m) + 1,) * 2)
    ring = cv2.dilate(inside, disc) - inside
    if not inside.any() or not ring.any():
        return None
    kernel = (inside / inside.sum() - ring / ring.sum()).astype(np.float32)
    shape = [cv2.getOptimalDFTSize(side + most) for side in built.shape]
    spectrum = np.fft.rfft2(step, shape) * np.conj(np.fft.rfft2(kernel, shape))
    score = np.roll(np.fft.irfft2(spectrum, shape), (most, most), (0, 1))
    score = score[: 2 * most + 1, : 2 * most + 1]
    row, col = np.unravel_index(int(np.argmax(score)), score.shape)
    if score[row, col] < _LEAST_STEP or not (0 < row < 2 * most and 0 < col < 2 * most):
        return None
    around = score[row - 1 : row + 2, col - 1 : col + 2]
    across, down = around[1], around[:, 1]
    return np.array([col - most + _vertex(across), row - most + _vertex(down)])


def _vertex(three: Floats) -> float:
    """Return where a parabola through three values is highest, from the middle one."""
    bend = three[0] - 2 * three[1] + three[2]
    return 0.0 if bend >= 0 else float((three[0] - three[2]) / (2 * bend))


_LEAST_INSIDE = 9
"""Number of pixels inside an outline below which those on its edge count, too."""

_LEAST_OWN = 0.5
"""Share of the pixels of an outline that others do not cover, from which it is measured."""

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
        self,
        polygons_px: Polygons,
        count: int,
        centre_px: Floats,
        ring_m: float,
        *,
        is_terrain: bool = False,
    ) -> tuple[Samples, Floats, BoolArray]:
        """Return the heights inside the first outlines and those around them, and (count,) the
        share of each outline that the model covers, and whether a later outline lies on most of it.

        A pixel inside counts where its four neighbours lie in the same outline, so that walls
        count for no roof; one around counts for the nearest outline, 1.5 pixels and more from all.

        Args:
            polygons_px: (n,) outlines of all buildings that are near, see `place`.
            count: Number of buildings, the first of the outlines, whose samples are returned.
            centre_px: (count, 2) centre of each.
            ring_m: Distance in metres from the outline; 0 for the inside alone.
            is_terrain: True where an outline without a pixel has the one below its centre.
        """
        grid, scale = self.source.grid, self.resolution_m
        window = self._window(polygons_px[:count], ceil(ring_m / scale) + 2)
        if window is None:
            nothing = Samples.grouped(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0))
            return nothing, np.zeros(count), np.zeros(count, np.bool_)
        raster = self.source.read(window)
        owner = number_polygons(polygons_px, window)
        pixels, seen = (
            np.bincount(some.ravel(), minlength=count + 1)[1 : count + 1]
            for some in (owner, owner * raster.valid)
        )
        within = shapely.area(shapely.clip_by_rect(polygons_px[:count], 0, 0, *grid.shape[::-1]))
        hidden = pixels < _LEAST_OWN * within - _LEAST_INSIDE
        covered = within / np.maximum(shapely.area(polygons_px[:count]), 1e-9)
        # The centre of no pixel may lie in a small outline.
        covered *= np.where(pixels > 0, seen / np.maximum(pixels, 1), 1)
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
        distance = apart[rows, cols].astype(np.float64) * scale
        if is_terrain:
            bare = np.flatnonzero(np.bincount(of[distance == 0], minlength=count) == 0)
            col, row = (np.floor(centre_px[bare]).astype(int) - (window.col, window.row)).T
            there = (row >= 0) & (row < window.height) & (col >= 0) & (col < window.width)
            there[there] = raster.valid[row[there], col[there]]
            rows, cols = np.append(rows, row[there]), np.append(cols, col[there])
            of, distance = np.append(of, bare[there]), np.append(distance, np.zeros(there.sum()))
        east = cols + (window.col + 0.5) - centre_px[of, 0]
        south = rows + (window.row + 0.5) - centre_px[of, 1]
        metres = metres_per_px(grid, centre_px)
        x, y = (east * metres[of, axis, 0] + south * metres[of, axis, 1] for axis in range(2))
        z = raster.data[0][rows, cols].astype(np.float64)
        return Samples.grouped(of, np.column_stack([x, y, z]), distance), covered, hidden

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
