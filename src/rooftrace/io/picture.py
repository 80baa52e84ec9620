"""Pictures for people: pixels converted for display, PNG files, polygons, scale bars and keys."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from math import floor, log10
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rooftrace.core.types import BoolArray, Mask
from rooftrace.io.files import replacing
from rooftrace.io.legend import Colour, Legend


@dataclass(frozen=True)
class DisplayStretch:
    """Linear stretch of values to bytes for display.

    Args:
        low, high: Values shown as black and as white.
    """

    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> DisplayStretch:
        """Return the stretch from the 1st to the 99th percentile of values that are not 8-bit."""
        known = values.astype(np.float32)
        known = known[np.isfinite(known)]
        low, high = np.percentile(known, (1, 99)) if known.size else (0.0, 1.0)
        return cls(float(low), float(max(high, low + 1e-6)))

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Return values of any shape as bytes; NaN is black."""
        scaled = (values.astype(np.float32) - self.low) * (255 / (self.high - self.low))
        return np.asarray(np.nan_to_num(scaled).clip(0, 255), np.uint8)


def as_rgb(
    data: NDArray[Any], valid: BoolArray | None = None, stretch: DisplayStretch | None = None
) -> NDArray[np.uint8]:
    """Return (y, x, 3) uint8: the first three bands, or the first band as grey.

    Args:
        data: Pixels (band, y, x), any dtype.
        valid: Pixels (y, x) from which the stretch is found; default all.
        stretch: Stretch of values that are not 8-bit; default that of these pixels.
    """
    bands = data[:3] if len(data) >= 3 else np.repeat(data[:1], 3, axis=0)
    if stretch is None and bands.dtype != np.uint8:
        stretch = DisplayStretch.of(bands if valid is None else bands[:, valid])
    shown = bands if stretch is None else stretch.apply(bands)
    return np.ascontiguousarray(np.moveaxis(shown, 0, -1).astype(np.uint8))


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Return a picture as the bytes of a file; kind and options as for `Image.save`."""
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def data_url(file: bytes, kind: str = "jpeg") -> str:
    """Return the bytes of a picture file as the URL of an image in a page."""
    return f"data:image/{kind};base64,{b64encode(file).decode()}"


class PagePicture(NamedTuple):
    """One picture on a page: id of its scene, a caption, and a data URL."""

    id: str
    caption: str
    address: str


def round_length(metres: float) -> float:
    """Return the length of a scale bar: the largest of 1, 2, 5, 10, 20… up to `metres`."""
    power = 10.0 ** floor(log10(metres))
    return float(max(step for step in (1, 2, 5) if step * power <= metres * 1.0001) * power)


PRINT_DPI = 300
"""Resolution that the files of pictures state, in dots per inch."""


def write_png(path: Path, picture: Image.Image, *, photograph: bool = False) -> None:
    """Write a PNG.

    Args:
        picture: Picture of any mode; a photograph is RGB.
        photograph: True for a picture without areas of one colour, which is written faster.
    """
    with replacing(path) as partial:
        if photograph:
            # OpenCV looks for repetitions of single bytes alone, which takes a quarter of the time.
            bgr = cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR)
            partial.write_bytes(cv2.imencode(".png", bgr)[1].data)
        else:
            # Level 1 makes files a third larger and is five times as fast.
            picture.save(partial, format="PNG", compress_level=1, dpi=(PRINT_DPI, PRINT_DPI))


_SHIFT = 4
"""Bits of fixed-point coordinates in OpenCV."""


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
        corner_xy: Upper left corner of the picture in the polygon's coordinates.
        unit: Units of these coordinates per pixel.
        fill, line: Colours of the ground and of the outline.
    """
    for part in shapely.get_parts(polygon):
        rings = []
        for ring in shapely.get_rings(part):
            places = (shapely.get_coordinates(ring) - corner_xy) * (1, -1) / unit
            rings.append(np.rint(places * (1 << _SHIFT)).astype(np.int32))
        # All rings of a polygon go into one call, so that OpenCV leaves the holes empty.
        cv2.fillPoly(picture, rings, fill, cv2.LINE_AA, _SHIFT)
        cv2.polylines(picture, rings, True, line, width_px, cv2.LINE_AA, _SHIFT)


Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

_FONTS = (
    "DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "arial.ttf",
    "Arial Unicode.ttf", "NotoSansEthiopic-Regular.ttf", "ebrima.ttf", "Kefa.ttc",
    "NotoSansDevanagari-Regular.ttf", "NotoSansBengali-Regular.ttf", "Nirmala.ttf",
    "NotoSansCJK-Regular.ttc", "msyh.ttc",
)  # fmt: skip
"""Fonts of Linux, macOS and Windows, by file name; Pillow's own has hardly more than ASCII."""


@cache
def _own_font(size_px: int) -> Font:
    return ImageFont.load_default(size_px)


@cache
def _system_fonts(size_px: int) -> tuple[Font, ...]:
    fonts = []
    for name in _FONTS:
        with suppress(OSError):
            fonts.append(ImageFont.truetype(name, size_px))
    return tuple(fonts)


def font_for(size_px: int, text: str = "") -> Font:
    """Return Pillow's font, or the one of the system that has most letters of a text."""
    letters = set("".join(text.split()))

    def lacking(font: Font) -> int:
        missing = bytes(font.getmask("\uffff"))
        return sum(bytes(font.getmask(letter)) == missing for letter in letters)

    own = _own_font(size_px)
    if text.isascii() or not lacking(own):
        return own
    # Pillow looks for a font of the system in all its folders.
    return min((own, *_system_fonts(size_px)), key=lacking)


def shortened(text: str, font: Font, room_px: float) -> str:
    """Return a text, shortened with an ellipsis where it exceeds the available width."""
    if font.getlength(text) <= room_px:
        return text
    while text and font.getlength(text + "…") > room_px:
        text = text[:-1]
    return text + "…"


def draw_key(
    entries: Sequence[tuple[str, Colour | None]], width_px: int, *, paper: Colour, ink: Colour,
    scale: int = 1,
) -> Image.Image:  # fmt: skip
    """Draw colour swatches with their texts, in as many rows as necessary.

    Args:
        entries: Text and colour of each entry, from left to right; None draws a thick border.
            Texts that are wider than the picture are cut off.
        paper, ink: Colours of the background and of the text.
        scale: Factor of all lengths but the width; text has 14 px at 1.
    """
    font = font_for(14 * scale, "".join(text for text, _ in entries))
    margin_px, gap_px, row_px, swatch_px = 10 * scale, 20 * scale, 22 * scale, 14 * scale
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


PAPER, INK, _FAINT = (255, 255, 255), (25, 25, 28), (100, 100, 106)
"""Colours of the background, of text, and of frames and small text."""

LARGEST_PX, _NARROWEST_PX = 1800, 1200
"""Longest side of a map, six inches in print, and least width of a page."""

_SIDE_PX, _HEAD_PX, _LINE_PX, _SCALE = 28, 118, 44, 2
_TITLE_PX, _MAP_TEXT_PX = 42, 28


def source_line(names: str, credit: str = "") -> str:
    """Return the line below a map: attribution and date of the imagery, then names of files."""
    known = {"Imagery": credit, "Source": names}
    lines = [f"{what}: {text}." for what, text in known.items() if text]
    return " ".join([*lines, "Drawn with rooftrace."])


MapLabel = tuple[tuple[float, float], float, tuple[str, ...]]
"""Pixel to the right and below, width that is free there, and lines, the last of which is kept
where there is little room."""


def map_page(
    picture: NDArray[np.uint8],
    title: str,
    subtitle: str,
    entries: Sequence[tuple[str, Colour | None]],
    metres: float,
    source: str,
    *,
    north: bool = True,
    labels: Sequence[MapLabel] = (),
) -> Image.Image:
    """Return the page of a map: its title above, its texts on it; legend, scale bar, source below.

    Args:
        picture: (y, x, 3) uint8 map.
        title, subtitle: Two lines above.
        entries: Legend, see `draw_key`.
        source: Line below, see `source_line`.
    """
    height, width = picture.shape[:2]
    page_width = max(width, _NARROWEST_PX) + 2 * _SIDE_PX
    key = draw_key(entries, page_width, paper=PAPER, ink=INK, scale=_SCALE)
    below = _HEAD_PX + height + 2 * _LINE_PX
    page = Image.new("RGB", (page_width, below + key.height + _LINE_PX), PAPER)
    draw, small = ImageDraw.Draw(page), font_for(_MAP_TEXT_PX - 6, source)
    text, large = font_for(_MAP_TEXT_PX, subtitle), font_for(_TITLE_PX, title)
    room = page_width - 2 * _SIDE_PX - (80 if north else 0)
    draw.text((_SIDE_PX, 14), shortened(title, large, room), fill=INK, font=large)
    draw.text((_SIDE_PX, 70), shortened(subtitle, text, room), fill=_FAINT, font=text)
    if north:
        x = page_width - _SIDE_PX - 24
        draw.polygon([(x, 14), (x - 14, 52), (x, 43), (x + 14, 52)], fill=INK)
        draw.text((x, 56), "N", fill=INK, font=text, anchor="mt")
    left = (page_width - width) // 2
    page.paste(Image.fromarray(picture), (left, _HEAD_PX))
    draw.rectangle((left - 1, _HEAD_PX - 1, left + width, _HEAD_PX + height), outline=_FAINT)
    for (x, y), free_px, lines in labels:
        font = font_for(_MAP_TEXT_PX, "".join(lines))
        fits = len(lines) * _MAP_TEXT_PX < free_px and max(map(font.getlength, lines)) < free_px
        shown = "\n".join(filter(None, lines if fits else lines[-1:]))
        if font.getlength(lines[-1]) < free_px:
            draw.multiline_text(
                (left + x, _HEAD_PX + y), shown, fill=INK, font=font, anchor="mm",
                align="center", stroke_width=4, stroke_fill=PAPER,
            )  # fmt: skip
    length_m = round_length(width * metres / 3)
    right, line = page_width - _SIDE_PX, _HEAD_PX + height + _LINE_PX + 12
    label = f"{length_m:g} m" if length_m < 1000 else f"{length_m / 1000:g} km"
    draw.line((right - length_m / metres, line, right, line), fill=INK, width=5)
    draw.text((right - length_m / metres / 2, line - 8), label, fill=INK, font=text, anchor="mb")
    page.paste(key, (0, below))
    source = shortened(source, small, page_width - 2 * _SIDE_PX)
    draw.text((_SIDE_PX, below + key.height), source, fill=_FAINT, font=small)
    return page


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

_TEXT_PX = 15
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
        panel_px: Longest side of a panel in pixels.
        others: Titles and masks of further predictions, whose errors are drawn, too.
    """
    blank = np.full((*truth.data.shape, 3), _BACKGROUND, np.uint8)
    image = blank if pixels is None else as_rgb(pixels)
    named: list[tuple[NDArray[np.uint8], tuple[tuple[str, Colour], ...]]] = [
        (_overlay(image, truth.data, truth.valid, legend), (("truth", INK),)),
        (
            _overlay(image, predicted.data, truth.valid & predicted.valid, legend),
            ((f"prediction {title}", INK),),
        ),
        (_errors(image, truth, predicted, building_class), _ERRORS),
        *(
            (_errors(image, truth, mask, building_class), ((f"errors of {name}", INK),))
            for name, mask in others
        ),
    ]
    if pixels is not None:
        named.insert(0, (image, (("image", INK),)))
    longest = max(image.shape[:2])
    scale = min(max(longest, _MIN_PANEL_PX), panel_px) / longest
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    shown = [cv2.resize(panel, size, interpolation=how) for panel, _ in named]
    height, width = shown[0].shape[:2]
    picture = np.full(
        (height + _HEADER_PX, len(shown) * (width + _BETWEEN_PX) - _BETWEEN_PX, 3),
        PAPER,
        dtype=np.uint8,
    )
    header = Image.fromarray(picture[:_HEADER_PX])
    draw = ImageDraw.Draw(header)
    for number, (panel, (_, heads)) in enumerate(zip(shown, named)):
        left = number * (width + _BETWEEN_PX)
        picture[_HEADER_PX:, left : left + width] = panel
        at = left + 4.0
        for text, colour in heads:
            font = font_for(_TEXT_PX, text)
            draw.text((at, _HEADER_PX // 2), text, fill=colour, font=font, anchor="lm")
            at += font.getlength(text) + 8
    picture[:_HEADER_PX] = header
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
    key: Image.Image = draw_key(entries, width_px, paper=PAPER, ink=INK)
    return np.asarray(key)


def _overlay(
    image: NDArray[np.uint8], classes: NDArray[np.uint8], valid: BoolArray, legend: Legend
) -> NDArray[np.uint8]:
    colours = legend.table[classes, :3]
    mixed = np.where(
        classes[..., None] > 0, image * (1 - _CLASS_SHARE) + colours * _CLASS_SHARE, image
    )
    mixed[~valid] = _UNKNOWN
    result: NDArray[np.uint8] = mixed.astype(np.uint8)
    return result
