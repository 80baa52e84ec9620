"""By how much a label is shifted against its image: their edges, laid over one another.

The outline of the label is moved over the image, and how well it lies on edges of its own direction
is a surface over all shifts; its peak is the shift that is looked for. Such edge alignment has
registered maps to images for long: chamfer matching (H. G. Barrow et al., Parametric correspondence
and chamfer matching, 1977), and for the building maps of OpenStreetMap J. E. Vargas-Muñoz et al.,
Correcting rural building annotations in OpenStreetMap using convolutional neural networks (2019).
Directions are compared at twice their angle, so that a dark roof on light ground is worth a light
one on dark ground, after A. J. Fitch et al., Orientation correlation (BMVC 2002); all shifts are
computed at once by the Fourier transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["REACH_PX", "Peak", "Surface", "edge_surface"]

REACH_PX = 24
"""The largest shift that is looked for, along rows and along columns."""

_PEAK_PX = 5.0
"""Farther away than this, a second peak is another answer."""

_LEAST_Z, _MOST_Z = 2.0, 6.0
"""Peaks of labels that belong to other images lie 2 to 5 deviations above the rest; of fitting
labels 4 to 25."""

_ENOUGH_PX = 300.0
"""Outlines that are shorter fit somewhere by chance."""

_BLOCK = 31
"""Side of the neighbourhood that an edge is strong or weak in."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The best shift. `rows` and `cols` in pixels, down and right; `confidence` 0..1."""

    rows: float
    cols: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Surface:
    """How well the outline fits at each shift; those of several scenes add up.

    Args:
        fit: (49, 49) float64, sum over the outline's pixels of how well each fits, -1..1 each.
        weight: (49, 49) float64, how many pixels of it lie on valid ones.
    """

    fit: NDArray[np.float64]
    weight: NDArray[np.float64]

    def __add__(self, other: Surface) -> Surface:
        return Surface(self.fit + other.fit, self.weight + other.weight)

    def peak(self) -> Peak:
        """The highest point, to parts of a pixel, and how far it is to be trusted.

        The confidence is the height that the peak has above the best shift farther than 5 px from
        it, as a share of its height above the median; less where it stands out little from the
        scatter of the rest (in robust standard deviations), and where the outline is short; none
        at the end of the reach, beyond which a higher one may lie.
        """
        score = self.fit / np.maximum(self.weight, 0.25 * self.weight.max() + 1e-9)
        row, col = divmod(int(score.argmax()), score.shape[1])
        rows, cols = np.ogrid[: score.shape[0], : score.shape[1]]
        rest = score[np.hypot(rows - row, cols - col) > _PEAK_PX]
        middle = float(np.median(rest))
        scatter = 1.4826 * float(np.median(np.abs(rest - middle))) + 1e-12
        height = float(score[row, col]) - middle
        if height <= 0 or not 0 < row < 2 * REACH_PX or not 0 < col < 2 * REACH_PX:
            return Peak(row - REACH_PX, col - REACH_PX, 0.0)
        alone = (float(score[row, col]) - float(rest.max())) / height
        clear = (height / scatter - _LEAST_Z) / (_MOST_Z - _LEAST_Z)
        long = float(self.weight.max()) / _ENOUGH_PX
        confidence = max(alone, 0.0) * min(max(clear, 0.0), 1.0) * min(long, 1.0)
        return Peak(
            row - REACH_PX + _summit(score[:, col], row),
            col - REACH_PX + _summit(score[row], col),
            confidence,
        )


def edge_surface(
    luma: NDArray[np.float32],
    valid: NDArray[np.bool_],
    building: NDArray[np.bool_],
    known: NDArray[np.bool_],
) -> Surface:
    """How well the outline of a label fits the edges of an image, at all shifts up to REACH_PX.

    Args:
        luma: (y, x), 0..255.
        valid: (y, x), False where the image shows nothing.
        building: (y, x), the label.
        known: (y, x), False where the label says nothing.
    """
    filled = np.where(valid, luma, luma[valid].mean() if valid.any() else 0).astype(np.float32)
    across, down = _gradient(filled)
    # Edges of what is valid are none of the image, and ends of what is known none of the label.
    inside = _eroded(valid, 7, outside=1)
    strength = np.hypot(across, down)
    near = cv2.blur(strength * inside, (_BLOCK, _BLOCK)) / np.maximum(
        cv2.blur(inside, (_BLOCK, _BLOCK)), 1e-3
    )
    # From 0 to nearly 1: a hedge must not outweigh ten roofs.
    strength *= inside / (near + strength + 2.0)
    outline_across, outline_down = _gradient(building.astype(np.float32))
    length = np.hypot(outline_across, outline_down) * _eroded(known, 9, outside=0)
    shape_yx = tuple(cv2.getOptimalDFTSize(side + REACH_PX) for side in luma.shape)
    image = np.fft.fft2(_twice_the_angle(across, down, strength), shape_yx)
    outline = np.fft.fft2(_twice_the_angle(outline_across, outline_down, length), shape_yx)
    fit = np.fft.ifft2(image * np.conj(outline)).real
    weight = np.fft.irfft2(
        np.fft.rfft2(inside, shape_yx) * np.conj(np.fft.rfft2(length, shape_yx)), shape_yx
    )
    shifts = np.ix_(*(np.arange(-REACH_PX, REACH_PX + 1),) * 2)
    return Surface(fit[shifts].astype(np.float64), weight[shifts].astype(np.float64))


def _gradient(picture: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Along columns and rows, per pixel, of the picture a little blurred."""
    smooth = cv2.GaussianBlur(picture, (0, 0), 1.0)
    return (
        np.asarray(cv2.Scharr(smooth, cv2.CV_32F, 1, 0)) / 32,
        np.asarray(cv2.Scharr(smooth, cv2.CV_32F, 0, 1)) / 32,
    )


def _eroded(area: NDArray[np.bool_], side_px: int, *, outside: int) -> NDArray[np.float32]:
    square = np.ones((side_px, side_px), np.uint8)
    eroded = cv2.erode(
        area.view(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=outside
    )
    return np.asarray(eroded, dtype=np.float32)


def _twice_the_angle(
    across: NDArray[np.float32], down: NDArray[np.float32], length: NDArray[np.float32]
) -> NDArray[np.complex64]:
    """Vectors of the given length, whose direction is twice that of (across, down)."""
    vector = (across + 1j * down) ** 2
    vector *= length / np.maximum(np.abs(vector), 1e-9)
    return vector.astype(np.complex64)


def _summit(line: NDArray[np.float64], at: int) -> float:
    """From the highest sample to the summit of the parabola through it and its neighbours."""
    if not 0 < at < len(line) - 1:
        return 0.0
    before, here, after = line[at - 1 : at + 2]
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
