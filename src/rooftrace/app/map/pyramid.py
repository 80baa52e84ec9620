"""Map tiles of an image of any size, as pictures that a browser shows.

Tiles come from the image's overviews, or from a coarse copy in memory if it has none.
"""

from collections.abc import Callable
from functools import cache
from math import ceil, isqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rooftrace.app.map.place import Place, averaged, sampled
from rooftrace.core.cache import LazyValue
from rooftrace.core.types import GeoGrid, Raster, RasterSource, Window, is_known_empty
from rooftrace.density.files import BREAKS, SCALE
from rooftrace.io.gdal import environment, open_quietly, reading_errors
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.picture import DisplayStretch, as_rgb, encoded
from rooftrace.io.raster import RasterFile
from rooftrace.io.web_mercator import TileName

_COPY_PX = 2**22
"""Maximum number of pixels of the largest copy in memory."""

_MOST_PX = 2**30
"""Maximum number of pixels of an image that is copied: a minute of work at worst."""

_STRIP_PX = 2**24
_SMALLEST_PX = 256
_FINE = 2.5
"""Maximum number of stored pixels to one pixel of the tile, along a side, that are read
directly.
"""

_NEAR, _BLURRED = 1.01, 1.5
"""Coarseness relative to a tile's pixels: up to the first a copy counts as equally fine; up to the
second a copy is better than reading very many pixels.
"""

_LARGEST_READ = 16.0


class _Overview(RasterFile):
    """One of the overviews of a file, as an image."""

    def __init__(
        self, file: RasterFile, level: int, palette: Literal["colours", "indices"]
    ) -> None:
        super().__init__(file.path, nodata=file._rule, palette=palette)
        self._level = level

    def _open(self) -> tuple[Any, Callable[[], object]]:
        handle = open_quietly(self.path.absolute(), overview_level=self._level)
        return handle, handle.close


def overviews(
    file: RasterFile, palette: Literal["colours", "indices"] = "colours"
) -> list[RasterSource]:
    """Return the overviews of a file, from fine to coarse."""
    with (
        reading_errors(file.name, "header"),
        environment(),
        open_quietly(file.path.absolute()) as it,
    ):
        count = len(it.overviews(1))
    return [_Overview(file, level, palette) for level in range(count)]


class Pyramid:
    """An image on the map, at any zoom.

    A small image, or a distant view of a large one, is read once and kept in memory at half, a
    quarter and so on of its size. Threads may ask for tiles at the same time.

    Args:
        levels: The image, then coarser versions of it.
        place: Position of the image on the map.
        nearest: Whether the nearest pixel is taken, as for class indices, instead of a mean.
    """

    def __init__(self, levels: list[RasterSource], place: Place, *, nearest: bool = False) -> None:
        self.place = place
        self._nearest = nearest
        self._levels = levels
        self._copies = LazyValue(self._copied)
        self._stretch = LazyValue(lambda: DisplayStretch.of(self._sample()))
        self._is_8_bit = levels[-1].dtype == np.uint8

    @property
    def stretch(self) -> DisplayStretch | None:
        """Stretch of the values to bytes, the same in all tiles; None for 8-bit values."""
        return None if self._is_8_bit else self._stretch.get()

    @property
    def bare(self) -> bool:
        """True if the image is large and has no overviews, so distant views cannot be shown."""
        return _area(self._levels[-1].grid) > _MOST_PX

    def tile(self, tile: TileName, size_px: int) -> Raster | None:
        """Return the pixels of a tile; None if nothing can be shown at its zoom."""
        return self.on(tile.grid((size_px, size_px)))

    def on(self, grid: GeoGrid) -> Raster | None:
        """Return the pixels on a grid in Web Mercator, as `tile` does."""
        level = self._level_for(grid.transform.a)
        if level is None:
            return None
        return sampled(self.place.source(level), grid, nearest=self._nearest)

    def _sample(self) -> NDArray[Any]:
        """Return the valid values of a coarse version of the image, or of its middle if `bare`."""
        last = self._levels[-1]
        rows, cols = last.grid.shape
        middle = Window(rows // 2, cols // 2, min(rows // 2, 2048), min(cols // 2, 2048))
        raster = last.read(middle) if self.bare else self._copies.get()[0].read()
        return np.asarray(raster.data[:3, raster.valid])

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
        """Return the number of image pixels to one pixel of a level, along a side."""
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
    """Return the reduction along each side that leaves a copy of at most `_COPY_PX` pixels."""
    return isqrt(max(ceil(_area(grid) / _COPY_PX) - 1, 0)) + 1


def _coarser(source: RasterSource, step: int, nearest: bool) -> RasterSource:
    """Return a copy in memory, reduced by `step` along each side; nodata has no weight."""
    rows, cols = ceil(source.grid.height / step), ceil(source.grid.width / step)
    data = np.zeros((source.bands, rows, cols), source.dtype)
    valid = np.zeros((rows, cols), np.bool_)
    height = max(1, _STRIP_PX // source.grid.width // step) * step
    for strip in Window.whole(source.grid.shape).strips(height):
        if is_known_empty(source, strip):
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


_QUALITY = 82


def colour_picture(raster: Raster, stretch: DisplayStretch | None) -> bytes:
    """Return the first three bands, or the first as grey, as WebP; nodata is transparent."""
    valid = raster.valid
    if not valid.any():
        return clear_picture()
    rgb = as_rgb(raster.data, valid, stretch)
    if valid.all():
        return encoded(Image.fromarray(rgb), "WEBP", quality=_QUALITY, method=1)
    # WebP lets colours bleed over the edge of transparent pixels.
    hidden = rgb[valid].mean(axis=0).astype(np.uint8)
    alpha = (valid * np.uint8(255))[..., None]
    rgba = np.concatenate([np.where(valid[..., None], rgb, hidden), alpha], axis=2)
    return encoded(Image.fromarray(rgba), "WEBP", quality=_QUALITY, method=1)


def class_picture(raster: Raster, table: NDArray[np.uint8]) -> bytes:
    """Return class indices in their colours as PNG.

    Args:
        raster: Raster with one band of class indices.
        table: (256, 4) RGBA by class.
    """
    index = np.where(raster.valid, raster.data[0], 255).astype(np.uint8)
    picture = Image.fromarray(index)
    picture.putpalette(table[:, :3].tobytes())
    return encoded(picture, "PNG", transparency=table[:, 3].tobytes(), compress_level=1)


def share_picture(raster: Raster) -> bytes:
    """Return built-up shares, the first band, in the colours of their classes as PNG.

    Nodata and cells without a building are transparent.
    """
    share = raster.data[0]
    visible = raster.valid & (share > 0)
    index = np.where(visible, np.searchsorted(BREAKS, share, side="right"), 255)
    table = np.zeros((256, 4), np.uint8)
    table[: len(SCALE), :3], table[: len(SCALE), 3] = SCALE, 255
    return class_picture(Raster(index[None], visible, raster.grid), table)


@cache
def clear_picture() -> bytes:
    """Return one transparent pixel as PNG."""
    return encoded(Image.new("RGBA", (1, 1)), "PNG")
