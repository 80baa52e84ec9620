"""The canvas of a synthetic scene: colour, height and occupancy, in metres."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import Polygon

Colour = tuple[float, float, float]
Rng = np.random.Generator

# Sub-pixel bits of the coordinates that are handed to OpenCV.
_SHIFT = 4


def polygons_of(geometry: BaseGeometry) -> list[Polygon]:
    """Return the polygons in a geometry of any type; lines and points are dropped."""
    if geometry.is_empty:
        return []
    if isinstance(geometry, Polygon):
        return [geometry]
    return [p for part in getattr(geometry, "geoms", []) for p in polygons_of(part)]


def jitter(rng: Rng, colour: Colour, amount: float = 8.0) -> Colour:
    """Return a colour that is randomly lighter or darker, with a small shift in hue."""
    shift = rng.normal(0.0, amount)
    r, g, b = (float(np.clip(c + shift + rng.normal(0.0, amount / 3), 5, 250)) for c in colour)
    return r, g, b


def scaled(colour: Colour, factor: float) -> Colour:
    """Return a colour multiplied by a factor."""
    r, g, b = (min(250.0, c * factor) for c in colour)
    return r, g, b


def noise(rng: Rng, shape_yx: tuple[int, int], cells_px: Sequence[float]) -> NDArray[np.float32]:
    """Return noise of several octaves with a mean of about 0, within -1..1.

    Args:
        rng: Random generator.
        shape_yx: Shape of the result.
        cells_px: Grain of each octave in pixels; coarser octaves weigh more.
    """
    height, width = shape_yx
    total = np.zeros(shape_yx, np.float32)
    weights = np.sqrt(np.asarray(cells_px, dtype=float))
    weights /= weights.sum()
    for cell, weight in zip(cells_px, weights, strict=True):
        grain = (max(2, int(height / cell) + 2), max(2, int(width / cell) + 2))
        small = rng.integers(0, 256, grain, dtype=np.uint8)
        # 8-bit resizing is integer arithmetic in OpenCV: the same pixels on every machine.
        large = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        total += (large.astype(np.float32) - np.float32(127.5)) * np.float32(weight / 127.5)
    return total


@dataclass(frozen=True)
class Palette:
    """Colours and building habits of a region."""

    grass: Colour
    dry: Colour
    soil: Colour
    asphalt: Colour
    water: Colour
    crowns: tuple[Colour, ...]
    houses: tuple[str, ...]
    shacks: tuple[str, ...]
    palms: float
    paved: float
    pools: float


class Canvas:
    """Colour, texture strength, height above ground and occupancy of a scene.

    Args:
        shape_yx: Shape in pixels.
        gsd_m: Metres per pixel. All coordinates given to the methods are metres from the upper left
            corner, x right, y down.
        ground: Colour of the ground.

    Attributes:
        rgba: (y, x, 4) uint8; the fourth channel is the strength of ground noise.
        height: (y, x) uint8, decimetres above ground.
        taken: (y, x) uint8, not 0 where no building may be placed.
    """

    def __init__(self, shape_yx: tuple[int, int], gsd_m: float, ground: Colour) -> None:
        self.shape_yx = shape_yx
        self.gsd_m = gsd_m
        self.rgba: NDArray[np.uint8] = np.empty((*shape_yx, 4), np.uint8)
        self.rgba[:] = (*(round(c) for c in ground), 255)
        self.height: NDArray[np.uint8] = np.zeros(shape_yx, np.uint8)
        self.taken: NDArray[np.uint8] = np.zeros(shape_yx, np.uint8)

    @property
    def size_m(self) -> tuple[float, float]:
        """Height and width in metres."""
        return self.shape_yx[0] * self.gsd_m, self.shape_yx[1] * self.gsd_m

    def fixed(
        self, points_xy: NDArray[np.float64], origin_px: tuple[int, int] = (0, 0)
    ) -> NDArray[np.int32]:
        """Return points as OpenCV's fixed-point pixel coordinates; `origin_px` is (row, column)."""
        # OpenCV counts from the centre of the first pixel, this class from its corner.
        px = points_xy / self.gsd_m - 0.5 - np.array([origin_px[1], origin_px[0]])
        return np.asarray(np.rint(px * (1 << _SHIFT)), np.int32)

    def fill(
        self,
        geometry: BaseGeometry,
        colour: Colour | None,
        *,
        texture: float = 0.5,
        taken: int = 0,
        height_m: float | None = None,
    ) -> None:
        """Paint a geometry: colour (None keeps it), and occupancy and height where given."""
        for polygon in polygons_of(geometry):
            rings = [self.fixed(np.asarray(polygon.exterior.coords))]
            rings += [self.fixed(np.asarray(ring.coords)) for ring in polygon.interiors]
            if colour is not None:
                value = (*(float(c) for c in colour), 255.0 * texture)
                cv2.fillPoly(self.rgba, rings, value, lineType=cv2.LINE_AA, shift=_SHIFT)
            if taken:
                cv2.fillPoly(self.taken, rings, taken, shift=_SHIFT)
            if height_m is not None:
                cv2.fillPoly(self.height, rings, round(height_m * 10), shift=_SHIFT)

    def line(
        self,
        points_xy: NDArray[np.float64],
        colour: Colour,
        *,
        width_px: int = 1,
        height_m: float = 0.0,
    ) -> None:
        """Draw a thin line, such as a fence or a road marking."""
        points = [self.fixed(points_xy)]
        value = (*(float(c) for c in colour), 40.0)
        cv2.polylines(self.rgba, points, False, value, width_px, cv2.LINE_AA, _SHIFT)
        if height_m > 0:
            cv2.polylines(
                self.height, points, False, round(height_m * 10), width_px, cv2.LINE_8, _SHIFT
            )

    def is_free(self, polygon: Polygon) -> bool:
        """Return True if nothing occupies the ground under `polygon`, which must overlap the
        canvas.
        """
        window = self.window(polygon.bounds)
        if window is None:
            return False
        rows, cols = window
        patch = np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.uint8)
        points = self.fixed(np.asarray(polygon.exterior.coords), (rows.start, cols.start))
        cv2.fillPoly(patch, [points], 1, shift=_SHIFT)
        return not bool((patch * self.taken[rows, cols]).any())

    def window(self, bounds_xy: tuple[float, float, float, float]) -> tuple[slice, slice] | None:
        """Return the rows and columns that cover bounds in metres; None outside the canvas."""
        left, top, right, bottom = (b / self.gsd_m for b in bounds_xy)
        row0, col0 = max(0, int(np.floor(top)) - 1), max(0, int(np.floor(left)) - 1)
        row1 = min(self.shape_yx[0], int(np.ceil(bottom)) + 1)
        col1 = min(self.shape_yx[1], int(np.ceil(right)) + 1)
        if row1 <= row0 or col1 <= col0:
            return None
        return slice(row0, row1), slice(col0, col1)

    def blend(
        self,
        rows: slice,
        cols: slice,
        premultiplied: NDArray[Any],
        alpha: NDArray[Any],
        height_dm: NDArray[np.uint8] | None,
        texture: float = 0.0,
    ) -> None:
        """Draw a patch over the canvas.

        Args:
            rows, cols: Position of the patch.
            premultiplied: (h, w, 3) colour times coverage.
            alpha: (h, w) coverage 0..255.
            height_dm: (h, w) heights, used where at least half of the pixel is covered.
            texture: Strength of ground noise on the patch.
        """
        under = self.rgba[rows, cols]
        rest = (255 - alpha).astype(np.uint16)[..., None]
        mixed = (under * rest + np.uint16(127)) // np.uint16(255)
        mixed[..., :3] += premultiplied
        own = (alpha * np.float32(texture)).astype(np.uint16)
        mixed[..., 3] += own
        self.rgba[rows, cols] = np.minimum(mixed, 255).astype(np.uint8)
        if height_dm is not None:
            seen: NDArray[Any] = self.height[rows, cols]
            np.maximum(seen, height_dm, out=seen, where=alpha > 127)
