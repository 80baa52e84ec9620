"""A picture of buildings coloured by their height."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rooftrace.core.types import Bounds
from rooftrace.heights.estimate import Heights
from rooftrace.io.picture import draw_key, draw_polygon, write_png
from rooftrace.vector.match import SpilledPolygons

_SIDE_PX, _MARGIN_PX = 1400, 20
_PAPER, _INK, _UNKNOWN = (255, 255, 255), (30, 34, 40), (205, 205, 205)

_RAMP = (
    (253, 231, 76), (249, 173, 60), (224, 108, 82), (171, 62, 112), (106, 40, 120), (43, 24, 91)
)  # fmt: skip
"""Colours from low to high, each darker than the last, so that they differ in grey, too."""

_BREAKS_M = (0.0, 4.0, 8.0, 14.0, 25.0, 50.0)
"""Heights in metres of the colours."""


def heights_picture(
    path: Path, outlines: SpilledPolygons, heights: Heights, bounds: Bounds
) -> None:
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
    for rows, some in outlines.chunks():
        tall = heights.height[rows]
        colour = np.stack([np.interp(tall, _BREAKS_M, band) for band in zip(*_RAMP)], axis=1)
        colour[np.isnan(tall)] = _UNKNOWN
        for polygon, fill in zip(some, np.rint(colour).astype(int).tolist()):
            draw_polygon(picture, polygon, (left, top), unit, fill, _PAPER)
    entries = [(f"{metres:g} m", fill) for metres, fill in zip(_BREAKS_M, _RAMP)]
    width = max(size[1], 620) + 2 * _MARGIN_PX
    key = draw_key([*entries, ("no height", _UNKNOWN)], width, paper=_PAPER, ink=_INK)
    page = Image.new("RGB", (width, size[0] + 2 * _MARGIN_PX + key.height), _PAPER)
    page.paste(Image.fromarray(picture), (_MARGIN_PX, _MARGIN_PX))
    page.paste(key, (0, size[0] + 2 * _MARGIN_PX))
    write_png(path, page)
