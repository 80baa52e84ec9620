"""Tiles of an image of any size: from its overviews where it has them, else from a coarse copy."""

from __future__ import annotations

from math import ceil, isqrt
from typing import Any, Literal

import numpy as np

from rooftrace.app.map.once import Once
from rooftrace.app.map.place import Place, TileId
from rooftrace.app.map.sampling import averaged, sampled
from rooftrace.core.types import GeoGrid, Raster, RasterSource, SparseSource, Window
from rooftrace.io.gdal import environment, explained, open_quietly
from rooftrace.io.memory import ArraySource
from rooftrace.io.raster import RasterFile

__all__ = ["Pyramid", "overviews"]

_COPY_PX = 2**22
"""Of the largest copy that is held in memory."""

_MOST_PX = 2**30
"""Of an image that a copy is made of: a minute's work at worst."""

_STRIP_PX = 2**24
_SMALLEST_PX = 256
_FINE = 2.5
"""So many stored pixels to one of the tile, along a side, are read rather than a copy."""

_NEAR, _BLURRED = 1.01, 1.5
"""Times as coarse as a tile's pixels: what is taken for as fine, and what is better than a read
of very many pixels."""

_LARGEST_READ = 16.0


class _Overview(RasterFile):
    """One of the overviews in a file, as an image of its own."""

    def __init__(
        self, file: RasterFile, level: int, palette: Literal["colours", "indices"]
    ) -> None:
        super().__init__(file.path, nodata=file._rule, palette=palette)
        self._level = level

    def _open(self) -> Any:
        return open_quietly(self.path.absolute(), overview_level=self._level)


def overviews(
    file: RasterFile, palette: Literal["colours", "indices"] = "colours"
) -> list[RasterSource]:
    """The overviews in a file, from fine to coarse; none where it has none.

    Args:
        file: the image.
        palette: as it was opened.

    Raises:
        DataError: the file cannot be read.
    """
    with explained(file.name, "header"), environment(), open_quietly(file.path.absolute()) as it:
        count = len(it.overviews(1))
    return [_Overview(file, level, palette) for level in range(count)]


class Pyramid:
    """An image on the map, at any zoom.

    What is small, or wanted from afar, is read once and kept in memory at half, a quarter and so
    on of its size. Threads may ask for tiles at the same time.

    Args:
        levels: the image, and coarser ones of the same ground.
        place: of the image.
        nearest: whether pixels are picked, as of class indices, or else averaged.
    """

    def __init__(self, levels: list[RasterSource], place: Place, *, nearest: bool = False) -> None:
        self.place = place
        self._nearest = nearest
        self._levels = levels
        self._copies = Once(self._copied)

    @property
    def bare(self) -> bool:
        """Whether the image is too large to be shown from afar, for want of overviews."""
        return _area(self._levels[-1].grid) > _MOST_PX

    def tile(self, tile: TileId, size_px: int) -> Raster | None:
        """The pixels of a tile; None where nothing can be shown at its zoom.

        Raises:
            DataError: the image cannot be read.
        """
        grid = tile.grid(size_px)
        level = self._level_for(grid.transform.a)
        if level is None:
            return None
        return sampled(self.place.source(level), grid, nearest=self._nearest)

    def sample(self) -> Raster:
        """The image, coarse; of one that is bare, a part of its middle.

        Raises:
            DataError: the image cannot be read.
        """
        if not self.bare:
            return self._copies.get()[0].read()
        last = self._levels[-1]
        rows, cols = last.grid.shape
        return last.read(Window(rows // 2, cols // 2, min(rows // 2, 2048), min(cols // 2, 2048)))

    def _level_for(self, pixel_m: float) -> RasterSource | None:
        factor = max(pixel_m / self.place.pixel_m, 1.0)
        able = [level for level in self._levels if self._coarseness(level) <= factor * _NEAR]
        stored = able[-1] if able else self._levels[0]
        across = factor / self._coarseness(stored)
        last = self._levels[-1]
        step = _copy_step(last.grid)
        in_memory = stored is last and step == 1
        if across <= _FINE and not in_memory:
            return stored
        if self.bare:
            return stored if across <= _LARGEST_READ else None
        if self._coarseness(last) * step > factor * _BLURRED and across <= _LARGEST_READ:
            return stored
        copies = [one for one in self._copies.get() if self._coarseness(one) <= factor * _NEAR]
        return copies[-1] if copies else self._copies.get()[0]

    def _coarseness(self, level: RasterSource) -> float:
        """Pixels of the image to one of a level, along a side."""
        return self._levels[0].grid.width / level.grid.width

    def _copied(self) -> list[RasterSource]:
        last = self._levels[-1]
        copies = [_coarser(last, _copy_step(last.grid), self._nearest)]
        while max(copies[-1].grid.shape) > _SMALLEST_PX:
            copies.append(_coarser(copies[-1], 2, self._nearest))
        return copies


def _area(grid: GeoGrid) -> int:
    return grid.height * grid.width


def _copy_step(grid: GeoGrid) -> int:
    """Along each side, so that a copy has `_COPY_PX` at most."""
    return isqrt(max(ceil(_area(grid) / _COPY_PX) - 1, 0)) + 1


def _coarser(source: RasterSource, step: int, nearest: bool) -> RasterSource:
    """A copy in memory of every `step` pixels; what is nodata weighs nothing in their mean."""
    rows, cols = ceil(source.grid.height / step), ceil(source.grid.width / step)
    data = np.zeros((source.bands, rows, cols), source.dtype)
    valid = np.zeros((rows, cols), np.bool_)
    height = max(1, _STRIP_PX // source.grid.width // step) * step
    for strip in Window.whole(source.grid.shape).strips(height):
        if isinstance(source, SparseSource) and source.is_empty(strip):
            continue
        raster = source.read(strip)
        into = slice(strip.row // step, ceil(strip.row_stop / step))
        if nearest or step == 1:
            data[:, into] = raster.data[:, ::step, ::step]
            valid[into] = raster.valid[::step, ::step]
        else:
            data[:, into], valid[into] = averaged(raster, step)
    grid = source.grid.resampled((rows, cols), (step, step))
    return ArraySource(data, grid, valid, source.name)
