"""A picture of buildings coloured by their height."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import shapely
from PIL import Image, ImageDraw, ImageFont

from rooftrace.core.types import Bounds, Polygons
from rooftrace.heights.estimate import Heights
from rooftrace.io.files import replacing

_SIDE_PX = 1400
_PAPER, _INK, _FAINT = (255, 255, 255), (30, 34, 40), (110, 116, 124)
_UNKNOWN = (205, 205, 205)

_RAMP = np.array(
    [(253, 231, 76), (249, 173, 60), (224, 108, 82), (171, 62, 112), (106, 40, 120), (43, 24, 91)],
    np.float64,
)
"""Colours from low to high, each darker than the last, so that they differ in grey, too."""

_BREAKS_M = np.array([0.0, 4.0, 8.0, 14.0, 25.0, 50.0])
"""Heights in metres of the colours."""

_SHIFT = 4
"""Bits of fixed-point coordinates in OpenCV."""


class _Outlines(Protocol):
    def chunks(self) -> Iterator[tuple[slice, Polygons]]: ...


def heights_picture(path: Path, outlines: _Outlines, heights: Heights, bounds: Bounds) -> None:
    """Write a PNG of buildings coloured by height; those without a height are grey.

    Args:
        path: File to write.
        outlines: The n outlines in the CRS of `bounds`.
        heights: Their heights.
        bounds: Extent of the picture.

    Raises:
        ExportError: The file cannot be written.
    """
    left, bottom, right, top = bounds
    unit = max(right - left, top - bottom, 1e-9) / _SIDE_PX
    size = max(round((top - bottom) / unit), 1), max(round((right - left) / unit), 1)
    picture = np.full((*size, 3), _PAPER, np.uint8)
    colour = np.stack(
        [np.interp(np.nan_to_num(heights.height), _BREAKS_M, band) for band in _RAMP.T], axis=1
    )
    colour[np.isnan(heights.height)] = _UNKNOWN
    for rows, some in outlines.chunks():
        for polygon, fill in zip(some, np.rint(colour[rows]).tolist()):
            for part in shapely.get_parts(polygon):
                rings = [
                    np.rint(
                        (shapely.get_coordinates(ring) - (left, top))
                        * (1 / unit, -1 / unit)
                        * (1 << _SHIFT)
                    ).astype(np.int32)
                    for ring in shapely.get_rings(part)
                ]
                cv2.fillPoly(picture, rings, fill, cv2.LINE_AA, _SHIFT)
                cv2.polylines(picture, rings, True, _PAPER, 1, cv2.LINE_AA, _SHIFT)
    with replacing(path) as partial:
        _page(picture).save(partial, "PNG")


def _page(picture: np.ndarray) -> Image.Image:
    """Return the picture with a legend below."""
    height, width = picture.shape[:2]
    font = ImageFont.load_default(size=16)
    page = Image.new("RGB", (max(width, 620) + 40, height + 90), _PAPER)
    page.paste(Image.fromarray(picture), (20, 20))
    draw = ImageDraw.Draw(page)
    left, line = 20, height + 40
    for metres, fill in zip(_BREAKS_M, _RAMP):
        draw.rectangle((left, line, left + 60, line + 16), fill=tuple(map(int, fill)))
        draw.text((left, line + 20), f"{metres:g} m", fill=_INK, font=font)
        left += 60
    draw.rectangle((left + 30, line, left + 50, line + 16), fill=_UNKNOWN)
    draw.text((left + 58, line - 1), "no height", fill=_FAINT, font=font)
    return page
