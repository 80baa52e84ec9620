"""A map of built-up shares that one can look at: classes of colour, a key, a scale, north up."""

from __future__ import annotations

from itertools import pairwise
from math import ceil

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rooftrace.core.density import DensityFigures
from rooftrace.core.types import DensityGrid
from rooftrace.io.display import round_length
from rooftrace.vector.density_threshold import DensityThreshold

__all__ = ["BREAKS", "draw_cells", "draw_zones"]

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]

BREAKS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)
"""Built-up shares at which a new class of colour begins; the first begins above 0."""

# Viridis (Smith & van der Walt 2015): its lightness rises evenly, for dichromats and in grey too.
# Seven colours at even steps.
_VIRIDIS = "44015444398331688e21918c35b77990d743fde725"
_NOTHING = (74, 74, 80)
"""Observed, and without a building."""

_PAPER, _INK, _FAINT = (24, 24, 28), (240, 240, 240), (170, 170, 176)
_BORDER = (255, 255, 255)
_LARGEST_PX, _NARROWEST_PX = 1200, 560
_LARGEST_CELL_PX = 64
_MARGIN_PX, _HEAD_PX, _ROW_PX, _SWATCH_PX = 14, 62, 24, 16
_SHIFT = 4


def draw_cells(density: DensityGrid, threshold: DensityThreshold, title: str) -> Image.Image:
    """The picture of a grid.

    A grid of more cells than the picture has pixels is drawn in larger cells, as its title says.

    Args:
        threshold: cells that are dense by it are bordered.
        title: what the scene is called.
    """
    together = ceil(max(density.grid.shape) / _LARGEST_PX)
    share = _coarser(density.figures, together)
    px = max(1, min(_LARGEST_PX // max(share.shape), _LARGEST_CELL_PX))
    picture = np.repeat(np.repeat(_coloured(share), px, axis=0), px, axis=1)
    _border(picture, np.nan_to_num(share, nan=-1.0) >= threshold.threshold, px)
    told = f"built-up share in cells of {density.cell_m * together:g} m"
    metres = density.cell_m * together / px
    return _page(picture, title, told, threshold, metres, north=density.grid.crs is not None)


def draw_zones(
    geometry: NDArray[np.object_],
    figures: DensityFigures,
    threshold: DensityThreshold,
    title: str,
) -> Image.Image:
    """The picture of zones; where they overlap, the smaller ones lie on top.

    Args:
        geometry: (n,) polygons and multipolygons on a plane in metres, y northwards.
        figures: (n,)
        threshold, title: as in `draw_cells`; zones that are dense have a wide border.
    """
    left, bottom, right, top = shapely.total_bounds(geometry)
    metres = max(right - left, top - bottom) / _LARGEST_PX
    shape = ceil((top - bottom) / metres) + 2, ceil((right - left) / metres) + 2
    picture: Picture = np.full((*shape, 3), _PAPER, np.uint8)
    share = figures.built_up_share
    colours = _coloured(share)
    for zone in np.argsort(-shapely.area(geometry), kind="stable"):
        dense = bool(share[zone] >= threshold.threshold)
        for part in shapely.get_parts(geometry[zone]):
            rings = [
                _points(shapely.get_coordinates(ring), left, top, metres)
                for ring in shapely.get_rings(part)
            ]
            # The rings of a polygon in one call: what lies in two of them is a hole.
            cv2.fillPoly(picture, rings, colours[zone].tolist(), cv2.LINE_AA, _SHIFT)
            cv2.polylines(picture, rings, True, _BORDER, 2 if dense else 1, cv2.LINE_AA, _SHIFT)
    return _page(picture, title, "built-up share by zone", threshold, metres, north=True)


def _coarser(figures: DensityFigures, together: int) -> Floats:
    """Built-up shares of squares of several cells."""
    if together == 1:
        return figures.built_up_share
    rows, cols = (np.arange(0, n, together) for n in figures.area_m2.shape)
    built, observed = (
        np.add.reduceat(np.add.reduceat(values, rows, axis=0), cols, axis=1)
        for values in (figures.built_m2, figures.observed_m2)
    )
    share = np.full(built.shape, np.nan)
    np.divide(built, observed, out=share, where=observed > 0)
    return np.asarray(np.minimum(share, 1.0))


def _coloured(share: Floats) -> Picture:
    """Shares of any shape to RGB along a last axis."""
    step = np.searchsorted(BREAKS, share, side="right")
    picture = _scale()[np.where(np.isnan(share), 0, step)]
    picture[share == 0] = _NOTHING
    picture[np.isnan(share)] = _PAPER
    return picture


def _scale() -> Picture:
    return np.frombuffer(bytes.fromhex(_VIRIDIS), np.uint8).reshape(-1, 3)


def _border(picture: Picture, dense: NDArray[np.bool_], px: int) -> None:
    """Lines between dense cells and others, where cells are wide enough to show them."""
    if px < 4:
        return
    padded = np.pad(dense, 1)
    width = 1 if px < 12 else 2
    for row, col in np.argwhere(padded[:-1, 1:-1] != padded[1:, 1:-1]):
        at = max(row * px - width // 2, 0)
        picture[at : at + width, col * px : (col + 1) * px] = _BORDER
    for row, col in np.argwhere(padded[1:-1, :-1] != padded[1:-1, 1:]):
        at = max(col * px - width // 2, 0)
        picture[row * px : (row + 1) * px, at : at + width] = _BORDER


def _points(xy: Floats, left: float, top: float, metres: float) -> NDArray[np.int32]:
    """Coordinates in the picture, fixed point with `_SHIFT` bits."""
    places = np.stack([xy[:, 0] - left, top - xy[:, 1]], axis=1) / metres + 0.5
    return np.rint(places * (1 << _SHIFT)).astype(np.int32)


def _page(
    picture: Picture,
    title: str,
    told: str,
    threshold: DensityThreshold,
    metres: float,
    *,
    north: bool,
) -> Image.Image:
    """The picture with its title above, its key and its scale below.

    Args:
        metres: to a pixel.
    """
    height, width = picture.shape[:2]
    page_width = max(width, _NARROWEST_PX) + 2 * _MARGIN_PX
    key = _key(threshold, page_width)
    page = Image.new("RGB", (page_width, _HEAD_PX + height + _ROW_PX + 12 + key.height), _PAPER)
    draw = ImageDraw.Draw(page)
    room = page_width - 2 * _MARGIN_PX - (40 if north else 0)
    draw.text((_MARGIN_PX, 10), _cut(title, 20, room), fill=_INK, font=_font(20))
    draw.text((_MARGIN_PX, 37), _cut(told, 14, room), fill=_FAINT, font=_font(14))
    if north:
        middle = page_width - _MARGIN_PX - 12
        draw.polygon([(middle, 8), (middle - 7, 26), (middle, 22), (middle + 7, 26)], fill=_INK)
        draw.text((middle, 28), "N", fill=_INK, font=_font(14), anchor="mt")
    left = (page_width - width) // 2
    page.paste(Image.fromarray(picture), (left, _HEAD_PX))
    draw.rectangle((left - 1, _HEAD_PX - 1, left + width, _HEAD_PX + height), outline=_FAINT)
    length_m = round_length(width * metres / 3)
    right, line = page_width - _MARGIN_PX, _HEAD_PX + height + _ROW_PX
    label = f"{length_m:g} m" if length_m < 1000 else f"{length_m / 1000:g} km"
    draw.line((right - length_m / metres, line, right, line), fill=_INK, width=3)
    draw.text(
        (right - length_m / metres / 2, line - 4), label, fill=_INK, font=_font(14), anchor="mb"
    )
    page.paste(key, (0, _HEAD_PX + height + _ROW_PX + 12))
    return page


def _key(threshold: DensityThreshold, width: int) -> Image.Image:
    """What the colours and the border stand for, in as many rows as it takes."""
    percent = [f"{share:.0%}" for share in BREAKS]
    texts = ["no building", f"up to {percent[0]}"]
    texts += [f"{low} to {high}" for low, high in pairwise(percent)]
    texts += [f"{percent[-1]} and more", "not observed"]
    texts += [f"{threshold.dense}: {threshold.threshold * 100:.3g}% and more"]
    fills = [_NOTHING, *(tuple(colour) for colour in _scale().tolist()), _PAPER, None]
    places, left, row = [], _MARGIN_PX, 0
    for text in texts:
        needed = _SWATCH_PX + 6 + _font(14).getlength(text)
        if left > _MARGIN_PX and left + needed > width - _MARGIN_PX:
            left, row = _MARGIN_PX, row + 1
        places.append((left, row))
        left += ceil(needed) + 18
    key = Image.new("RGB", (width, (row + 1) * _ROW_PX + 10), _PAPER)
    draw = ImageDraw.Draw(key)
    for text, fill, (start, line) in zip(texts, fills, places):
        middle = line * _ROW_PX + _ROW_PX // 2
        swatch = (start, middle - _SWATCH_PX // 2, start + _SWATCH_PX, middle + _SWATCH_PX // 2)
        draw.rectangle(
            swatch, fill=fill, outline=_FAINT if fill else _BORDER, width=1 if fill else 2
        )
        draw.text((start + _SWATCH_PX + 6, middle), text, fill=_INK, font=_font(14), anchor="lm")
    return key


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _cut(text: str, size: int, room_px: float) -> str:
    """What of a text there is room for."""
    font = _font(size)
    if font.getlength(text) <= room_px:
        return text
    while text and font.getlength(text + "…") > room_px:
        text = text[:-1]
    return text + "…"
