"""The layers of the viewer: the image, what fills it, and the outlines, as files of a picture."""

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

__all__ = ["LOW_SCORE", "RAMP", "fill_png", "outlines_png", "picture_jpeg", "thumbnail"]

RAMP = ("#f03b20", "#feb24c", "#ffffb2", "#41b6e4", "#2166ff")
"""Of the confidence, from `LOW_SCORE` to 1: red to blue, which dichromats tell apart, too."""

LOW_SCORE = 0.3
_BINS = 32
_SHIFT = 4
_THUMB_PX = 240
_JPEG_QUALITY = 92


def picture_jpeg(scores: KeptScores) -> bytes:
    """The image as a screen shows it, at the size of `KeptScores.picture`."""
    return _encoded(".jpg", scores.picture[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)


def fill_png(scores: KeptScores, prediction: Prediction) -> bytes:
    """What the picture is filled with, at the same size.

    Of two classes the probability as grey, 0 where there is nodata, for the browser to decide by
    any threshold; of more the colours of the classes, transparent in the background and nodata.
    """
    mask = prediction.mask.data[:: scores.step, :: scores.step]
    if prediction.summary.threshold is not None:
        known = prediction.mask.valid[:: scores.step, :: scores.step]
        return _encoded(".png", np.where(known, scores.score, 0), cv2.IMWRITE_PNG_COMPRESSION, 1)
    table = prediction.legend.table.copy()
    table[0, 3] = table[NODATA, 3] = 0
    return _encoded(".png", table[mask][..., [2, 1, 0, 3]], cv2.IMWRITE_PNG_COMPRESSION, 1)


def outlines_png(scores: KeptScores, prediction: Prediction) -> bytes:
    """The outlines on nothing, coloured by confidence, or by class where there are several."""
    height, width = scores.score.shape
    colours = np.zeros((height, width, 3), dtype=np.uint8)
    outlines = prediction.outlines
    alone = prediction.summary.threshold is not None
    rings = _rings(prediction, scores.step, (height, width))
    if alone:
        which = _bins(outlines.score)
        table = [ramp_colour(number / (_BINS - 1)) for number in range(_BINS)]
    else:
        assert outlines.class_id is not None
        which = outlines.class_id.astype(np.int64)
        table = [prediction.legend.rgb(index) for index in range(len(prediction.legend.names))]
    share = np.zeros((height, width), dtype=np.uint8)
    thickness = 2 if max(height, width) > _THIN_BELOW_PX else 1
    for number in np.unique(which).tolist():
        chosen = [rings[at] for at in np.flatnonzero(which == number)]
        red, green, blue = table[number]
        # Wider than what is seen of it, so that edges that are seen in part have its colour.
        cv2.polylines(colours, chosen, True, (blue, green, red), thickness + 2, cv2.LINE_8, _SHIFT)
        cv2.polylines(share, chosen, True, 255, thickness, cv2.LINE_AA, _SHIFT)
    return _encoded(".png", np.dstack([colours, share]), cv2.IMWRITE_PNG_COMPRESSION, 1)


_THIN_BELOW_PX = 400


def ramp_colour(at: float) -> tuple[int, int, int]:
    """Red, green and blue of a place on the ramp, 0..1."""
    stops = np.array([list(bytes.fromhex(text[1:])) for text in RAMP], dtype=np.float64)
    place = np.linspace(0, 1, len(stops))
    red, green, blue = (round(float(np.interp(at, place, stops[:, band]))) for band in range(3))
    return red, green, blue


def thumbnail(scores: KeptScores, prediction: Prediction) -> NDArray[np.uint8]:
    """(y, x, 3) of the image with its buildings, for a gallery."""
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


def _bins(score: NDArray[np.float32]) -> NDArray[np.int64]:
    """Of the ramp, by score; what is not known is lowest."""
    along = (np.nan_to_num(score).astype(np.float64) - LOW_SCORE) / (1 - LOW_SCORE)
    return np.asarray(np.rint(along.clip(0, 1) * (_BINS - 1)), dtype=np.int64)


def _rings(prediction: Prediction, step: int, shape_yx: tuple[int, int]) -> list[NDArray[np.int32]]:
    """The outer ring of each outline in the picture, fixed point with `_SHIFT` bits."""
    outlines, grid = prediction.outlines, prediction.mask.grid
    to_pixel = ~grid.transform if grid.crs is not None else Affine.identity()
    t = Affine.scale(1 / step) @ to_pixel
    outer = shapely.get_exterior_ring(np.asarray(outlines.geometry))
    xy, which = shapely.get_coordinates(outer, return_index=True)
    x = t.a * xy[:, 0] + t.b * xy[:, 1] + t.c
    y = t.d * xy[:, 0] + t.e * xy[:, 1] + t.f
    # OpenCV counts from the centre of the first pixel, outlines from its corner.
    # What runs along the image's edge would be half outside.
    inside = np.stack([x, y], axis=1).clip(1, (shape_yx[1] - 1, shape_yx[0] - 1))
    points = np.rint((inside - 0.5) * (1 << _SHIFT)).astype(np.int32)
    starts = np.searchsorted(which, np.arange(1, len(outer)))
    return np.split(points, starts) if len(outer) else []


def _encoded(suffix: str, picture: NDArray[Any], option: int, value: int) -> bytes:
    done, data = cv2.imencode(suffix, picture, [option, value])
    assert done
    return bytes(data)
