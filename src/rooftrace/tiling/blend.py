"""Overlapping tiles become one answer, exactly.

Probabilities are whole 255ths and weights whole 256ths, so that every sum is exact: the answer
depends neither on the order of the tiles nor on how the scene is cut into blocks, and where
overlapping tiles agree their value comes out unchanged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Window
from rooftrace.tiling.plan import WEIGHT_ONE, TilePlan

__all__ = ["BLEND_ONE", "PROB_ONE", "Blender", "quantise"]

PROB_ONE = 255
"""A tile's probability of 1, in uint8."""

BLEND_ONE = PROB_ONE * WEIGHT_ONE * WEIGHT_ONE
"""A blended probability of 1, in uint16."""


def quantise(probability: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Probabilities in 0..1 to the nearest 255ths."""
    scaled = probability * np.float32(PROB_ONE)
    scaled += np.float32(0.5)
    return scaled.astype(np.uint8)


class Blender:
    """The blended probabilities of one window of the scene.

    Args:
        plan: the tiles of the scene.
        window: of the scene.
        channels: per pixel.
    """

    def __init__(self, plan: TilePlan, window: Window, channels: int) -> None:
        self._plan = plan
        self._window = window
        self._sum = np.zeros((channels, *window.shape_yx), dtype=np.uint16)

    def feed(
        self, index: tuple[int, int], probability: NDArray[np.uint8], extent: Window | None = None
    ) -> None:
        """Add one tile.

        Args:
            index: which; each tile that has weight in the window is fed once, in any order.
            probability: (channel, y, x) uint8 of the tile, in 255ths.
            extent: of the scene, what `probability` covers; default all that the tile reads. It
                holds at least what has weight in the window.
        """
        tile = self._plan.tile(index)
        part = tile.write.intersection(self._window)
        if part is None:
            return
        rows, cols = part.slices(tile.read)
        weight_y = self._plan.rows.weights(index[0])[rows, None]
        weight_x = self._plan.cols.weights(index[1])[None, cols]
        into_rows, into_cols = part.slices(self._window)
        rows, cols = part.slices(extent or tile.read)
        for total, values in zip(self._sum, probability):
            target = total[into_rows, into_cols]
            # In strips that stay in the processor's cache.
            step = max(1, (1 << 17) // part.width)
            for top in range(0, part.height, step):
                strip = slice(top, top + step)
                weighted = values[rows, cols][strip] * weight_x
                weighted *= weight_y[strip]
                target[strip] += weighted

    def finish(self) -> NDArray[np.uint16]:
        """(channel, y, x), BLEND_ONE being a probability of 1."""
        return self._sum
