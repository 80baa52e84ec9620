"""An image of which nothing but its grid is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from rooftrace.core.types import GeoGrid, Raster, Window

__all__ = ["BlankSource"]

_BANDS = 3


class BlankSource:
    """A `RasterSource` that is black and valid everywhere: what a label without imagery lies on.

    Args:
        grid: where its pixels would lie.
        name: what errors and reports call it.
    """

    def __init__(self, grid: GeoGrid, name: str) -> None:
        self.grid = grid
        self.name = name

    def __repr__(self) -> str:
        return f"BlankSource({self.name!r})"

    @property
    def bands(self) -> int:
        return _BANDS

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def read(self, window: Window | None = None) -> Raster:
        grid = self.grid if window is None else self.grid.crop(window)
        data = np.zeros((_BANDS, *grid.shape), np.uint8)
        return Raster(data, np.ones(grid.shape, np.bool_), grid)
