"""From the answers of tiles to one finished block of a scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import BoolArray, Window
from rooftrace.io.masks import NODATA
from rooftrace.io.resample import enlarge
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.scene import ScenePlan, TileIndex
from rooftrace.tiling.blend import BLEND_ONE, PROB_ONE, Blender
from rooftrace.vector.traced import BlockOutlines, Tracing

__all__ = ["Block", "Piece", "make_block", "most_probable"]


@dataclass(frozen=True, slots=True)
class Piece:
    """What a tile says of a block.

    Args:
        index: of the tile.
        extent: of the scene at the model's resolution.
        answer: (channel, y, x) of the extent, in 255ths; None where the tile failed and its pixels
            are to be taken for nodata.
    """

    index: TileIndex
    extent: Window
    answer: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class Block:
    """One finished part of a scene, on the source's grid.

    Args:
        window: of the source.
        mask: (y, x) class indices, NODATA where nothing is known.
        score: (y, x) the probability, in 255ths, of the second class where there are two, else of
            the pixel's own.
        count: (256,) pixels of each class index.
        cores: (y, x) 1 inside a building and away from its neighbours, else 0; None from a model
            that does not tell buildings apart.
        outlines: its polygons, where they were traced already.
    """

    window: Window
    mask: NDArray[np.uint8]
    score: NDArray[np.uint8]
    count: NDArray[np.int64]
    cores: NDArray[np.uint8] | None = None
    outlines: BlockOutlines | None = None

    @classmethod
    def of(
        cls,
        window: Window,
        mask: NDArray[np.uint8],
        score: NDArray[np.uint8],
        cores: NDArray[np.uint8] | None = None,
    ) -> Block:
        """One whose pixels are counted here."""
        return cls(window, mask, score, _count(mask), cores)

    @classmethod
    def empty(cls, window: Window) -> Block:
        """One of nodata alone."""
        count = np.zeros(256, dtype=np.int64)
        count[NODATA] = window.area_px
        # One value for all pixels; nobody writes into a block.
        mask, score = (np.broadcast_to(np.uint8(v), window.shape_yx) for v in (NODATA, 0))
        return cls(window, mask, score, count)

    def traced(self, tracing: Tracing) -> BlockOutlines:
        """Its polygons, as far as they depend on it alone."""
        occurring = np.flatnonzero(self.count).tolist()
        return tracing.trace(self.window, self.mask, self.score, occurring, self.cores)

    @property
    def is_empty(self) -> bool:
        """Whether all of it is nodata."""
        return int(self.count[NODATA]) == self.window.area_px


def make_block(
    plan: ScenePlan,
    spec: BundleSpec,
    number: int,
    pieces: Sequence[Piece],
    valid: BoolArray | None,
    threshold: float | None,
) -> Block:
    """Blend, bring to the source's grid, decide.

    Args:
        number: of the block.
        pieces: of every tile that has weight in it and saw a valid pixel.
        valid: (y, x) of the block; None where all of it is.
        threshold: on the building's probability; None where the most probable class is taken.
    """
    window, model_window = plan.blocks[number], plan.model_window(number)
    valid = _without_failed(plan, window, pieces, valid)
    known = [(piece, piece.answer) for piece in pieces if piece.answer is not None]
    if not known and valid is not None and not valid.any():
        return Block.empty(window)
    if not known:
        blended = np.zeros((spec.outputs, *window.shape_yx), dtype=np.uint16)
    else:
        blender = Blender(plan.tiles, model_window, spec.outputs)
        for piece, answer in known:
            blender.feed(piece.index, answer, piece.extent)
        blended = enlarge(blender.finish(), model_window, window, plan.scaling)
    blended, parting = blended[: spec.channels], blended[spec.channels :]
    if threshold is None:
        mask, score = most_probable(blended)
    else:
        score = blended[0]
        mask = (score >= np.uint16(np.ceil(threshold * BLEND_ONE))).view(np.uint8)
    if valid is not None:
        mask = np.where(valid, mask, np.uint8(NODATA))
    score += np.uint16(BLEND_ONE // PROB_ONE // 2)
    score >>= np.uint16(8)
    cores = None
    if spec.separation is not None:
        above = parting[0] >= np.uint16(np.ceil(spec.separation_threshold * BLEND_ONE))
        inside = ~above if spec.separation == "border" else above
        cores = (inside & (mask == spec.building_class)).view(np.uint8)
    return Block.of(window, mask, score.astype(np.uint8), cores)


def _count(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256,) pixels of each value; in strips, since `bincount` makes eight bytes of each."""
    count = np.zeros(256, dtype=np.int64)
    step = max(1, (1 << 19) // mask.shape[1])
    for top in range(0, mask.shape[0], step):
        count += np.bincount(mask[top : top + step].ravel(), minlength=256)
    return count


def _without_failed(
    plan: ScenePlan, window: Window, pieces: Sequence[Piece], valid: BoolArray | None
) -> BoolArray | None:
    for piece in pieces:
        if piece.answer is not None:
            continue
        part = plan.scaling.to_source(piece.extent, plan.shape_yx).intersection(window)
        if part is not None:
            valid = np.ones(window.shape_yx, dtype=bool) if valid is None else valid
            valid[part.slices(window)] = False
    return valid


def most_probable(
    blended: NDArray[np.uint16],
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """The class index of each pixel, of equals the first, and its value; (class, y, x) to (y, x).

    As `argmax` and `max` along the first axis, of which NumPy does the one many times slower.
    """
    classes, height, width = blended.shape
    best = blended.max(axis=0)
    # Counted from the last class down, so that of those that are as high the first is the largest.
    above = np.zeros(best.shape, dtype=np.uint8)
    # In strips that stay in the processor's cache.
    step = max(1, (1 << 19) // width)
    for top in range(0, height, step):
        strip = slice(top, top + step)
        for index in range(classes):
            here = (blended[index, strip] == best[strip]).view(np.uint8)
            here *= np.uint8(classes - index)
            np.maximum(above[strip], here, out=above[strip])
    return np.uint8(classes) - above, best
