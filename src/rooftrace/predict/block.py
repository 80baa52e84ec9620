"""Blocks: parts of a scene that are finished, stored and resumed one at a time.

Each tile belongs to one block and contributes its output to it. A few rows or columns of the output
also contribute to the neighbouring blocks to the right and below: the halo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import BoolArray, Window
from rooftrace.density.accumulate import CellCounts
from rooftrace.io.legend import NODATA
from rooftrace.io.resample import enlarge
from rooftrace.predict.plan import ScenePlan, TileIndex
from rooftrace.tiling.plan import BLEND_ONE, PROB_ONE, Blender
from rooftrace.vector.assemble import BlockOutlines, Tracing
from rooftrace.vector.trace_blocks import BlockTrace

Thumbnail = tuple[NDArray[Any], NDArray[np.bool_]]
"""Pixels (y, x, band) of a block at the resolution of the preview, and their validity (y, x)."""


@dataclass(frozen=True, slots=True)
class TileOutput:
    """Part of a tile's output that contributes to one block.

    Args:
        extent: Window of the part, in pixels of the model.
        probability: (channel, y, x) of the extent in 255ths; None if the tile failed and its pixels
            become nodata.
    """

    index: TileIndex
    extent: Window
    probability: NDArray[np.uint8] | None


Halo = tuple[tuple[int, TileOutput], ...]
"""Outputs of a block's tiles that contribute to later blocks, each with the number of that
block."""


@dataclass(frozen=True, slots=True)
class TileStats:
    """Counts over the tiles of a block.

    Args:
        tiles_run: Number of tiles that the network has run.
        tiles_empty: Number of tiles without a valid pixel, which the network does not run.
        tiles_failed: Number of tiles that could not be read or run, and became nodata.
        engine_seconds: Time in the network, in seconds.
        engine_px: Number of pixels given to the network, with overlaps and padding.
        images_lost: Number of images of a mosaic that could not be read, and became nodata.
        errors: Messages of the failed tiles and lost images.
    """

    tiles_run: int = 0
    tiles_empty: int = 0
    tiles_failed: int = 0
    images_lost: int = 0
    engine_seconds: float = 0.0
    engine_px: int = 0
    errors: tuple[str, ...] = ()

    def plus(self, other: TileStats) -> TileStats:
        """Return the sum of both."""
        names = self.__slots__
        return TileStats(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, slots=True)
class _Finished:
    """Fields that a block and its contribution to the outputs have in common, see `Block`."""

    window: Window
    count: NDArray[np.int64]
    thumbnail: Thumbnail | None = field(default=None, kw_only=True)
    tiles: TileStats = field(default=TileStats(), kw_only=True)
    resumed: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Block(_Finished):
    """Finished block on the grid of the source.

    Args:
        window: Window of the block in the source.
        count: (256,) number of pixels by class index.
        mask: (y, x) class indices, NODATA where there is no valid pixel.
        score: (y, x) probabilities in 255ths: of the second class if there are two classes, else of
            the pixel's own class.
        thumbnail: Pixels of the block for the preview; None if no preview is made.
        tiles: Counts over its tiles.
        resumed: Whether an earlier run finished the block.
    """

    mask: NDArray[np.uint8]
    score: NDArray[np.uint8]

    @classmethod
    def of(cls, window: Window, mask: NDArray[np.uint8], score: NDArray[np.uint8]) -> Block:
        """Return a block with the counts of its pixels."""
        count = np.zeros(256, dtype=np.int64)
        if mask.max() <= 1:
            count[1] = np.count_nonzero(mask.view(np.bool_))
            count[0] = mask.size - count[1]
            return cls(window, count, mask, score)
        # Counts of a strip are exact in the single precision of OpenCV's histogram.
        step = max(1, (1 << 19) // mask.shape[1])
        for top in range(0, mask.shape[0], step):
            strip = np.ascontiguousarray(mask[top : top + step])
            counts = cv2.calcHist([strip], [0], None, [256], [0, 256])
            count += counts.reshape(-1).astype(np.int64)
        return cls(window, count, mask, score)

    @classmethod
    def empty(cls, window: Window) -> Block:
        """Return a block that is nodata everywhere."""
        count = np.zeros(256, dtype=np.int64)
        count[NODATA] = window.area_px
        # Broadcast arrays store one value for all pixels; blocks are read only.
        mask, score = (np.broadcast_to(np.uint8(v), window.shape_yx) for v in (NODATA, 0))
        return cls(window, count, mask, score)

    def traced(self, tracing: Tracing) -> BlockOutlines:
        """Return the polygons of the block that do not depend on other blocks."""
        classes = np.flatnonzero(self.count).tolist()
        return tracing.trace(self.window, self.mask, self.score, classes)

    @property
    def is_empty(self) -> bool:
        """True if all pixels are nodata."""
        return int(self.count[NODATA]) == self.window.area_px


@dataclass(frozen=True, slots=True)
class BlockParts(_Finished):
    """Contribution of a block to the outputs of its scene; picklable. See `Block` for other fields.

    Args:
        mask: Class indices (y, x) as bytes, compressed by zlib; b"" if no mask is written.
        outlines: Its polygons; None if no output needs them.
        density: Counts of its pixels by cell; None if no density is made.
        valid: Regions of its valid pixels; None if they are not needed, or there is none.
    """

    mask: bytes
    outlines: BlockOutlines | None
    density: CellCounts | None
    valid: BlockTrace | None


@dataclass(frozen=True)
class BlockTiles:
    """Outputs of the tiles of a block, before they are blended.

    Args:
        number: Number of the block in the plan.
        own: Parts that contribute to the block itself.
        halo: Parts that contribute to later blocks.
        valid: (y, x) validity of the source; None if all pixels of the block are valid.
        thumbnail: Pixels of the block for the preview.
        tiles: Counts over the tiles.
    """

    number: int
    own: tuple[TileOutput, ...]
    halo: Halo
    valid: BoolArray | None
    thumbnail: Thumbnail | None
    tiles: TileStats

    def finish(self, plan: ScenePlan, received: Sequence[TileOutput]) -> Block:
        """Return the block: blend the tiles, resample to the source's grid, and choose the classes.

        Args:
            plan: Plan of the scene.
            received: Halo outputs of earlier blocks that contribute to this one, in any order.
        """
        spec, threshold, window = plan.spec, plan.threshold, plan.blocks[self.number]
        outputs, valid = [*received, *self.own], self.valid
        failed = [output.extent for output in outputs if output.probability is None]
        if failed:
            # Copied: arrays that come from another process are read-only.
            valid = np.ones(window.shape_yx, dtype=bool) if valid is None else valid.copy()
            for extent in failed:
                reach = plan.scaling.to_source(extent, plan.source.grid.shape).intersection(window)
                if reach is not None:
                    valid[reach.slices(window)] = False
        if len(failed) == len(outputs) and valid is not None and not valid.any():
            return replace(Block.empty(window), thumbnail=self.thumbnail, tiles=self.tiles)
        mask, score = (np.empty(window.shape_yx, np.uint8) for _ in range(2))
        for strip in window.strips(max(1, _STRIP_PX // window.width)):
            rows, _ = strip.slices(window)
            model_strip = plan.scaling.to_model(strip, plan.source.grid.shape)
            blender = Blender(plan.tiles, model_strip, spec.outputs)
            for output in outputs:
                if output.probability is not None:
                    blender.feed(output.index, output.probability, output.extent)
            blended = enlarge(blender.blended, model_strip, strip, plan.scaling)
            probability = blended[0]
            if threshold is None:
                mask[rows], probability = most_probable(blended[: spec.channels])
            else:
                lowest = np.uint16(np.ceil(threshold * BLEND_ONE))
                np.greater_equal(probability, lowest, out=mask[rows].view(np.bool_))
            # Rounded to 255ths.
            score[rows] = (probability + np.uint16(BLEND_ONE // PROB_ONE // 2)) >> np.uint16(8)
            if valid is not None:
                mask[rows][~valid[rows]] = NODATA
        return replace(Block.of(window, mask, score), thumbnail=self.thumbnail, tiles=self.tiles)


_STRIP_PX = 1 << 18
"""Number of pixels of a strip that is blended at once and fits the processor's cache."""


def most_probable(
    blended: NDArray[np.uint16],
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Return the most probable class of each pixel and its probability.

    Among equal values the first class is chosen. The result equals that of `argmax` and `max` along
    the first axis; NumPy's `argmax` is many times slower.

    Args:
        blended: (class, y, x) probabilities.

    Returns:
        (y, x) class indices, and (y, x) probabilities.
    """
    best = blended.max(axis=0)
    # The first class has the largest number, so that it is chosen among equal values.
    above = np.zeros(best.shape, dtype=np.uint8)
    for index, channel in enumerate(blended):
        here = (channel == best).view(np.uint8)
        here *= np.uint8(len(blended) - index)
        np.maximum(above, here, out=above)
    return np.uint8(len(blended)) - above, best
