"""Many small images of one size, side by side, read as one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from rooftrace.core.errors import DataError
from rooftrace.core.types import GeoGrid, Raster, RasterSource, Window

__all__ = ["TileMosaic"]

_CACHE_BYTES = 96 * 2**20
"""Of decoded tiles: a row of them under a wide window, so that none is decoded twice."""


class TileMosaic:
    """A `RasterSource` over tiles; where there is none, there is nodata.

    Tiles are opened when a window needs them, and no more is held than a window and a cache of
    decoded tiles. It can be pickled; one thread at a time reads from it.

    Args:
        tiles: the image at each (row, column) of tiles; missing ones are left out.
        tile_shape: (rows, columns) of pixels of every tile.
        grid: of the whole; its shape is a whole number of tiles.
        name: what errors and reports call it.
        cache_bytes: of decoded tiles that are kept.

    Raises:
        ValueError: no tile, or one that lies outside of the grid.
    """

    def __init__(
        self,
        tiles: Mapping[tuple[int, int], RasterSource],
        tile_shape: tuple[int, int],
        grid: GeoGrid,
        name: str,
        *,
        cache_bytes: int = _CACHE_BYTES,
    ) -> None:
        height, width = tile_shape
        rows, cols = grid.height // height, grid.width // width
        if (rows * height, cols * width) != grid.shape:
            raise ValueError(f"{grid.shape} is not a whole number of tiles of {tile_shape}")
        if not tiles or not all(0 <= row < rows and 0 <= col < cols for row, col in tiles):
            raise ValueError(f"{len(tiles)} tiles do not lie on {rows} × {cols}")
        self._tiles = dict(tiles)
        self._tile_shape = tile_shape
        self._grid = grid
        self._name = name
        self._cache_bytes = cache_bytes
        self._decoded: OrderedDict[tuple[int, int], Raster] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.update(_decoded=OrderedDict(), _held=0)
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"TileMosaic({self._name!r}, {len(self._tiles)} tiles)"

    @property
    def name(self) -> str:
        return self._name

    @property
    def grid(self) -> GeoGrid:
        return self._grid

    @cached_property
    def bands(self) -> int:
        """Those of its tiles; a grey tile among coloured ones counts as coloured."""
        first = self._first.bands
        # A tile of water may have been stored as grey, but hardly all of them.
        return first if first > 1 else max(tile.bands for tile in self._tiles.values())

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._first.dtype

    @property
    def _first(self) -> RasterSource:
        return next(iter(self._tiles.values()))

    def close(self) -> None:
        """Let go of the decoded tiles."""
        with self._lock:
            self._decoded.clear()
            self._held = 0

    def read(self, window: Window | None = None) -> Raster:
        """The pixels of `window` (inside the grid); 0 where there is no tile.

        Raises:
            DataError: a tile cannot be read, or has another size, type or number of bands.
        """
        window = window or Window.whole(self._grid.shape)
        if window.intersection(Window.whole(self._grid.shape)) != window:
            raise ValueError(f"{window} is not inside {self._name} with {self._grid.shape}")
        data = np.zeros((self.bands, *window.shape_yx), self.dtype)
        valid = np.zeros(window.shape_yx, np.bool_)
        height, width = self._tile_shape
        with self._lock:
            for row in range(window.row // height, -(-window.row_stop // height)):
                for col in range(window.col // width, -(-window.col_stop // width)):
                    if (row, col) not in self._tiles:
                        continue
                    tile = self._tile(row, col)
                    whole = Window(row * height, col * width, height, width)
                    part = whole.intersection(window)
                    assert part is not None
                    here, there = part.slices(window), part.slices(whole)
                    data[:, *here] = tile.data[:, *there]
                    valid[here] = tile.valid[there]
        return Raster(data, valid, self._grid.crop(window))

    def is_empty(self, window: Window) -> bool:
        """Whether a window has no tile."""
        height, width = self._tile_shape
        return not any(
            (row, col) in self._tiles
            for row in range(window.row // height, -(-window.row_stop // height))
            for col in range(window.col // width, -(-window.col_stop // width))
        )

    def _tile(self, row: int, col: int) -> Raster:
        """A decoded tile; the one that was used longest ago makes room for it."""
        key = (row, col)
        if key in self._decoded:
            self._decoded.move_to_end(key)
            return self._decoded[key]
        source = self._tiles[key]
        found = (source.grid.shape, source.dtype, source.bands)
        if found[:2] != (self._tile_shape, self.dtype) or found[2] not in (1, self.bands):
            raise DataError(
                f"The tile {source.name} has {found[0][0]} × {found[0][1]} pixels, {found[2]} bands"
                f" of {found[1]}; the others of {self._name} have {self._tile_shape[0]} × "
                f"{self._tile_shape[1]}, {self.bands} bands of {self.dtype}.",
                remedy="Take it out of the folder, or fetch it again like the others.",
            )
        raster = source.read()
        self._decoded[key] = raster
        self._held += raster.data.nbytes + raster.valid.nbytes
        while self._held > self._cache_bytes and len(self._decoded) > 1:
            _, old = self._decoded.popitem(last=False)
            self._held -= old.data.nbytes + old.valid.nbytes
        return raster
