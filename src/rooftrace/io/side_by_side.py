"""Picture that shows image, truth, prediction and errors side by side."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rooftrace.core.types import Mask
from rooftrace.io.legend import Colour, Legend
from rooftrace.io.picture import as_rgb, draw_key

PANEL_PX = 640
"""Longest side of a panel in pixels."""

_MIN_PANEL_PX = 256
"""Minimum length of a panel's longer side in pixels; smaller images are enlarged to make room for
text."""

_BETWEEN_PX = 8
"""Space between panels in pixels."""

_HEADER_PX = 34
"""Height of the strip of titles in pixels."""

_CLASS_SHARE = 0.55
"""Opacity of the classes."""

_ERROR_SHARE = 0.7
"""Opacity of the errors."""

FOUND, MISSED, INVENTED = (0, 158, 115), (230, 120, 0), (0, 90, 200)
"""Colours that people with red-green colour blindness can distinguish: those of Okabe & Ito (2008),
darkened."""

_UNKNOWN: Colour = (70, 70, 70)
"""Colour of pixels that are not evaluated."""

_BACKGROUND = 205
"""Grey level behind masks if there is no image."""

_PAPER, _INK = (255, 255, 255), (30, 30, 30)

_FONT, _TEXT = cv2.FONT_HERSHEY_SIMPLEX, 0.5
_ERRORS: tuple[tuple[str, Colour], ...] = (
    ("found", FOUND),
    ("missed", MISSED),
    ("invented", INVENTED),
)


def side_by_side(
    pixels: NDArray[np.generic] | None,
    truth: Mask,
    predicted: Mask,
    title: str,
    legend: Legend,
    *,
    building_class: int = 1,
    panel_px: int = PANEL_PX,
    others: Sequence[tuple[str, Mask]] = (),
) -> NDArray[np.uint8]:
    """Draw image, truth, prediction and errors side by side as (y, x, 3) uint8 RGB.

    Pixels of the background class show the image itself. The errors are those of the building
    class: found, missed and invented pixels. With more than two classes, a key lists the classes
    that occur.

    Args:
        pixels: (band, y, x) pixel values of any dtype; values that are not 8-bit are stretched
            between the 1st and the 99th percentile. None if there is no image; only masks are drawn
            then.
        truth, predicted: Masks of equal shape. Invalid pixels of the truth are grey in the panels
            of both masks; invalid pixels of the prediction are grey in its own panel.
        title: Text above the prediction.
        legend: Colours of the classes.
        building_class: Class index of buildings.
        panel_px: Longest side of a panel in pixels.
        others: Titles and masks of further predictions, whose errors are drawn, too.
    """
    blank = np.full((*truth.data.shape, 3), _BACKGROUND, np.uint8)
    image = blank if pixels is None else as_rgb(pixels)
    named: list[tuple[NDArray[np.uint8], tuple[tuple[str, Colour], ...]]] = [
        (_overlay(image, truth.data, truth.valid, legend), (("truth", _INK),)),
        (
            _overlay(image, predicted.data, truth.valid & predicted.valid, legend),
            ((f"prediction {title}", _INK),),
        ),
        (_errors(image, truth, predicted, building_class), _ERRORS),
        *(
            (_errors(image, truth, mask, building_class), ((f"errors of {name}", _INK),))
            for name, mask in others
        ),
    ]
    if pixels is not None:
        named.insert(0, (image, (("image", _INK),)))
    longest = max(image.shape[:2])
    scale = min(max(longest, _MIN_PANEL_PX), panel_px) / longest
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    shown = [cv2.resize(panel, size, interpolation=how) for panel, _ in named]
    height, width = shown[0].shape[:2]
    picture = np.full(
        (height + _HEADER_PX, len(shown) * (width + _BETWEEN_PX) - _BETWEEN_PX, 3),
        _PAPER,
        dtype=np.uint8,
    )
    for number, (panel, (_, heads)) in enumerate(zip(shown, named)):
        left = number * (width + _BETWEEN_PX)
        picture[_HEADER_PX:, left : left + width] = panel
        at = left + 4
        for text, colour in heads:
            cv2.putText(picture, text, (at, 23), _FONT, _TEXT, colour, 1, cv2.LINE_AA)
            at += cv2.getTextSize(text, _FONT, _TEXT, 1)[0][0] + 8
    if len(legend.names) == 2:
        return picture
    return np.concatenate([picture, _key(truth, predicted, legend, picture.shape[1])])


def _errors(
    image: NDArray[np.uint8], truth: Mask, predicted: Mask, building_class: int
) -> NDArray[np.uint8]:
    """Return the image in grey, with found, missed and invented pixels of one class in colour."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    mixed = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    known = truth.valid & predicted.valid
    is_truth, is_predicted = (m.data == building_class for m in (truth, predicted))
    for where, colour in (
        (is_truth & is_predicted, FOUND),
        (is_truth & ~is_predicted, MISSED),
        (is_predicted & ~is_truth, INVENTED),
    ):
        here = where & known
        mixed[here] = mixed[here] * (1 - _ERROR_SHARE) + np.array(colour, np.float32) * _ERROR_SHARE
    mixed[~known] = _UNKNOWN
    return mixed.astype(np.uint8)


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
