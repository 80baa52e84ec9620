"""A confusion matrix for people: as a table of text, and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rooftrace.metrics.pixel import PixelCounts

__all__ = ["confusion_csv", "draw_confusion"]

_INK = (30, 30, 30)
_FAINT = (150, 150, 150)
_LOW, _HIGH = np.array((255, 255, 255)), np.array((8, 48, 107))
_NOTHING = (235, 235, 235)
"""Rows of classes that the truth does not have."""

_LARGEST_CELL_PX = 64
_SMALLEST_CELL_PX = 12
_MATRIX_PX = 960
_READABLE_CELL_PX = 26
_LONGEST_NAME = 22
_MARGIN_PX = 12


def confusion_csv(counts: PixelCounts, classes: Sequence[str]) -> str:
    """Pixels of each true class (row) by what was predicted (column), with the names of both."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["truth / prediction", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts.matrix.tolist()))
    return text.getvalue()


def draw_confusion(counts: PixelCounts, classes: Sequence[str]) -> Image.Image:
    """The matrix as a picture: of each true class (row), the share that was predicted as each.

    The darker a cell, the larger its share; figures are percent. At the right are the shares that
    the true classes have of all pixels.

    Args:
        counts: of the pixels.
        classes: names, by class index.
    """
    cell = min(_LARGEST_CELL_PX, max(_SMALLEST_CELL_PX, _MATRIX_PX // len(classes)))
    font = ImageFont.load_default(size=min(15, max(10, cell // 3)))
    names = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
             for name in classes]  # fmt: skip
    labels_px = round(max(font.getlength(name) for name in names)) + 2 * _MARGIN_PX
    title = "Share of each true class (row) that was predicted as (column), %"
    title_font = ImageFont.load_default(size=15)
    left, top = labels_px, labels_px + 2 * _MARGIN_PX + 15
    side = cell * len(classes)
    support = counts.matrix.sum(axis=1)
    width = max(left + side + 90, round(title_font.getlength(title)) + 2 * _MARGIN_PX)
    page = Image.new("RGB", (width, top + side + _MARGIN_PX), "white")
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN_PX, _MARGIN_PX), title, fill=_INK, font=title_font)
    draw.text((left + side + 10, top - 8), "of all", fill=_FAINT, font=font, anchor="lb")
    shares = counts.matrix / np.maximum(support, 1)[:, None]
    for row, name in enumerate(names):
        y = top + row * cell
        middle = y + cell // 2
        draw.text((left - 8, middle), name, fill=_INK, font=font, anchor="rm")
        above = _upright(name, font)
        page.paste(above, (left + row * cell + (cell - above.width) // 2, top - above.height))
        of_all = support[row] / max(counts.pixels, 1)
        draw.text((left + side + 10, middle), f"{of_all:.2%}", fill=_FAINT, font=font, anchor="lm")
        for col in range(len(names)):
            box = (left + col * cell, y, left + (col + 1) * cell, y + cell)
            _cell(draw, box, shares[row, col] if support[row] else None, font)
    for index in range(len(names)):
        low = left + index * cell, top + index * cell
        draw.rectangle((*low, low[0] + cell, low[1] + cell), outline=_INK)
    return page


def _cell(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    share: float | None,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    if share is None:
        draw.rectangle(box, fill=_NOTHING, outline=(215, 215, 215))
        return
    colour: NDArray[np.float64] = _LOW + (_HIGH - _LOW) * share**0.7
    red, green, blue = colour.round().astype(int).tolist()
    draw.rectangle(box, fill=(red, green, blue), outline=(215, 215, 215))
    if share < 0.0005 or box[2] - box[0] < _READABLE_CELL_PX:
        return
    text = f"{share:.0%}"[:-1] if share >= 0.0995 else f"{share:.1%}"[:-1]
    ink = "white" if share > 0.45 else _INK
    draw.text(
        ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), text, fill=ink, font=font, anchor="mm"
    )


def _upright(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """A text that runs from below to above, 18 pixels wide."""
    length = round(font.getlength(text))
    line = Image.new("RGB", (length + 16, 18), "white")
    ImageDraw.Draw(line).text((8, 9), text, fill=_INK, font=font, anchor="lm")
    return line.rotate(90, expand=True)
