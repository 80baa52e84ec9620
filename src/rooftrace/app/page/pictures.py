"""Layers of the page's viewer: the image, the fill and the outlines."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from rooftrace.io.masks import NODATA
from rooftrace.predict.result import Prediction
from rooftrace.predict.scores import KeptScores

__all__ = [
    "LOW_SCORE",
    "RAMP",
    "fill_png",
    "outline_colours",
    "outlines",
    "picture_jpeg",
    "ramp_colour",
    "thumbnail",
]

RAMP = ("#f03b20", "#feb24c", "#ffffb2", "#41b6e4", "#2166ff")
"""Colours of the confidence from `LOW_SCORE` to 1: red to blue, distinct for dichromats too."""

LOW_SCORE = 0.3
_BINS = 32
_PER_PX = 16
_THUMB_PX = 240
_JPEG_QUALITY = 92


def picture_jpeg(scores: KeptScores) -> bytes:
    """Return the image as JPEG, at the size of `KeptScores.picture`."""
    return _encoded(".jpg", scores.picture[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)


def fill_png(scores: KeptScores, prediction: Prediction) -> bytes:
    """Return the fill of the picture as PNG, at the same size.

    For two classes it is the probability as grey, 0 for nodata; the browser applies the threshold.
    For more classes it has their colours; background and nodata are transparent.
    """
    mask = prediction.mask.data[:: scores.step, :: scores.step]
    if prediction.summary.threshold is not None:
        known = prediction.mask.valid[:: scores.step, :: scores.step]
        return _encoded(".png", np.where(known, scores.score, 0), cv2.IMWRITE_PNG_COMPRESSION, 1)
    table = prediction.legend.table.copy()
    table[0, 3] = table[NODATA, 3] = 0
    return _encoded(".png", table[mask][..., [2, 1, 0, 3]], cv2.IMWRITE_PNG_COMPRESSION, 1)


def outlines(scores: KeptScores, prediction: Prediction) -> bytes:
    """Return the rings of all outlines, with holes, which the browser draws at any size.

    Returns:
        Little-endian: uint32 n; (n,) uint32 number of points of each ring; (points, 2) int16 x and
        y in 16ths of the picture's pixels; (n,) uint8 index of each ring in `outline_colours`.
    """
    found = prediction.outlines
    if not len(found):
        return np.zeros(1, "<u4").tobytes()
    _, xy, (ring_ends, polygon_ends) = shapely.to_ragged_array(np.asarray(found.geometry))
    lengths = np.diff(ring_ends)
    colour = np.repeat(_colours_of(prediction), np.diff(polygon_ends)).astype(np.uint8)
    grid = prediction.mask.grid
    to_pixel = ~grid.transform if grid.crs is not None else Affine.identity()
    t = Affine.scale(1 / scores.step) @ to_pixel
    x = t.a * xy[:, 0] + t.b * xy[:, 1] + t.c
    y = t.d * xy[:, 0] + t.e * xy[:, 1] + t.f
    points = np.rint(np.stack([x, y], axis=1) * _PER_PX).astype("<i2")
    count = np.array([len(lengths)], "<u4")
    return b"".join(one.tobytes() for one in (count, lengths.astype("<u4"), points, colour))


def outline_colours(prediction: Prediction) -> list[str]:
    """Return the `#RRGGBB` colours of `outlines`: by confidence, or by class if there are
    several.
    """
    if prediction.summary.threshold is None:
        table = [prediction.legend.rgb(index) for index in range(len(prediction.legend.names))]
    else:
        table = [ramp_colour(number / (_BINS - 1)) for number in range(_BINS)]
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in table]


def _colours_of(prediction: Prediction) -> NDArray[np.int64]:
    """Return (n,) index of each outline in `outline_colours`; unknown scores count as the
    lowest.
    """
    found = prediction.outlines
    if prediction.summary.threshold is None:
        assert found.class_id is not None
        return found.class_id.astype(np.int64)
    along = (np.nan_to_num(found.score).astype(np.float64) - LOW_SCORE) / (1 - LOW_SCORE)
    return np.asarray(np.rint(along.clip(0, 1) * (_BINS - 1)), dtype=np.int64)


def ramp_colour(at: float) -> tuple[int, int, int]:
    """Return red, green and blue at a position of 0 to 1 on the ramp."""
    stops = np.array([list(bytes.fromhex(text[1:])) for text in RAMP], dtype=np.float64)
    place = np.linspace(0, 1, len(stops))
    red, green, blue = (round(float(np.interp(at, place, stops[:, band]))) for band in range(3))
    return red, green, blue


def thumbnail(scores: KeptScores, prediction: Prediction) -> NDArray[np.uint8]:
    """Return a (y, x, 3) thumbnail of the image with its buildings, for the gallery."""
    picture = scores.picture
    if prediction.result.preview is not None:
        drawn = np.asarray(prediction.result.preview)
        height, width = picture.shape[:2]
        left = (drawn.shape[1] - width) // 2
        picture = drawn[:height, left : left + width]
    scale = _THUMB_PX / max(picture.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(picture)
    size = tuple(max(1, round(length * scale)) for length in (picture.shape[1], picture.shape[0]))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _encoded(suffix: str, picture: NDArray[Any], option: int, value: int) -> bytes:
    done, data = cv2.imencode(suffix, picture, [option, value])
    assert done
    return bytes(data)
