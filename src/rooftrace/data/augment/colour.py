"""What a sample looks like: light, colour, sensor. Target and validity are never touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.data.augment.config import AugmentConfig, chance
from rooftrace.data.augment.geometry import log_uniform, on_pictures

__all__ = ["change_colours"]

Pixels = NDArray[np.float32]

_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
"""From RGB to one brightness and two axes of colour (NTSC, FCC 1953); grey has none of these."""


def change_colours(
    image: NDArray[Any],
    valid: NDArray[np.bool_],
    full_scale: float,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> Pixels:
    """(band, y, x) pixel values to (band, y, x) float32, changed at random.

    The order is that of a camera: optics, light and colour, noise, compression. What is changed is
    cut to 0..full_scale; if `config` changes no colours the values come as they are. Invalid pixels
    become 0, and take no part in what becomes of the others.

    Args:
        image: any number of bands; hue and saturation change the first three, if there are three.
        valid: (y, x).
        full_scale: the value of the brightest pixel.
    """
    pixels: Pixels = image.astype(np.float32)
    if not config.changes_colours:
        return pixels * valid
    pixels /= np.float32(full_scale)
    whole = bool(valid.all())
    known = None if whole else valid.astype(np.float32)
    if chance(rng, config.blur):
        sigma = float(rng.uniform(0.3, config.blur_sigma_px))
        pixels = _smoothed(pixels, known, lambda part: cv2.GaussianBlur(part, (0, 0), sigma))
    if chance(rng, config.coarsen):
        factor = float(rng.uniform(1, config.coarsen_factor))
        pixels = _smoothed(pixels, known, lambda part: _coarsened(part, factor))
    if chance(rng, config.grey):
        pixels = np.broadcast_to(pixels.mean(axis=0, keepdims=True), pixels.shape).copy()
    if config.gamma > 1 and chance(rng, config.gamma_p):
        exponent = log_uniform(rng, 1 / config.gamma, config.gamma)
        pixels = np.asarray(cv2.pow(pixels.clip(0, 1), exponent), dtype=np.float32)
    pixels = _relit(pixels, valid, config, rng)
    if config.noise and chance(rng, config.noise_p):
        pixels += _noise(pixels.shape, float(rng.uniform(0, config.noise)), rng)
    pixels = pixels.clip(0, 1)
    if chance(rng, config.jpeg):
        low, high = config.jpeg_quality
        pixels = _compressed(_filled(pixels, valid), int(rng.integers(low, high + 1)))
    if chance(rng, config.cutout):
        pixels = _cut_out(pixels, valid, config, rng)
    pixels *= np.float32(full_scale)
    return pixels if whole else pixels * valid


def _smoothed(
    pixels: Pixels, known: Pixels | None, smooth: Callable[[Pixels], NDArray[Any]]
) -> Pixels:
    """A linear filter over known pixels: normalised convolution (Knutsson and Westin 1993)."""
    if known is None:
        return on_pictures(pixels, smooth)
    weight = np.maximum(smooth(known), np.float32(1e-6))
    return np.asarray(on_pictures(pixels * known, smooth) / weight)


def _coarsened(picture: Pixels, factor: float) -> NDArray[Any]:
    height, width = picture.shape[:2]
    size = max(1, round(width / factor)), max(1, round(height / factor))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    back: NDArray[Any] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return back


def _relit(
    pixels: Pixels, valid: NDArray[np.bool_], config: AugmentConfig, rng: np.random.Generator
) -> Pixels:
    """Brightness, contrast, saturation, hue and the bands' factors: one affine map of the bands."""
    bands = len(pixels)
    mixed = np.eye(bands)
    if config.channels > 1 and chance(rng, config.channels_p):
        factors = [log_uniform(rng, 1 / config.channels, config.channels) for _ in range(bands)]
        mixed = np.diag(factors)
    if bands >= 3:
        colour = _turned_colour(config, rng)
        if colour is not None:
            mixed[:3] = colour @ mixed[:3]
    offset = 0.0
    if config.contrast > 1 and chance(rng, config.contrast_p):
        contrast = log_uniform(rng, 1 / config.contrast, config.contrast)
        mixed = contrast * mixed
        offset = _mean(pixels, valid) * (1 - contrast)
    if config.brightness and chance(rng, config.brightness_p):
        offset += float(rng.uniform(-config.brightness, config.brightness))
    mixing = mixed.astype(np.float32)
    if np.count_nonzero(mixing) > bands:
        changed = (mixing @ pixels.reshape(bands, -1)).reshape(pixels.shape)
    else:
        changed = pixels * np.diag(mixing)[:, None, None]
    changed += np.float32(offset)
    return changed


def _turned_colour(config: AugmentConfig, rng: np.random.Generator) -> NDArray[np.float64] | None:
    """The (3, 3) map that turns and stretches colours about grey; None where they stay."""
    stretch, angle = 1.0, 0.0
    if config.saturation > 1 and chance(rng, config.saturation_p):
        stretch = log_uniform(rng, 1 / config.saturation, config.saturation)
    if config.hue_deg and chance(rng, config.hue_p):
        angle = np.radians(rng.uniform(-config.hue_deg, config.hue_deg))
    if stretch == 1 and angle == 0:
        return None
    cos, sin = stretch * np.cos(angle), stretch * np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return np.asarray(np.linalg.inv(_YIQ) @ turn @ _YIQ)


def _mean(pixels: Pixels, valid: NDArray[np.bool_]) -> float:
    if valid.all():
        return float(pixels.mean())
    return float(_means(pixels, valid).mean())


def _means(pixels: Pixels, valid: NDArray[np.bool_]) -> Pixels:
    """(band,) means over the valid pixels; 0 where there is none."""
    count = max(1, int(np.count_nonzero(valid)))
    means: Pixels = (pixels * valid).sum(axis=(1, 2)) / np.float32(count)
    return means


def _noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Pixels:
    # Five times as fast as NumPy's; the seed makes it the sample's own.
    cv2.setRNGSeed(int(rng.integers(2**31)))
    noise = np.empty((shape[0], shape[1] * shape[2]), dtype=np.float32)
    cv2.randn(noise, np.zeros(1), np.full(1, sigma))
    return noise.reshape(shape)


def _filled(pixels: Pixels, valid: NDArray[np.bool_]) -> Pixels:
    """With the mean of its valid pixels wherever a band has none."""
    if valid.all():
        return pixels
    return np.where(valid, pixels, _means(pixels, valid)[:, None, None])


def _compressed(pixels: Pixels, quality: int) -> Pixels:
    """Through JPEG and back; values 0..1."""
    coded = np.rint(pixels * 255).astype(np.uint8)
    parts = [coded[:3]] if len(coded) >= 3 else []
    parts += [coded[i : i + 1] for i in range(3 * len(parts), len(coded))]
    found = []
    for part in parts:
        # OpenCV counts colours from blue.
        picture = np.ascontiguousarray(np.moveaxis(part[::-1], 0, -1))
        _, stream = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        back = np.asarray(cv2.imdecode(stream, cv2.IMREAD_UNCHANGED)).reshape(picture.shape)
        found.append(np.moveaxis(back, -1, 0)[::-1])
    return np.concatenate(found).astype(np.float32) / np.float32(255)


def _cut_out(
    pixels: Pixels, valid: NDArray[np.bool_], config: AugmentConfig, rng: np.random.Generator
) -> Pixels:
    """Rectangles of the mean colour (DeVries and Taylor 2017, Cutout)."""
    mean = _means(pixels, valid)[:, None, None]
    cut = pixels.copy()
    for _ in range(int(rng.integers(1, config.cutout_count + 1))):
        height, width = (
            max(1, round(side * float(rng.uniform(0, config.cutout_share)))) for side in valid.shape
        )
        row = int(rng.integers(valid.shape[0] - height + 1))
        col = int(rng.integers(valid.shape[1] - width + 1))
        cut[:, row : row + height, col : col + width] = mean
    return cut
