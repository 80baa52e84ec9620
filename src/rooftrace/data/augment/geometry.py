"""Where a sample is cut out: ONE affine map (crop, scale, rotation, shear and flip together), so
that pixels are interpolated once; image, target and validity go through the same map.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Sample, Window
from rooftrace.data.augment.config import AugmentConfig, chance

__all__ = ["crop_transform", "log_uniform", "on_pictures", "warp", "window_under"]

T = TypeVar("T", bound=np.generic)


def crop_transform(
    centre_yx: tuple[float, float],
    scale: float,
    crop_px: int,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """The affine map (2, 3) from pixels (x, y) of a crop to pixels (x, y) of its scene.

    Args:
        centre_yx: in the scene, counted from the centre of its first pixel, what comes to the
            middle of the crop.
        scale: scene pixels per crop pixel; the square root of the map's determinant.
        crop_px: side of the crop.
    """
    angle = rng.integers(4) * np.pi / 2 if chance(rng, config.rotate_90) else 0.0
    if config.rotate_deg and chance(rng, config.rotate_p):
        angle += np.radians(rng.uniform(-config.rotate_deg, config.rotate_deg))
    across, down = (
        -1.0 if chance(rng, share) else 1.0
        for share in (config.flip_horizontal, config.flip_vertical)
    )
    if config.ratio_range is not None and chance(rng, config.ratio_p):
        stretch = math.sqrt(log_uniform(rng, *config.ratio_range))
        across, down = across * stretch, down / stretch
    shear = 0.0
    if config.shear_deg and chance(rng, config.shear_p):
        shear = np.tan(np.radians(rng.uniform(-config.shear_deg, config.shear_deg)))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turned = np.array([[cos, -sin], [sin, cos]])
    linear = turned @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag([across, down])
    middle = np.full(2, (crop_px - 1) / 2)
    centre = np.array([centre_yx[1], centre_yx[0]])
    return np.column_stack([linear, centre - linear @ middle])


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Between two positive limits, each factor alike."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def window_under(to_scene: NDArray[np.float64], crop_px: int) -> Window:
    """What `warp` needs to see of a scene; may leave the scene."""
    sides = (-0.5, crop_px - 0.5)
    corners = np.array([to_scene[:, :2] @ xy + to_scene[:, 2] for xy in product(sides, sides)])
    # Two neighbours, of which one stands in for the other where that is nodata; of blocks, where
    # pixels are averaged first.
    margin = 2 * max(1, _blocks(to_scene))
    col, row = np.floor(corners.min(axis=0)).astype(int) - margin
    col_stop, row_stop = np.ceil(corners.max(axis=0)).astype(int) + margin + 1
    return Window(int(row), int(col), int(row_stop - row), int(col_stop - col))


def warp(sample: Sample, to_scene: NDArray[np.float64], crop_px: int) -> Sample:
    """Cut a square crop out of a scene through an affine map of `crop_transform`.

    Pixels outside the scene, and nodata, become invalid with the value 0; their values take no part
    in those of their neighbours. Where the crop is much coarser than the scene, the scene is
    averaged first, so that nothing aliases.
    """
    factor = _blocks(to_scene)
    image, target, valid = sample.image, sample.target, sample.valid
    instances = sample.instances
    if factor >= 2:
        instances = None if instances is None else _middles(instances, factor)
        image, target, valid = _shrink(image, target, valid, factor)
        # A pixel of the averaged scene has its centre (factor - 1) / 2 inside its block.
        to_scene = to_scene.copy()
        to_scene[:, 2] -= (factor - 1) / 2
        to_scene /= factor
    whole = bool(valid.all())
    if not whole:
        image = _with_edge(image, valid)
    size = (crop_px, crop_px)
    nearest = cv2.WARP_INVERSE_MAP | cv2.INTER_NEAREST
    if whole and _within(to_scene, crop_px, valid.shape):
        seen = np.ones(size, dtype=bool)
    else:
        seen = cv2.warpAffine(valid.astype(np.uint8), to_scene, size, flags=nearest).astype(bool)
    labels = cv2.warpAffine(target, to_scene, size, flags=nearest).astype(np.uint8, copy=False)

    def cut(picture: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = cv2.warpAffine(
            picture,
            to_scene,
            size,
            flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR,
            # The outermost half pixel is of the scene; it must not fade into what is not there.
            borderMode=cv2.BORDER_REPLICATE,
        )
        return found

    pixels = on_pictures(image, cut)
    if not seen.all():
        pixels = np.where(seen, pixels, 0)
        labels[~seen] = 0
    if instances is None:
        return Sample(pixels, labels, seen)
    # OpenCV rounds whole numbers of four bytes to another pixel than it does bytes and floats.
    numbers = cv2.warpAffine(instances.astype(np.float32), to_scene, size, flags=nearest).astype(
        np.int32
    )
    numbers[~seen] = 0
    return Sample(pixels, labels, seen, numbers)


def on_pictures(
    image: NDArray[Any], change: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[Any]:
    """What an OpenCV function makes of (band, y, x), which it takes as (y, x, band) and by four
    bands at most: as (y, x) where it is one.
    """
    # Interleaved by OpenCV: NumPy takes five times as long.
    parts = [cv2.merge(list(image[first : first + 4])) for first in range(0, len(image), 4)]
    return np.stack([band for part in parts for band in cv2.split(change(part))])


def _within(to_scene: NDArray[np.float64], crop_px: int, shape_yx: tuple[int, ...]) -> bool:
    """Whether every pixel of a crop has its nearest pixel in the scene."""
    corners = np.array(list(product((0, crop_px - 1), repeat=2))) @ to_scene[:, :2].T
    corners += to_scene[:, 2]
    last = np.array(shape_yx[::-1]) - 1
    return bool((corners >= 0).all() and (corners <= last).all())


def _blocks(to_scene: NDArray[np.float64]) -> int:
    """Side of the blocks of scene pixels that are averaged to one; 0 or 1 where none are."""
    scale = float(np.sqrt(abs(np.linalg.det(to_scene[:, :2]))))
    return int(scale + 1e-6)  # a determinant of 16 comes out as 15.999…


def _shrink(
    image: NDArray[Any], target: NDArray[np.uint8], valid: NDArray[np.bool_], factor: int
) -> tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.bool_]]:
    height, width = (side // factor for side in valid.shape)
    if height == 0 or width == 0:
        return image[:, :1, :1], _middles(target, factor), _middles(valid, factor)
    rows, cols = height * factor, width * factor

    def mean(picture: NDArray[Any]) -> NDArray[Any]:
        averaged: NDArray[Any] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        return averaged

    if valid[:rows, :cols].all():
        shrunk = on_pictures(image[:, :rows, :cols], mean)
    else:
        known = valid[:rows, :cols].astype(np.float32)
        share = np.maximum(mean(known), np.float32(1e-6))
        means = on_pictures(image[:, :rows, :cols] * known, mean) / share
        shrunk = _as_dtype(means, image.dtype)
    return shrunk, _middles(target, factor), _middles(valid, factor)


def _middles(values: NDArray[T], factor: int) -> NDArray[T]:
    """(y, x) the pixel in the middle of each block that `_shrink` averages."""
    if min(values.shape) < factor:
        return values[:1, :1]
    rows, cols = (side // factor * factor for side in values.shape)
    half = factor // 2
    return np.ascontiguousarray(values[half:rows:factor, half:cols:factor])


def _with_edge(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Invalid pixels beside valid ones take the mean of these, which interpolation will see."""
    grown = cv2.dilate(valid.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    rows, cols = np.nonzero(grown & ~valid)
    if not len(rows):
        return image
    total = np.zeros((len(image), len(rows)), dtype=np.float64)
    count = np.zeros(len(rows), dtype=np.int64)
    for down, along in product((-1, 0, 1), (-1, 0, 1)):
        beside = (
            (rows + down).clip(0, valid.shape[0] - 1),
            (cols + along).clip(0, valid.shape[1] - 1),
        )
        known = valid[beside]
        total += np.where(known, image[:, *beside], 0)
        count += known
    filled = image.copy()
    filled[:, rows, cols] = _as_dtype(total / count, image.dtype)
    return filled


def _as_dtype(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Rounded where the dtype is of whole numbers; means never leave its range."""
    return (np.rint(values) if dtype.kind in "ui" else values).astype(dtype)
