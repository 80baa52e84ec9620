"""Raster sources without a file: an array in memory, and a black image of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError
from rooftrace.core.types import BoolArray, GeoGrid, Raster, Window
from rooftrace.io.image_header import BandInfo


class ArraySource:
    """A `RasterSource` over an array in memory.

    Args:
        array: Pixels (band, y, x), any dtype. The array is not copied and never written to.
        grid: Position of the pixels; default a grid without a georeference.
        valid: Valid pixels (y, x) bool, False where nodata; default all valid.
        name: Name in errors and reports.
        band_info: Descriptions of the bands, if there are any.

    Raises:
        DataError: the shapes of `array`, `grid` and `valid` do not agree.
    """

    def __init__(
        self,
        array: NDArray[Any],
        grid: GeoGrid | None = None,
        valid: BoolArray | None = None,
        name: str = "array",
        band_info: Sequence[BandInfo] = (),
    ) -> None:
        if array.ndim != 3:
            raise DataError(
                f"{name}: received an array of shape {array.shape}, expected (band, y, x).",
                remedy="Add a band axis in front: array[None].",
            )
        shape_yx = (int(array.shape[1]), int(array.shape[2]))
        grid = GeoGrid(shape_yx) if grid is None else grid
        if grid.shape != shape_yx:
            raise DataError(
                f"{name}: received a grid of shape {grid.shape}, expected {shape_yx}.",
                remedy="Crop or resample the grid with the array.",
            )
        if valid is None:
            valid = np.ones(shape_yx, np.bool_)
        elif valid.shape != shape_yx or valid.dtype != np.bool_:
            raise DataError(
                f"{name}: received valid of shape {valid.shape} and dtype {valid.dtype}, "
                f"expected {shape_yx} and bool.",
                remedy="Pass one bool per pixel, without a band axis.",
            )
        self.name, self.grid, self.bands, self.dtype = name, grid, int(array.shape[0]), array.dtype
        self.band_info = tuple(band_info)
        self._array, self._valid = array, valid

    def read(self, window: Window | None = None) -> Raster:
        """Return a copy of the pixels of `window`, so that a caller may write to it.

        Raises:
            DataError: the window is empty or leaves the grid.
        """
        whole = Window.whole(self.grid.shape)
        window = whole if window is None else window
        if window.area_px <= 0 or window.intersection(whole) != window:
            raise DataError(
                f"{self.name}: received the window {window}, expected one inside {whole}.",
                remedy="Intersect the window with Window.whole(source.grid.shape) first.",
            )
        rows, cols = window.slices()
        return Raster(
            self._array[:, rows, cols].copy(),
            self._valid[rows, cols].copy(),
            self.grid.crop(window),
        )


class BlankSource:
    """A `RasterSource` that is black and valid everywhere: the image of a label without imagery.

    Args:
        grid: Position of the pixels.
        name: Name in errors and reports.
    """

    bands = 3
    dtype = np.dtype(np.uint8)

    def __init__(self, grid: GeoGrid, name: str) -> None:
        self.grid = grid
        self.name = name

    def __repr__(self) -> str:
        return f"BlankSource({self.name!r})"

    def read(self, window: Window | None = None) -> Raster:
        grid = self.grid if window is None else self.grid.crop(window)
        data = np.zeros((self.bands, *grid.shape), np.uint8)
        return Raster(data, np.ones(grid.shape, np.bool_), grid)
