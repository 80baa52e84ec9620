"""How far outlines lie beside their roofs, from the steps of a surface model."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Floats

MOST_M = 5.0
"""Maximum offset in metres that is looked for."""

_RING_M, _FLOOR_M, _STEP_M = 2.0, 25.0, 4.0
"""Width of the ring that should be ground, side of the square whose lowest height is ground, and
height from which a step counts in full, in metres."""

_LEAST_STEP = 0.25
"""Minimum difference, in `_STEP_M`, between outlines and their rings at the best offset."""


@dataclass(frozen=True)
class RoofOffset:
    """Offset from roofs to their outlines.

    Args:
        east_m, north_m: Median over the places, in metres.
        spread_m: Median absolute deviation of the places from it, in metres.
        places: Number of places that it follows from.
    """

    east_m: float
    north_m: float
    spread_m: float
    places: int

    @classmethod
    def of(cls, offsets: list[Floats]) -> RoofOffset | None:
        """Return the median of (2,) offsets; None of fewer than one."""
        if not offsets:
            return None
        east, north = np.median(offsets, axis=0).tolist()
        spread = np.median(np.abs(np.array(offsets) - (east, north)), axis=0).max()
        return cls(east, north, float(spread), len(offsets))

    @property
    def length_m(self) -> float:
        return float(np.hypot(self.east_m, self.north_m))

    def to_json(self) -> dict[str, Any]:
        """Return the figures in centimetres of precision."""
        return {name: round(value, 2) for name, value in vars(self).items()}


def offset_px(
    height: NDArray[np.floating[Any]], built: NDArray[np.bool_], pixel_m: float
) -> Floats | None:
    """Return the columns and rows by which outlines must be moved onto the roofs of a surface.

    The offset is that at which the outlines hold high ground and a ring around them low ground: the
    greatest correlation of the surface's steps with the outlines minus their ring.

    Args:
        height: (y, x) metres; NaN where not known.
        built: (y, x) pixels inside outlines.
        pixel_m: Metres per pixel.

    Returns:
        (2,) pixels to the right and down, between pixels by a parabola; None where no offset within
        `MOST_M` stands out.
    """
    most = ceil(MOST_M / pixel_m)
    known = np.isfinite(height)
    filled = np.where(known, height, np.nanmax(height) if known.any() else 0).astype(np.float32)
    floor = cv2.erode(filled, np.ones((ceil(_FLOOR_M / pixel_m),) * 2, np.uint8))
    step = np.where(known, np.clip((filled - floor) / _STEP_M, 0, 1), 0)
    inside = built.astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * ceil(_RING_M / pixel_m) + 1,) * 2)
    ring = cv2.dilate(inside, disc) - inside
    if not inside.any() or not ring.any():
        return None
    kernel = (inside / inside.sum() - ring / ring.sum()).astype(np.float32)
    shape = [cv2.getOptimalDFTSize(side + most) for side in built.shape]
    spectrum = np.fft.rfft2(step, shape) * np.conj(np.fft.rfft2(kernel, shape))
    score = np.roll(np.fft.irfft2(spectrum, shape), (most, most), (0, 1))
    score = score[: 2 * most + 1, : 2 * most + 1]
    row, col = np.unravel_index(int(np.argmax(score)), score.shape)
    if score[row, col] < _LEAST_STEP or not (0 < row < 2 * most and 0 < col < 2 * most):
        return None
    around = score[row - 1 : row + 2, col - 1 : col + 2]
    across, down = around[1], around[:, 1]
    return np.array([col - most + _vertex(across), row - most + _vertex(down)])


def _vertex(three: Floats) -> float:
    """Return where a parabola through three values is highest, from the middle one."""
    bend = three[0] - 2 * three[1] + three[2]
    return 0.0 if bend >= 0 else float((three[0] - three[2]) / (2 * bend))
