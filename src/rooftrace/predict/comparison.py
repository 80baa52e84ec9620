"""A picture of image, truth and prediction side by side."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rooftrace.core.types import Mask
from rooftrace.io.display import as_rgb
from rooftrace.io.legend import Colour, Legend
from rooftrace.predict.key import draw_key

__all__ = ["side_by_side"]

_PANEL_PX = 640
"""Longest side of one of the three panels."""

_LEAST_PANEL_PX = 256
"""Smaller images are shown larger, so that texts find room."""

_GAP_PX = 8
_HEADER_PX = 34
_CLASS_SHARE = 0.55
_UNKNOWN: Colour = (70, 70, 70)
_PAPER, _INK = (255, 255, 255), (30, 30, 30)


def side_by_side(
    pixels: NDArray[np.generic], truth: Mask, predicted: Mask, title: str, legend: Legend
) -> NDArray[np.uint8]:
    """Image, truth and prediction beside one another, (y, x, 3) uint8 RGB.

    Of more than two classes there is a key of those that occur. The background is the image itself.

    Args:
        pixels: (band, y, x), any dtype; shown between its 1st and 99th percentile if not 8-bit.
        truth, predicted: of the same shape; what is not known of the truth is grey in both.
        title: above the prediction.
        legend: of the classes.
    """
    image = as_rgb(pixels)
    valid = truth.valid
    panels = [image, *(_overlay(image, mask.data, valid, legend) for mask in (truth, predicted))]
    longest = max(image.shape[:2])
    scale = min(max(longest, _LEAST_PANEL_PX), _PANEL_PX) / longest
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    shown = [cv2.resize(panel, size, interpolation=how) for panel in panels]
    height, width = shown[0].shape[:2]
    sheet = np.full((height + _HEADER_PX, 3 * width + 2 * _GAP_PX, 3), _PAPER, dtype=np.uint8)
    for number, (panel, name) in enumerate(zip(shown, ("image", "truth", f"prediction {title}"))):
        left = number * (width + _GAP_PX)
        sheet[_HEADER_PX:, left : left + width] = panel
        cv2.putText(
            sheet, name, (left + 4, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.55, _INK, 1, cv2.LINE_AA
        )
    if len(legend.names) == 2:
        return sheet
    return np.concatenate([sheet, _key(truth, predicted, legend, sheet.shape[1])])


def _key(truth: Mask, predicted: Mask, legend: Legend, width_px: int) -> NDArray[np.uint8]:
    seen = np.bincount(truth.data[truth.valid], minlength=256)
    seen += np.bincount(predicted.data[truth.valid & predicted.valid], minlength=256)
    entries: list[tuple[str, Colour | None]] = [
        (name, legend.rgb(index) if index else None)
        for index, name in enumerate(legend.names)
        if seen[index]
    ]
    if not truth.valid.all():
        entries.append(("not judged", _UNKNOWN))
    key: Image.Image = draw_key(entries, width_px, paper=_PAPER, ink=_INK)
    return np.asarray(key)


def _overlay(
    image: NDArray[np.uint8], classes: NDArray[np.uint8], valid: NDArray[np.bool_], legend: Legend
) -> NDArray[np.uint8]:
    colours = legend.table[classes, :3]
    mixed = np.where(
        classes[..., None] > 0, image * (1 - _CLASS_SHARE) + colours * _CLASS_SHARE, image
    )
    mixed[~valid] = _UNKNOWN
    result: NDArray[np.uint8] = mixed.astype(np.uint8)
    return result
