"""Draw buildings, their number and the built-up share on the frames of a video."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Overlay", "without_specks"]

Frame = NDArray[np.uint8]

_FILL = (255, 196, 0)
_OUTLINE = (255, 64, 32)
_PAPER, _INK = (24, 24, 28), (240, 240, 240)
_PAPER_SHARE = 0.75
_TEXT_SHARE = 1 / 26
"""Height of the text as a share of the frame's height."""

_SMALLEST_TEXT_PX, _LARGEST_TEXT_PX = 11, 64
_LINE_SHARE = 1 / 1000
_CORNERS = 4
"""Connectivity: parts that touch at a corner only are two buildings, as in polygons."""


def without_specks(mask: NDArray[np.bool_], smallest_px: float) -> tuple[NDArray[np.bool_], int]:
    """Remove small connected parts from a mask, and count the others.

    Args:
        mask: (y, x) mask.
        smallest_px: Minimum number of pixels of a part.

    Returns:
        The mask, which may be the given array, and the number of parts.
    """
    # Takes a third of the time of OpenCV's statistics, which also measure the background.
    count, labels = cv2.connectedComponents(
        mask.view(np.uint8), connectivity=_CORNERS, ltype=cv2.CV_32S
    )
    kept = np.bincount(labels[mask], minlength=count) >= smallest_px
    kept[0] = False
    if kept[1:].all():
        return mask, int(count) - 1
    return np.asarray(kept[labels]), int(kept.sum())


class Overlay:
    """Draw on frames of one size.

    Args:
        opacity: Opacity of the fill, 0 to 1.
        outlines: Whether to draw a line around each building.
        caption: Whether to write number and share into the corner.
    """

    def __init__(self, opacity: float, *, outlines: bool = True, caption: bool = True) -> None:
        self._filled = _filled_values(opacity) if opacity > 0 else None
        self._outlines = outlines
        self._caption = caption

    def draw(self, rgb: Frame, mask: NDArray[np.bool_], buildings: int, share: float) -> None:
        """Draw on a (y, x, 3) frame in place, by its (y, x) mask of buildings."""
        if self._filled is not None:
            cv2.copyTo(cv2.LUT(rgb, self._filled), mask.view(np.uint8), rgb)
        if self._outlines:
            thickness = max(1, round(max(rgb.shape[:2]) * _LINE_SHARE))
            rings, _ = cv2.findContours(
                mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
            )
            cv2.polylines(rgb, rings, True, _OUTLINE, thickness, cv2.LINE_AA)
        if self._caption:
            size_px = round(rgb.shape[0] * _TEXT_SHARE)
            size_px = min(max(size_px, _SMALLEST_TEXT_PX), _LARGEST_TEXT_PX)
            plural = "" if buildings == 1 else "s"
            _write(rgb, f"{buildings:,} building{plural} · {share:.1%} built up", size_px)


def _filled_values(opacity: float) -> Frame:
    """Return (1, 256, 3) the value of each band below the fill, by its original value."""
    values = np.arange(256)[None, :, None] * (1 - opacity) + np.array(_FILL) * opacity
    return np.asarray(np.rint(values), dtype=np.uint8)


def _write(rgb: Frame, text: str, size_px: int) -> None:
    """Write on a dark plate in the upper left corner; write nothing if the frame is too small."""
    plate = _plate(text, size_px)
    height, width = plate.shape[:2]
    margin = size_px // 2
    if margin + height > rgb.shape[0] or margin + width > rgb.shape[1]:
        if size_px > _SMALLEST_TEXT_PX:
            _write(rgb, text, max(size_px - 2, _SMALLEST_TEXT_PX))
        return
    corner = rgb[margin : margin + height, margin : margin + width]
    # Letters keep their brightness; the plate lets the ground shine through.
    share = np.maximum(plate.max(axis=2, keepdims=True) / np.float32(_INK[0]), _PAPER_SHARE)
    corner[:] = (plate * share + corner * (1 - share)).astype(np.uint8)


@lru_cache(maxsize=64)
def _plate(text: str, size_px: int) -> Frame:
    font = ImageFont.load_default(size=size_px)
    left, _, right, _ = font.getbbox(text)
    # The height is the same for every text, so that the plate does not move.
    high = font.getbbox("0gÅ")
    pad = size_px // 3
    size = int(right - left) + 2 * pad, int(high[3] - high[1]) + 2 * pad
    picture = Image.new("RGB", size, _PAPER)
    at = pad - left, pad - high[1]
    ImageDraw.Draw(picture).text(at, text, fill=_INK, font=font)
    return np.asarray(picture)
