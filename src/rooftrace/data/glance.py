"""What a split wants to know of each scene: a few figures, read from all of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import LabelReader, Raster, RasterSource, Window
from rooftrace.data.blocks import outline_of
from rooftrace.data.duplicates import THUMBNAIL_PX, thumbnail
from rooftrace.data.parallel import map_entries
from rooftrace.data.source import Entry, Progress, SceneSet

__all__ = ["LUMA", "Glance", "built_up_of", "glances", "luma_of", "thumbnail_of"]

_WHOLE_PX = 2**22
"""Larger scenes are read by strips of so many pixels."""

LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue: ITU-R BT.601."""


@dataclass(frozen=True, slots=True)
class Glance:
    """One scene in figures.

    Args:
        id: of the scene.
        outline: see `blocks.outline_of`; None where it lies nowhere.
        built_up: share of the building class among the pixels that its label knows; None if it has
            no label, or was not looked at.
        small: (32, 32) float16 in 0..1, see `duplicates.thumbnail`; None if not looked at.
    """

    id: str
    outline: NDArray[np.float64] | None
    built_up: float | None = None
    small: NDArray[np.float16] | None = None


def glances(
    source: SceneSet, *, labels: bool, pixels: bool, progress: Progress | None = None
) -> list[Glance]:
    """A look at every scene of a set, in its order, on all cores.

    Args:
        labels: whether labels are read.
        pixels: whether images are read; else their headers alone.
        progress: called with the scenes that are done and that there are.

    Raises:
        DataError and its kinds: an image or a label cannot be read.
    """
    look = partial(_look, labels=labels, pixels=pixels)
    return list(map_entries(source, look, progress=progress))


def _look(source: SceneSet, entry: Entry, *, labels: bool, pixels: bool) -> Glance:
    scene = source.open_scene(entry)
    share = None
    if labels and scene.label is not None:
        share = built_up_of(scene.label, scene.image.grid.shape, source.building_class)
    small = thumbnail_of(scene.image).astype(np.float16) if pixels else None
    return Glance(entry.id, outline_of(scene.image.grid), share, small)


def built_up_of(label: LabelReader, shape: tuple[int, int], building_class: int) -> float | None:
    """Share of the building class among the pixels that a label knows; None if it knows none."""
    built = known = 0
    for window in _strips(shape):
        mask = label.read(window)
        known += int(mask.valid.sum())
        built += int(((mask.data == building_class) & mask.valid).sum())
    return built / known if known else None


def luma_of(raster: Raster) -> NDArray[np.uint8] | NDArray[np.float32]:
    """(y, x) brightness: uint8 of 8-bit images, else float32 in the image's unit.

    Of the first three bands, or of the first alone where there are fewer; 0 where nodata.
    """
    data = raster.data
    if len(data) >= 3:
        luma = sum(np.float32(weight) * band for weight, band in zip(LUMA, data))
    else:
        luma = data[0]
    luma = np.where(raster.valid, luma, 0)
    if raster.data.dtype == np.uint8:
        return np.rint(luma).astype(np.uint8)
    return luma.astype(np.float32)


def thumbnail_of(image: RasterSource) -> NDArray[np.float32]:
    """The thumbnail of an image of whatever size, see `duplicates.thumbnail`.

    A large scene is read by strips, and only means of small areas are kept.
    """
    shape = image.grid.shape
    if image.grid.height * image.grid.width <= _WHOLE_PX:
        raster = image.read()
        return thumbnail(luma_of(raster), raster.valid)
    # Four times as fine as the thumbnail; so an area cut by its edge is small.
    side = 4 * THUMBNAIL_PX
    cols = np.arange(shape[1]) * side // shape[1]
    total, count = np.zeros((side, side)), np.zeros((side, side))
    for window in _strips(shape):
        raster = image.read(window)
        rows = np.arange(window.row, window.row_stop) * side // shape[0]
        cells = (rows[:, None] * side + cols).ravel()
        luma = luma_of(raster).ravel()
        total += np.bincount(cells, luma, side * side).reshape(side, side)
        count += np.bincount(cells, raster.valid.ravel(), side * side).reshape(side, side)
    means = total / np.maximum(count, 1)
    if image.dtype == np.uint8:
        return thumbnail(np.rint(means).astype(np.uint8), count > 0)
    return thumbnail(means.astype(np.float32), count > 0)


def _strips(shape: tuple[int, int]) -> Iterator[Window]:
    return Window.whole(shape).strips(max(1, _WHOLE_PX // shape[1]))
