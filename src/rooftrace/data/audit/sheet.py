"""Small pictures of scenes with their labels drawn in, and which scenes are worth one."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import RasterSource, Scene, Window
from rooftrace.data.audit.facts import SceneFacts
from rooftrace.io.display import as_rgb
from rooftrace.io.legend import class_colours

__all__ = ["Choice", "choose", "picture"]

SIDE_PX = 232
_LARGEST_READ_PX = 1536
_TINT = 0.42
_OUTLINE = (255, 214, 10)
_NODATA = np.array([[[92, 92, 98]], [[74, 74, 80]]], dtype=np.uint8)
_QUALITY = 82


@dataclass(frozen=True)
class Choice:
    """One scene on a contact sheet: why it is there."""

    id: str
    reason: str


def choose(
    facts: Sequence[SceneFacts], building_class: int, count: int
) -> dict[str, tuple[Choice, ...]]:
    """The strangest, emptiest and fullest scenes, and some from the middle; `count` of each.

    Strange is what lies farthest from the median of the set in one of brightness, contrast,
    saturation, sharpness, colour or valid share, in units of the median absolute deviation.
    """
    read = [f for f in facts if not f.image_error]
    shares = {f.id: share for f in read if (share := f.built_up(building_class)) is not None}
    by_share = sorted(shares, key=lambda i: (shares[i], i))
    empty = [i for i in by_share if shares[i] == 0] or by_share[:count]
    fullest = [i for i in by_share[::-1] if shares[i] > 0][:count]
    middle = [i for i in by_share if shares[i] > 0]

    def told(ids: Sequence[str]) -> tuple[Choice, ...]:
        return tuple(Choice(i, f"{shares[i]:.1%} built up") for i in ids)

    sheets = {
        "strangest": _strangest(read, count),
        "emptiest": told(_spread(empty, count)),
        "fullest": told(fullest),
        "typical": told(_spread(middle or by_share, count)),
    }
    if not shares:
        sheets["typical"] = tuple(Choice(i, "") for i in _spread([f.id for f in read], count))
    return {name: choices for name, choices in sheets.items() if choices}


def _spread(ids: Sequence[str], count: int) -> list[str]:
    if len(ids) <= count:
        return list(ids)
    places = np.linspace(0, len(ids) - 1, count + 2).round().astype(int)[1:-1]
    return [ids[i] for i in places]


def _strangest(read: Sequence[SceneFacts], count: int) -> tuple[Choice, ...]:
    if len(read) < 3:
        return ()
    names = ("brightness", "contrast", "saturation", "sharpness", "valid share")
    values = np.array(
        [[f.brightness, f.contrast, f.saturation, f.sharpness, f.valid_share] for f in read]
    )
    compared = values.copy()
    # Sharpness differs by factors, the others by sums.
    compared[:, 3] = np.log2(values[:, 3] + 0.01)
    away = compared - np.median(compared, axis=0)
    # Where most are alike any difference would be infinitely strange.
    away /= np.maximum(np.median(np.abs(away), axis=0), (0.01, 0.01, 0.01, 0.1, 0.02))
    worst = np.abs(away).argmax(axis=1)
    order = np.argsort(-np.abs(away).max(axis=1), kind="stable")[:count]
    usual = np.median(values, axis=0)
    found = []
    for index in order:
        feature = int(worst[index])
        if abs(away[index, feature]) < 3:
            break
        side = "low" if away[index, feature] < 0 else "high"
        value = values[index, feature]
        reason = f"{side} {names[feature]}: {value:.2f}, usual {usual[feature]:.2f}"
        found.append(Choice(read[index].id, reason))
    return tuple(found)


def picture(scene: Scene, building_class: int, *, labelled: bool = True) -> str:
    """A JPEG of a scene as a `data:` address, its building class outlined, other classes tinted.

    Of a large scene a part in the middle is shown; nodata is drawn as grey stripes. A scene that
    cannot be read gives an empty string, a label that cannot is left out: that is said elsewhere.
    """
    try:
        window = _part(scene.image)
        raster = scene.image.read(window)
    except RooftraceError:
        return ""
    mask = None
    if scene.label is not None and labelled:
        with suppress(RooftraceError):
            mask = scene.label.read(window)
    shown = as_rgb(raster.data, raster.valid)
    scale = SIDE_PX / max(shown.shape[:2])
    size = [max(1, round(side * scale)) for side in shown.shape[1::-1]]
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small: NDArray[np.uint8] = np.asarray(cv2.resize(shown, size, interpolation=way), np.uint8)
    valid = cv2.resize(raster.valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    stripes = np.broadcast_to(
        _NODATA[(np.add.outer(np.arange(size[1]), np.arange(size[0])) // 4) % 2, 0], small.shape
    )
    small = np.where(valid[..., None], small, stripes)
    if mask is not None:
        drawn = cv2.resize(mask.data, size, interpolation=cv2.INTER_NEAREST)
        classes = np.asarray(drawn, dtype=np.uint8)
        _draw_label(small, classes, building_class)
    # Colour at full resolution: outlines are one pixel wide.
    full = cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, *full]
    encoded = cv2.imencode(".jpg", small[..., ::-1], options)[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _part(image: RasterSource) -> Window:
    height, width = image.grid.shape
    rows, cols = min(height, _LARGEST_READ_PX), min(width, _LARGEST_READ_PX)
    return Window((height - rows) // 2, (width - cols) // 2, rows, cols)


def _draw_label(
    picture: NDArray[np.uint8], classes: NDArray[np.uint8], building_class: int
) -> None:
    """Tints every class but the background, in place, and outlines the buildings."""
    drawn = classes > 0
    colours = class_colours()[classes][..., :3]
    mixed = picture * (1 - _TINT) + colours * _TINT
    picture[drawn] = mixed[drawn].astype(np.uint8)
    found, _ = cv2.findContours(
        (classes == building_class).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(picture, found, -1, _OUTLINE, 1)
