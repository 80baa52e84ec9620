"""The key of a picture: what its colours stand for."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from rooftrace.io.legend import Colour

__all__ = ["draw_key"]

_ROW_PX = 22
_SWATCH_PX = 14
_MARGIN_PX = 10
_GAP_PX = 20
"""Between one entry and the next."""


def draw_key(
    entries: Sequence[tuple[str, Colour | None]], width_px: int, *, paper: Colour, ink: Colour
) -> Image.Image:
    """Swatches with their texts, in as many rows as they need.

    Args:
        entries: text and colour of each, from left to right; without a colour the swatch is
            empty. A text that is wider than the picture is cut.
        width_px: of the picture.
        paper, ink: colours of the ground and of the text.
    """
    font = ImageFont.load_default(size=14)
    before_px = _SWATCH_PX + 6
    rows: list[list[tuple[float, str, Colour | None]]] = [[]]
    left = float(_MARGIN_PX)
    for text, colour in entries:
        needed_px = before_px + font.getlength(text)
        if rows[-1] and left + needed_px > width_px - _MARGIN_PX:
            rows.append([])
            left = float(_MARGIN_PX)
        rows[-1].append((left, text, colour))
        left += needed_px + _GAP_PX
    page = Image.new("RGB", (width_px, _ROW_PX * len(rows) + 6), paper)
    draw = ImageDraw.Draw(page)
    for number, row in enumerate(rows):
        middle = 3 + number * _ROW_PX + _ROW_PX // 2
        for start, text, colour in row:
            top, below = middle - _SWATCH_PX // 2, middle + _SWATCH_PX // 2
            draw.rectangle((start, top, start + _SWATCH_PX, below), fill=colour, outline=ink)
            draw.text((start + before_px, middle), text, fill=ink, font=font, anchor="lm")
    return page
