"""Georeferenced images side by side, of any sizes, read as one scene."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
from affine import Affine

from rooftrace.core.errors import DataError, GeoreferenceError
from rooftrace.core.types import GeoGrid, Raster, SparseSource, Window

__all__ = ["AdjacentTiles"]

_OFF_PX = 0.05
"""That an image may lie beside the common grid: coordinates are rounded when they are written."""

_SMALL_PX = 2**20
"""Images up to here are decoded whole, and kept for the windows that they have in common."""

_DECODED_BYTES = 96 * 2**20
_KEPT_OPEN = 32
_MOST_PX = 2**37
_LEAST_COVERED = 1000
"""Of a scene beyond so many pixels, one in so many has to be covered."""


class AdjacentTiles:
    """A `RasterSource` over images on one grid of pixels; where there is none, there is nodata.

    Of images that overlap, the later one counts where it is valid. No more is held than a window,
    a cache of decoded images and a few open files. It can be pickled; one thread at a time reads.

    Args:
        tiles: of one CRS, pixel size, dtype and number of bands; their headers are read here.
        name: what errors and reports call it.

    Raises:
        DataError: there is none, one cannot be read, or they are of different kinds, or lie
            scattered.
        GeoreferenceError: one has no georeference or another one, or lies between the pixels.
    """

    def __init__(self, tiles: Sequence[SparseSource], name: str) -> None:
        if not tiles:
            raise DataError(f"{name} holds no images.", remedy="Name the folder that holds them.")
        self._tiles = list(tiles)
        self._name = name
        first = tiles[0]
        self._bands, self._dtype = first.bands, first.dtype
        offsets = [self._offset_of(tile) for tile in tiles]
        top, left = (min(axis) for axis in zip(*offsets))
        self._windows = [
            Window(row - top, col - left, *tile.grid.shape)
            for tile, (row, col) in zip(tiles, offsets)
        ]
        shape = (
            max(window.row_stop for window in self._windows),
            max(window.col_stop for window in self._windows),
        )
        self._check_dense(shape)
        moved = first.grid.transform @ Affine.translation(left, top)
        self._grid = GeoGrid(shape, moved, first.grid.crs)
        # Cells as large as the largest image: each lies in four of them at most.
        self._cell = (
            max(window.height for window in self._windows),
            max(window.width for window in self._windows),
        )
        self._cells: dict[tuple[int, int], list[int]] = {}
        for number, window in enumerate(self._windows):
            for cell in self._cells_under(window):
                self._cells.setdefault(cell, []).append(number)
        self._forget()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for key in ("_lock", "_decoded", "_open", "_held"):
            del state[key]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"AdjacentTiles({self._name!r}, {len(self._tiles)} images)"

    @property
    def name(self) -> str:
        return self._name

    @property
    def grid(self) -> GeoGrid:
        return self._grid

    @property
    def bands(self) -> int:
        return self._bands

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    def close(self) -> None:
        """Let go of open files and decoded images."""
        with self._lock:
            for number in self._open:
                _close(self._tiles[number])
            self._forget()

    def read(self, window: Window | None = None) -> Raster:
        """The pixels of `window` (inside the grid); 0 where there is no image.

        Raises:
            DataError: an image cannot be read.
        """
        whole = Window.whole(self._grid.shape)
        window = window or whole
        if window.intersection(whole) != window:
            raise ValueError(f"{window} is not inside {self._name} with {self._grid.shape}")
        data = np.zeros((self._bands, *window.shape_yx), self._dtype)
        valid = np.zeros(window.shape_yx, np.bool_)
        with self._lock:
            for number in self._under(window):
                part = self._windows[number].intersection(window)
                assert part is not None
                raster = self._read_part(number, part)
                here = part.slices(window)
                np.copyto(data[:, *here], raster.data, where=raster.valid)
                valid[here] |= raster.valid
        return Raster(data, valid, self._grid.crop(window))

    def is_empty(self, window: Window) -> bool:
        """Whether a window has no image, or only such as are certain to be empty there."""
        for number in self._under(window):
            own = self._windows[number]
            part = own.intersection(window)
            assert part is not None
            if not self._tiles[number].is_empty(_within(part, own)):
                return False
        return True

    def _read_part(self, number: int, part: Window) -> Raster:
        tile, own = self._tiles[number], self._windows[number]
        if own.area_px > _SMALL_PX:
            self._open[number] = None
            self._open.move_to_end(number)
            if len(self._open) > _KEPT_OPEN:
                oldest, _ = self._open.popitem(last=False)
                _close(self._tiles[oldest])
            return tile.read(_within(part, own))
        raster = self._decoded.get(number)
        if raster is None:
            raster = self._decoded[number] = tile.read()
            self._held += raster.data.nbytes + raster.valid.nbytes
            while self._held > _DECODED_BYTES and len(self._decoded) > 1:
                _, old = self._decoded.popitem(last=False)
                self._held -= old.data.nbytes + old.valid.nbytes
        self._decoded.move_to_end(number)
        rows, cols = part.slices(own)
        return Raster(raster.data[:, rows, cols], raster.valid[rows, cols], self._grid.crop(part))

    def _under(self, window: Window) -> list[int]:
        """The images that share pixels with a window, in their order."""
        found = {n for cell in self._cells_under(window) for n in self._cells.get(cell, ())}
        return sorted(n for n in found if self._windows[n].intersection(window) is not None)

    def _cells_under(self, window: Window) -> Iterable[tuple[int, int]]:
        height, width = self._cell
        rows = range(window.row // height, (window.row_stop - 1) // height + 1)
        cols = range(window.col // width, (window.col_stop - 1) // width + 1)
        return product(rows, cols)

    def _forget(self) -> None:
        self._decoded: OrderedDict[int, Raster] = OrderedDict()
        self._open: OrderedDict[int, None] = OrderedDict()
        self._held = 0

    def _offset_of(self, tile: SparseSource) -> tuple[int, int]:
        """Row and column of an image on the grid of the first one, if it fits into it."""
        first = self._tiles[0]
        grid, common = tile.grid, first.grid
        if grid.crs is None or common.crs is None:
            name = (tile if grid.crs is None else first).name
            raise GeoreferenceError(
                f"{name} has no georeference; all images of {self._name} have to have one.",
                remedy="Take it out of the folder, or predict the images one by one, without "
                "--mosaic.",
            )
        if (tile.bands, tile.dtype) != (self._bands, self._dtype):
            raise DataError(
                f"{tile.name} has {tile.bands} bands of {tile.dtype}; {first.name} has "
                f"{self._bands} of {self._dtype}, and is of the same scene.",
                remedy="Take it out of the folder, or bring it into the form of the others.",
            )
        if grid.crs is not common.crs and not grid.crs.equals(common.crs):
            raise GeoreferenceError(
                f"{tile.name} is in the coordinate system {grid.crs.name}; {first.name} is in "
                f"{common.crs.name}, and of the same scene.",
                remedy="Bring all into one: gdalwarp -t_srs EPSG:… IN.tif OUT.tif",
            )
        onto = ~common.transform @ grid.transform
        stretched = max(
            abs(onto.a - 1) * grid.width, abs(onto.d) * grid.width,
            abs(onto.e - 1) * grid.height, abs(onto.b) * grid.height,
        )  # fmt: skip
        row, col = round(onto.f), round(onto.c)
        off = max(abs(onto.f - row), abs(onto.c - col))
        if stretched > _OFF_PX or off > _OFF_PX:
            said = (
                f"has another pixel size or direction than {first.name}"
                if stretched > _OFF_PX
                else f"lies {off:.2f} pixels beside the grid of {first.name}"
            )
            raise GeoreferenceError(
                f"{tile.name} {said}; the images of a scene lie on one grid of pixels.",
                remedy="Bring them onto one grid, for example with gdalwarp -tap -tr, or predict "
                "the images one by one, without --mosaic.",
            )
        return row, col

    def _check_dense(self, shape: tuple[int, int]) -> None:
        covered = sum(window.area_px for window in self._windows)
        if shape[0] * shape[1] > max(_MOST_PX, _LEAST_COVERED * covered):
            raise DataError(
                f"The {len(self._tiles)} images of {self._name} lie scattered over {shape[0]} × "
                f"{shape[1]} pixels, of which they cover {covered / shape[0] / shape[1]:.2g}.",
                remedy="Put those of each place into a folder of its own.",
            )


def _within(part: Window, own: Window) -> Window:
    return Window(part.row - own.row, part.col - own.col, part.height, part.width)


def _close(tile: Any) -> None:
    close = getattr(tile, "close", None)
    if close is not None:
        close()
