"""Read mask files: images of any kind, and arrays of NumPy, on the grids of their images."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError, LabelError
from rooftrace.core.text import reason_of
from rooftrace.core.types import GeoGrid, Mask, Raster, RasterSource, Window
from rooftrace.io.files import read_head
from rooftrace.io.georeferenced import ArraySource, WrappedSource, innermost
from rooftrace.io.raster import RasterFile, open_raster
from rooftrace.io.reproject import pixels_apart
from rooftrace.labels.mask_values import (
    FULL,
    LabelRule,
    check_size,
    instance_numbers,
    pack_colours,
    unknown_values,
)

_HALF = 127
"""Value above which a pixel of a smoothed mask of 0 and 255 is a building."""

_MOST_BLUR = 0.1
"""Maximum share of pixels far from both 0 and 255 in a smoothed mask of these two values."""

_LEAST_SHADES, _MOST_FLAT = 4, 0.05
"""Minimum number of values between 0 and 255 in a smoothed mask that is no JPEG, and maximum share
of their pixels whose neighbours have the same value: in masks of Rotterdam, Geneva and Nacala, at
most 0.004 after JPEG, antialiasing or resampling, and 0.33 or more if values are buildings."""

_JPEG = b"\xff\xd8\xff"

_MOST_SHIFT_PX = 1.0
"""Maximum distance of a mask from its image by their georeferences, in pixels."""

_ROWS = 1024
"""Number of rows of a mask that are examined at a time."""


@dataclass(frozen=True)
class LabelFile:
    """The mask file of one scene (a `LabelReader`).

    Args:
        grid: Grid of the image; the mask must have its shape.
        image_name: Name of the image, for the message about a different shape.
        looked_at: Masks of the same set, whose values an error lists.
        is_of_smoothed: Whether masks of the same set are smoothed, see `count_smoothed`.
    """

    path: Path
    rule: LabelRule
    grid: GeoGrid
    image_name: str
    looked_at: tuple[Path, ...] = ()
    is_of_smoothed: bool = False

    def read(self, window: Window | None = None) -> Mask:
        """Return the classes inside `window` of the image.

        Raises:
            LabelError: The size differs from the image's, or a value is not a class.
            DataError: The file cannot be read.
        """
        source = self._source
        raster = source.read(window)
        nodata, found = _nodata(source), self._contents
        by_index = found is not None and (
            (found.has_one and not self._is_smoothed) or (nodata[0] == FULL and not found.has_full)
        )
        self.rule.check_nodata(nodata, str(self.path), by_index=by_index)
        known = None if raster.valid.all() else raster.valid
        try:
            classes, valid = self.rule.decode(raster.data, str(self.path), known, by_index=by_index)
        except LabelError:
            self._check_all(raster, by_index)
            raise
        grid = self.grid if window is None else self.grid.crop(window)
        return Mask(classes, raster.valid if valid is None else valid, grid)

    def read_instances(self, window: Window | None = None) -> NDArray[np.int32] | None:
        """Return (y, x) the number of the building at each pixel; None if values are classes."""
        if not self.rule.instances:
            return None
        numbers = instance_numbers(self._source.read(window).data)
        return np.where(self.read(window).data, numbers, 0).astype(np.int32)

    @cached_property
    def _contents(self) -> _Contents | None:
        """Contents of the whole file where they decide if 255 is a class; else None."""
        return _contents_of(self.path) if self.rule.is_255_ambiguous else None

    @property
    def _is_smoothed(self) -> bool:
        # A tile may have the edge of a building alone: others show what its shades are.
        found = self._contents
        return found is not None and (
            found.is_smoothed or (self.is_of_smoothed and found.has_shades)
        )

    def _check_all(self, raster: Raster, by_index: bool) -> None:
        """Raise the LabelError of this mask for the values of all that are looked at."""
        pixels = [raster.data[:, raster.valid]]
        for path in sorted({*self.looked_at} - {self.path}):
            with suppress(DataError):
                source = open_mask(path, colours=self.rule.palette is not None)
                other = _middle_of(source)
                if len(other.data) == len(raster.data):
                    pixels.append(other.data[:, other.valid])
        try:
            self.rule.decode(np.concatenate(pixels, 1)[:, None], str(self.path), by_index=by_index)
        except LabelError as error:
            many = f" These are the values of {len(pixels)} masks." if pixels[1:] else ""
            raise LabelError(error.message + many, remedy=error.remedy) from None

    @property
    def _source(self) -> RasterSource:
        """The opened mask, checked to lie on the grid of the image."""
        colours = self.rule.palette is not None
        source = open_mask(self.path, colours=colours, sharp=False)
        check_size(f"The mask {self.path}", source.grid.shape, self.grid, self.image_name)
        placed = source.grid.crs is not None and self.grid.crs is not None
        shift_px = pixels_apart(source.grid, self.grid) if placed else 0.0
        if shift_px > _MOST_SHIFT_PX:
            raise LabelError(
                f"The mask {self.path} lies elsewhere on the ground than its image "
                f"{self.image_name}: by their georeferences, {shift_px:.1f} pixels away.",
                remedy="Give the mask that belongs to the image; or, if the pixels fit, remove its "
                "georeference: gdal_edit.py -unsetgt MASK.",
            )
        return _SharpMask(source) if self._is_smoothed else source


class _SharpMask(WrappedSource):
    """A smoothed mask of 0 and 255 without the values between."""

    def read(self, window: Window | None = None) -> Raster:
        raster = self.source.read(window)
        return replace(raster, data=np.where(raster.data > _HALF, np.uint8(FULL), np.uint8(0)))


def without_blur(source: RasterSource, head: bytes) -> RasterSource:
    """Return a smoothed mask of 0 and 255 without the values between; another mask as it is."""
    return _SharpMask(source) if _is_blurred(source, head) else source


def _is_blurred(source: RasterSource, head: bytes) -> bool:
    """Return whether a mask is one of 0 and 255 with smoothed edges.

    A JPEG needs no other evidence than values near both; any other file has shades along edges.
    """
    if source.dtype != np.uint8:
        return False
    counts, flat = np.zeros(256, np.int64), 0
    around = np.ones((3, 3), np.uint8)
    for strip in Window.whole(source.grid.shape).strips(_ROWS):
        data = source.read(strip).data
        # NumPy's bincount takes eight bytes for each pixel.
        shades = cv2.calcHist([data.reshape(-1, data.shape[2])], [0], None, [256], [0, 256])
        counts += shades.ravel().astype(np.int64)
        if not head.startswith(_JPEG):
            band = data[0]
            alike = cv2.erode(band, around) == cv2.dilate(band, around)
            flat += len(data) * int((alike & (band > 0) & (band < FULL)).sum())
    # Classes by index are near 0, and grey pictures lie between.
    middle, bright = counts[_HALF // 2 + 1 : FULL - _HALF // 2], counts[FULL - _HALF // 2 :]
    if middle.sum() > _MOST_BLUR * counts.sum():
        return False
    if head.startswith(_JPEG):
        return bool(counts[_HALF + 1 :].any() or not counts[1:].any())
    shades = counts[1:FULL]
    is_edge = flat <= _MOST_FLAT * shades.sum() and 2 * middle.sum() <= bright.sum()
    # Without a bright pixel, heights of roofs in metres would all become ground.
    return bool(is_edge and bright.any() and np.count_nonzero(shades) >= _LEAST_SHADES)


def count_smoothed(paths: Iterable[Path]) -> int:
    """Return how many mask files have smoothed edges in their middle."""
    count = 0
    for path in paths:
        with suppress(DataError, OSError):
            middle = _middle_of(open_mask(path, sharp=False))
            count += _is_blurred(ArraySource(middle.data), read_head(path, 3))
    return count


def colours_in(paths: Iterable[Path]) -> set[str]:
    """Return the colours (`#RRGGBB`) in the middle of mask files; a grey one has single bands."""
    found: set[int] = set()
    for path in paths:
        with suppress(DataError, OSError):
            middle = _middle_of(open_mask(path, colours=True, sharp=False))
            data = middle.data[:3] if len(middle.data) > 2 else middle.data[[0, 0, 0]]
            found.update(np.unique(pack_colours(data)[middle.valid]).tolist())
    return {f"#{one:06X}" for one in found}


def _middle_of(source: RasterSource) -> Raster:
    """Return the middle of a mask, where buildings are likelier than at its edge."""
    return source.read(Window.middle(source.grid.shape, _ROWS))


@dataclass(frozen=True)
class _Contents:
    """Contents of a mask file of two classes, of which a part may have little.

    Args:
        has_one, has_full: Whether a valid pixel is 1, and whether any is 255.
        has_shades: Whether a byte is neither 0 nor 1 nor 255.
        is_smoothed: Whether these are the smoothed edges of 0 and 255.
    """

    has_one: bool = False
    has_full: bool = False
    has_shades: bool = False
    is_smoothed: bool = False


def _contents_of(path: Path) -> _Contents:
    status = path.stat()
    return _read_contents(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1 << 17)
def _read_contents(path: Path, mtime_ns: int, size: int) -> _Contents:
    source = open_mask(path, sharp=False)
    one = full = shades = False
    for strip in Window.whole(source.grid.shape).strips(_ROWS):
        raster = source.read(strip)
        band = raster.data[0]
        one |= bool(((band == 1) & raster.valid).any())
        full |= bool((band == FULL).any())
        shades |= band.dtype == np.uint8 and len(unknown_values(band, (0, 1, FULL))) > 0
    smoothed = shades and path.suffix.lower() != ".npy" and _is_blurred(source, read_head(path, 3))
    return _Contents(one, full, shades, smoothed)


def open_mask(path: Path, *, colours: bool = False, sharp: bool = True) -> RasterSource:
    """Open a mask file of any kind: an image, or an array of NumPy.

    Args:
        colours: Whether a palette is looked up.
        sharp: Whether a JPEG is read `without_blur`, which decodes it once.
    """
    if path.suffix.lower() != ".npy":
        source = open_raster(path, palette="colours" if colours else "indices", trusted=True)
        if not (sharp and read_head(path, 3).startswith(_JPEG)):
            return source
        return _SharpMask(source) if _contents_of(path).is_smoothed else source
    try:
        # Mapped, so that a window of a large mask reads its own pixels alone.
        array = np.asarray(np.load(path, allow_pickle=False, mmap_mode="r"))
    except (OSError, ValueError, EOFError) as error:
        raise LabelError(
            f"The mask {path} cannot be read: {reason_of(error)}.", remedy="Save it again."
        ) from error
    if array.ndim == 3 and array.shape[-1] in (1, 3):
        array = np.moveaxis(array, -1, 0)
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    return ArraySource(array if array.ndim == 3 else array[None], name=str(path))


def _nodata(source: RasterSource) -> tuple[float | None, ...]:
    file = innermost(source)
    return file.nodata if isinstance(file, RasterFile) else (None,)
