"""Pictures for a person to see in which order the runs of a table were written."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rooftrace.core.types import BoolArray, Scene, Window
from rooftrace.data.runs import Bounds, Order, draw_runs

__all__ = ["write_pictures"]

_ORDERS: tuple[Order, ...] = ("row", "column")
_MOST = 4
_SIDE_PX = 512
_LARGEST_PX = 2048
_GAP_PX = 8
_COLOUR = np.array([255, 0, 255], dtype=np.uint8)
"""Magenta, which no roof and no meadow is."""


def write_pictures(scenes: Sequence[tuple[Scene, Bounds]]) -> dict[Order, Path]:
    """A few scenes side by side under their masks, once for each order.

    They are written to a new folder among the system's temporary files: where the data lies may
    not be written to, and belongs to the person.

    Args:
        scenes: with their runs; those whose mask is another in the other order are shown before
            the rest, a few in all.
    """
    folder = Path(tempfile.mkdtemp(prefix="rooftrace-order-"))
    strips: dict[Order, list[NDArray[np.uint8]]] = {order: [] for order in _ORDERS}
    for scene, bounds in sorted(scenes, key=_is_symmetric)[:_MOST]:
        window = _middle(scene.image.grid.shape)
        picture = _to_rgb(scene.image.read(window).data)
        for order, strip in strips.items():
            mask = draw_runs(bounds, scene.image.grid.shape, order, window)
            strip.append(_overlay(picture, mask))
    paths: dict[Order, Path] = {order: folder / f"{order}.png" for order in strips}
    for order, strip in strips.items():
        Image.fromarray(_side_by_side(strip)).save(paths[order])
    return paths


def _is_symmetric(pair: tuple[Scene, Bounds]) -> bool:
    scene, bounds = pair
    shape_yx = scene.image.grid.shape
    row, column = (draw_runs(bounds, shape_yx, order, _middle(shape_yx)) for order in _ORDERS)
    return np.array_equal(row, column)


def _middle(shape_yx: tuple[int, int]) -> Window:
    height, width = (min(side, _LARGEST_PX) for side in shape_yx)
    return Window((shape_yx[0] - height) // 2, (shape_yx[1] - width) // 2, height, width)


def _to_rgb(data: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(band, y, x) of any type to (y, x, 3)."""
    colours = np.moveaxis(data[[0, 1, 2]] if len(data) >= 3 else data[[0, 0, 0]], 0, -1)
    if colours.dtype == np.uint8:
        return np.ascontiguousarray(colours, dtype=np.uint8)
    values = np.nan_to_num(colours.astype(np.float32))
    low, high = np.percentile(values, (1, 99))
    scaled = (values - low) / max(float(high - low), 1e-9)
    return np.asarray(scaled.clip(0, 1) * 255, dtype=np.uint8)


def _overlay(picture: NDArray[np.uint8], mask: BoolArray) -> NDArray[np.uint8]:
    """The picture with the mask tinted and outlined, its longer side `_SIDE_PX`."""
    scale = _SIDE_PX / max(mask.shape)
    size = max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale))
    shown = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    outline = (inside != cv2.erode(inside, np.ones((3, 3), np.uint8))) & (inside > 0)
    tinted = np.where(inside[..., None] > 0, shown * 0.7 + _COLOUR * 0.3, shown)
    tinted[outline] = _COLOUR
    return np.asarray(tinted, dtype=np.uint8)


def _side_by_side(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    height = max((len(picture) for picture in pictures), default=1)
    width = sum(picture.shape[1] + _GAP_PX for picture in pictures)
    strip = np.full((height, max(width, 1), 3), 255, dtype=np.uint8)
    left = 0
    for picture in pictures:
        strip[: len(picture), left : left + picture.shape[1]] = picture
        left += picture.shape[1] + _GAP_PX
    return strip
