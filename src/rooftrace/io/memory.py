"""Images that are in memory already."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError
from rooftrace.core.types import BoolArray, GeoGrid, Raster, Window

__all__ = ["ArraySource"]


class ArraySource:
    """A `RasterSource` over an array in memory.

    Args:
        array: (band, y, x), any dtype. Not copied, and never written to.
        grid: where its pixels lie; default an image that lies nowhere.
        valid: (y, x) bool, False where nodata; default all valid.
        name: what errors and reports call it.

    Raises:
        DataError: the shapes of `array`, `grid` and `valid` do not fit together.
    """

    def __init__(
        self,
        array: NDArray[Any],
        grid: GeoGrid | None = None,
        valid: BoolArray | None = None,
        name: str = "array",
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
                f"{name}: received a grid of shape {grid.shape}, expected {shape_yx} as the array.",
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
        self._array, self._grid, self._valid, self._name = array, grid, valid, name

    @property
    def name(self) -> str:
        return self._name

    @property
    def grid(self) -> GeoGrid:
        return self._grid

    @property
    def bands(self) -> int:
        return int(self._array.shape[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._array.dtype

    def read(self, window: Window | None = None) -> Raster:
        """The pixels of `window` as copies, so that a caller may write to them.

        Raises:
            DataError: the window is empty or leaves the grid.
        """
        whole = Window.whole(self._grid.shape)
        window = whole if window is None else window
        if window.area_px <= 0 or window.intersection(whole) != window:
            raise DataError(
                f"{self._name}: received the window {window}, expected one inside {whole}.",
                remedy="Intersect the window with Window.whole(source.grid.shape) first.",
            )
        rows, cols = window.slices()
        return Raster(
            self._array[:, rows, cols].copy(),
            self._valid[rows, cols].copy(),
            self._grid.crop(window),
        )
