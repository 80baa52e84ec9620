"""Pictures for people: pixels converted for display, PNG files, polygons, scale bars and keys."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from math import floor, log10
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rooftrace.io.files import replacing
from rooftrace.io.legend import Colour


def as_rgb(data: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Return (y, x, 3) uint8: the first three bands, or the first band as grey.

    Args:
        data: Pixels (band, y, x), any dtype; types other than uint8 are stretched from the 1st to
            the 99th percentile.
        valid: Pixels (y, x) from which the percentiles are computed; default all.
    """
    bands = data[:3] if len(data) >= 3 else np.repeat(data[:1], 3, axis=0)
    if bands.dtype != np.uint8:
        values = bands.astype(np.float32)
        known = values if valid is None else values[:, valid]
        low, high = np.percentile(known, (1, 99)) if known.size else (0.0, 1.0)
        bands = np.nan_to_num((values - low) / max(high - low, 1e-6) * 255).clip(0, 255)
    return np.ascontiguousarray(np.moveaxis(bands, 0, -1).astype(np.uint8))


def round_length(metres: float) -> float:
    """Return the length of a scale bar: the largest of 1, 2, 5, 10, 20… up to `metres`."""
    power = 10.0 ** floor(log10(metres))
    return float(max(step for step in (1, 2, 5) if step * power <= metres * 1.0001) * power)


PRINT_DPI = 300
"""Resolution that the files of pictures state, in dots per inch."""


def write_png(path: Path, picture: Image.Image, *, photograph: bool = False) -> None:
    """Write a PNG.

    Args:
        path: File to write.
        picture: Picture of any mode; a photograph is RGB.
        photograph: True for a picture without areas of one colour, which is written faster.

    Raises:
        ExportError: the file cannot be written.
    """
    with replacing(path) as partial:
        if photograph:
            # OpenCV looks for repetitions of single bytes alone, which takes a quarter of the time.
            bgr = cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR)
            partial.write_bytes(cv2.imencode(".png", bgr)[1].data)
        else:
            # Level 1 makes files a third larger and is five times as fast.
            picture.save(partial, format="PNG", compress_level=1, dpi=(PRINT_DPI, PRINT_DPI))


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""First bytes of every PNG file."""


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file, with its length and its checksum."""
    check = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


_SHIFT = 4
"""Bits of fixed-point coordinates in OpenCV."""

_ROW_PX = 22
"""Height of a row of a key, in pixels."""

_SWATCH_PX = 14
"""Side of a colour swatch, in pixels."""

_MARGIN_PX = 10
"""Space at the left and right of a key, in pixels."""

_GAP_PX = 20
"""Space between two entries of a key, in pixels."""


def draw_polygon(
    picture: NDArray[np.uint8],
    polygon: shapely.Geometry,
    corner_xy: tuple[float, float],
    unit: float,
    fill: Colour,
    line: Colour,
    width_px: int = 1,
) -> None:
    """Draw a polygon or multipolygon on a map whose y points north; holes stay empty.

    Args:
        picture: (y, x, 3) uint8 picture, which is changed.
        polygon: The polygon.
        corner_xy: Upper left corner of the picture in the polygon's coordinates.
        unit: Units of these coordinates per pixel.
        fill, line: Colours of the ground and of the outline.
        width_px: Width of the outline.
    """
    for part in shapely.get_parts(polygon):
        rings = []
        for ring in shapely.get_rings(part):
            places = (shapely.get_coordinates(ring) - corner_xy) * (1, -1) / unit
            rings.append(np.rint(places * (1 << _SHIFT)).astype(np.int32))
        # All rings of a polygon go into one call, so that OpenCV leaves the holes empty.
        cv2.fillPoly(picture, rings, fill, cv2.LINE_AA, _SHIFT)
        cv2.polylines(picture, rings, True, line, width_px, cv2.LINE_AA, _SHIFT)


def draw_key(
    entries: Sequence[tuple[str, Colour | None]], width_px: int, *, paper: Colour, ink: Colour,
    scale: int = 1,
) -> Image.Image:  # fmt: skip
    """Draw colour swatches with their texts, in as many rows as necessary.

    Args:
        entries: Text and colour of each entry, from left to right; None draws a thick border.
            Texts that are wider than the picture are cut off.
        width_px: Width of the picture.
        paper, ink: Colours of the background and of the text.
        scale: Factor of all lengths but the width; text has 14 px at 1.
    """
    font = ImageFont.load_default(size=14 * scale)
    margin_px, gap_px, row_px = _MARGIN_PX * scale, _GAP_PX * scale, _ROW_PX * scale
    swatch_px = _SWATCH_PX * scale
    before_px = swatch_px + 6 * scale
    rows: list[list[tuple[float, str, Colour | None]]] = [[]]
    left = float(margin_px)
    for text, colour in entries:
        needed_px = before_px + font.getlength(text)
        if rows[-1] and left + needed_px > width_px - margin_px:
            rows.append([])
            left = float(margin_px)
        rows[-1].append((left, text, colour))
        left += needed_px + gap_px
    page = Image.new("RGB", (width_px, row_px * len(rows) + 6 * scale), paper)
    draw = ImageDraw.Draw(page)
    for number, row in enumerate(rows):
        middle = 3 * scale + number * row_px + row_px // 2
        for start, text, colour in row:
            top, below = middle - swatch_px // 2, middle + swatch_px // 2
            thick_px = 1 if colour else 3 * scale
            draw.rectangle((start, top, start + swatch_px, below), colour, ink, thick_px)
            draw.text((start + before_px, middle), text, fill=ink, font=font, anchor="lm")
    return page
