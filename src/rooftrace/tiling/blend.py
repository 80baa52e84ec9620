"""Blend overlapping tiles exactly.

Probabilities are whole 255ths and weights whole 256ths, so that every sum is exact. The result
depends neither on the order of the tiles nor on the blocks of the scene. Where overlapping tiles
agree, their value is unchanged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import PredictError
from rooftrace.core.types import Window
from rooftrace.tiling.plan import WEIGHT_ONE, TilePlan

PROB_ONE = 255
"""Value of a tile's probability of 1, in uint8."""

BLEND_ONE = PROB_ONE * WEIGHT_ONE * WEIGHT_ONE
"""Value of a blended probability of 1, in uint16."""


_SLACK = 0.5 / PROB_ONE
"""Distance outside of 0..1 that rounding to 255ths removes; arithmetic in bf16 causes it."""


def check_probabilities(probability: NDArray[np.floating[Any]], model: str = "the model") -> None:
    """Raise PredictError if an answer of a model holds anything but probabilities.

    NaN compares as False and would silently become background.

    Args:
        probability: Answer of the model, of any shape.
        model: Name of the model in the message.
    """
    # NumPy's minimum and maximum of an array with NaN are NaN.
    check_range(probability.min(), probability.max(), model)


def check_range(low: float, high: float, model: str = "the model") -> None:
    """Raise PredictError if the range of a model's answers is not within 0..1, or is NaN.

    Args:
        low, high: Smallest and largest answer; NaN if any answer is NaN.
        model: See `check_probabilities`.
    """
    if low >= -_SLACK and high <= 1 + _SLACK:
        return
    found = "NaN (not a number)" if np.isnan(low + high) else f"values from {low:g} to {high:g}"
    raise PredictError(
        f"{model} answered {found}; expected probabilities from 0 to 1.",
        remedy="Predict with --precision fp32 in case the numbers overflow in a shorter format. "
        "If it answers the same, the model is damaged: get it again, or export it again.",
    )


def quantise(probability: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Round probabilities in 0..1 to 255ths.

    Raises:
        PredictError: See `check_probabilities`.
    """
    check_probabilities(probability)
    scaled = probability * np.float32(PROB_ONE)
    scaled += np.float32(0.5)
    return scaled.astype(np.uint8)


class Blender:
    """Accumulator of the blended probabilities of one window of the scene.

    Args:
        plan: Tiles of the scene.
        window: Window of the scene.
        channels: Number of channels per pixel.
    """

    def __init__(self, plan: TilePlan, window: Window, channels: int) -> None:
        self._plan = plan
        self._window = window
        self._sum = np.zeros((channels, *window.shape_yx), dtype=np.uint16)

    def feed(
        self, index: tuple[int, int], probability: NDArray[np.uint8], extent: Window | None = None
    ) -> None:
        """Add one tile. Feed each tile that has weight in the window once, in any order.

        Args:
            index: Row and column of the tile.
            probability: (channel, y, x) uint8 of the tile, in 255ths.
            extent: Window of the scene that `probability` covers; default all that the tile reads.
                It must cover the pixels that have weight in the window.
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
        # Only this tile has weight away from the columns in which it overlaps with others.
        alone = np.flatnonzero(weight_x[0] == WEIGHT_ONE)
        inner = slice(int(alone[0]), int(alone[-1]) + 1) if len(alone) else slice(0, 0)
        for total, values in zip(self._sum, probability):
            target = total[into_rows, into_cols]
            # Strips stay in the processor's cache.
            step = max(1, (1 << 17) // part.width)
            for top in range(0, part.height, step):
                strip = slice(top, top + step)
                given, into, down = values[rows, cols][strip], target[strip], weight_y[strip]
                if (down == WEIGHT_ONE).all():
                    np.multiply(
                        given[:, inner], np.uint16(WEIGHT_ONE * WEIGHT_ONE), out=into[:, inner]
                    )
                    sides = [slice(inner.start), slice(inner.stop, None)]
                else:
                    sides = [slice(None)]
                for side in sides:
                    weighted = given[:, side] * weight_x[:, side]
                    weighted *= down
                    into[:, side] += weighted

    def finish(self) -> NDArray[np.uint16]:
        """Return (channel, y, x) uint16; BLEND_ONE is a probability of 1."""
        return self._sum
