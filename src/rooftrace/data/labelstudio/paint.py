"""The label of one Label Studio task: what was drawn, by one annotator or by several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize

from rooftrace.core.errors import LabelError
from rooftrace.core.types import GeoGrid, LabelReader, Mask, Window
from rooftrace.data.labels import IGNORED
from rooftrace.data.labelstudio.brush import BrushError, decode_brush
from rooftrace.data.labelstudio.regions import Brush, Region
from rooftrace.data.shapes import ShapesLabel

__all__ = ["Drawn", "PaintedLabel", "Vote", "label_of"]

Canvas = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A region and the class index that its name stands for, or IGNORED."""

    region: Region
    index: int


Vote = tuple[Drawn, ...]
"""What one annotation says, in the order in which it was drawn."""


def label_of(votes: Sequence[Vote], grid: GeoGrid, image_name: str) -> LabelReader:
    """The label of an image, where each pixel has the class of more than half of the votes.

    Without such a majority a pixel is background. Of one vote all that is drawn counts.

    Raises:
        LabelError: a region was drawn on an image of another size.
    """
    for vote in votes:
        for drawn in vote:
            _check_size(drawn.region, grid, image_name)
    if len(votes) == 1 and not any(isinstance(d.region.shape, Brush) for d in votes[0]):
        outlines = [
            d.region.shape.outline(grid.shape)
            for d in votes[0]
            if not isinstance(d.region.shape, Brush)
        ]
        geometry = np.empty(len(outlines), dtype=object)
        geometry[:] = outlines
        return ShapesLabel(geometry, [d.index for d in votes[0]], grid)
    return PaintedLabel(tuple(votes), grid)


class PaintedLabel:
    """The `LabelReader` of brushes, and of several votes: painted whole when first asked for.

    Args:
        votes: see `label_of`; at least one.
        grid: of the image.
    """

    def __init__(self, votes: tuple[Vote, ...], grid: GeoGrid) -> None:
        self._votes = votes
        self._grid = grid

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_painted", None)
        return state

    def read(self, window: Window | None = None) -> Mask:
        """The classes inside `window`, default all.

        Raises:
            LabelError: a brush cannot be decoded; names its task and result.
        """
        window = window or Window.whole(self._grid.shape)
        painted = self._painted[window.slices()]
        valid = painted != IGNORED
        return Mask(np.where(valid, painted, 0).astype(np.uint8), valid, self._grid.crop(window))

    @cached_property
    def _painted(self) -> Canvas:
        if len(self._votes) == 1:
            return _paint(self._votes[0], self._grid.shape)
        canvases = [_paint(vote, self._grid.shape) for vote in self._votes]
        result = np.zeros(self._grid.shape, dtype=np.int16)
        for index in {drawn.index for vote in self._votes for drawn in vote}:
            count = sum((canvas == index).astype(np.int16) for canvas in canvases)
            result[2 * count > len(canvases)] = index
        return result


def _paint(vote: Vote, shape_yx: tuple[int, int]) -> Canvas:
    """(y, x) class index or IGNORED; what comes later lies on top. 0 where nothing was drawn."""
    canvas = np.zeros(shape_yx, dtype=np.int16)
    for drawn in vote:
        shape = drawn.region.shape
        if isinstance(shape, Brush):
            try:
                canvas[decode_brush(shape.rle, shape_yx)] = drawn.index
            except BrushError as error:
                raise LabelError(
                    f"The brush mask of {drawn.region.where} cannot be read: {error}.",
                    remedy="Export it from Label Studio again, or take that result out.",
                ) from error
        else:
            rasterize([(shape.outline(shape_yx), drawn.index)], out=canvas)
    return canvas


def _check_size(region: Region, grid: GeoGrid, image_name: str) -> None:
    if region.size_yx is not None and region.size_yx != grid.shape:
        height, width = region.size_yx
        raise LabelError(
            f"{region.where} was drawn on an image of {height} rows × {width} columns, but "
            f"{image_name} has {grid.height} rows × {grid.width} columns.",
            remedy="Give the images as they were in Label Studio.",
        )
