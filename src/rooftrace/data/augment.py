"""Random changes of a training sample: where it is cut out, and what its colours look like.

Geometry is ONE affine map per sample (crop, scale, rotation and flip together), so that pixels are
interpolated once; image, target and validity go through the same map.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rooftrace.core.config import Config
from rooftrace.core.types import Sample

__all__ = ["AugmentConfig", "change_colours", "crop_transform", "warp"]

Share = Annotated[float, Field(ge=0, le=1)]


class AugmentConfig(Config):
    """What training changes at random. The defaults change nothing but place.

    Args:
        gsd_range_m: metres per pixel of a sample, drawn log-uniformly; None keeps the model's.
        scale_range: the same without metres: factor on the size of things on the ground.
        rotate: `"any"` angle, multiples of `"90"` degrees, or `"none"`.
        flip: mirror half of the samples.
        prefer_buildings: share of samples whose centre is a building, where the scene has one.
        gamma: exponent, log-uniform in [1/g, g].
        brightness: shift, in shares of the full scale, uniform in ±.
        contrast: factor, log-uniform in [1/c, c].
        channels: factor of each band apart, log-uniform in [1/c, c].
        grey: probability of a sample without colour.
        blur: probability of a Gaussian blur with sigma up to `blur_sigma_px`.
        noise: standard deviation, up to this share of the full scale.
    """

    gsd_range_m: tuple[float, float] | None = None
    scale_range: tuple[float, float] | None = None
    rotate: Literal["none", "90", "any"] = "none"
    flip: bool = False
    prefer_buildings: Share = 0.0
    gamma: Annotated[float, Field(ge=1)] = 1.0
    brightness: Share = 0.0
    contrast: Annotated[float, Field(ge=1)] = 1.0
    channels: Annotated[float, Field(ge=1)] = 1.0
    grey: Share = 0.0
    blur: Share = 0.0
    blur_sigma_px: Annotated[float, Field(gt=0)] = 1.5
    noise: Share = 0.0

    @model_validator(mode="after")
    def _ranges(self) -> AugmentConfig:
        for name in ("gsd_range_m", "scale_range"):
            limits = getattr(self, name)
            if limits is not None and not 0 < limits[0] <= limits[1]:
                raise ValueError(f"{name} = {list(limits)} is not an ascending range above 0")
        if self.gsd_range_m is not None and self.scale_range is not None:
            raise ValueError("gsd_range_m and scale_range say the same thing; give one of them")
        return self


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
        scale: scene pixels per crop pixel.
        crop_px: side of the crop.
    """
    if config.rotate == "any":
        angle = rng.uniform(0, 2 * np.pi)
    elif config.rotate == "90":
        angle = rng.integers(4) * np.pi / 2
    else:
        angle = 0.0
    mirror = -1.0 if config.flip and rng.random() < 0.5 else 1.0
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
    middle = np.full(2, (crop_px - 1) / 2)
    centre = np.array([centre_yx[1], centre_yx[0]])
    return np.column_stack([linear, centre - linear @ middle])


def warp(sample: Sample, to_scene: NDArray[np.float64], crop_px: int) -> Sample:
    """Cut a square crop out of a scene through an affine map of `crop_transform`.

    Pixels outside the scene, and nodata, become invalid with the value 0. Where the crop is much
    coarser than the scene, the scene is averaged first, so that nothing aliases.
    """
    scale = float(np.sqrt(abs(np.linalg.det(to_scene[:, :2]))))
    factor = int(scale + 1e-6)  # a determinant of 16 comes out as 15.999…
    image, target, valid = sample.image, sample.target, sample.valid
    if factor >= 2:
        image, target, valid = _shrink(image, target, valid, factor)
        # A pixel of the averaged scene has its centre (factor - 1) / 2 inside its block.
        to_scene = to_scene.copy()
        to_scene[:, 2] -= (factor - 1) / 2
        to_scene /= factor
    size = (crop_px, crop_px)
    flags = cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(
        valid.astype(np.uint8), to_scene, size, flags=flags | cv2.INTER_NEAREST
    ).astype(bool)
    labels = cv2.warpAffine(target, to_scene, size, flags=flags | cv2.INTER_NEAREST).astype(
        np.uint8
    )
    # warpAffine takes up to four bands at a time.
    bands = [
        cv2.warpAffine(
            np.ascontiguousarray(np.moveaxis(image[first : first + 4], 0, -1)),
            to_scene,
            size,
            flags=flags | cv2.INTER_LINEAR,
            # The outermost half pixel is of the scene; it must not fade into what is not there.
            borderMode=cv2.BORDER_REPLICATE,
        ).reshape(crop_px, crop_px, -1)
        for first in range(0, len(image), 4)
    ]
    pixels = np.moveaxis(np.concatenate(bands, axis=-1) if len(bands) > 1 else bands[0], -1, 0)
    pixels = np.where(seen, pixels, 0)
    labels[~seen] = 0
    return Sample(pixels, labels, seen)


def _shrink(
    image: NDArray[Any], target: NDArray[np.uint8], valid: NDArray[np.bool_], factor: int
) -> tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.bool_]]:
    height, width = (side // factor for side in valid.shape)
    if height == 0 or width == 0:
        return image[:, :1, :1], target[:1, :1], valid[:1, :1]
    rows, cols = height * factor, width * factor
    size = (width, height)
    shrunk = np.stack(
        [
            cv2.resize(np.ascontiguousarray(band[:rows, :cols]), size, interpolation=cv2.INTER_AREA)
            for band in image
        ]
    )
    half = factor // 2
    return (
        shrunk,
        np.ascontiguousarray(target[half:rows:factor, half:cols:factor]),
        np.ascontiguousarray(valid[half:rows:factor, half:cols:factor]),
    )


def change_colours(
    image: NDArray[Any], full_scale: float, config: AugmentConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(band, y, x) pixel values to (band, y, x) float32 in 0..full_scale, changed at random."""
    pixels = image.astype(np.float32) / np.float32(full_scale)
    if config.blur and rng.random() < config.blur:
        sigma = float(rng.uniform(0.3, config.blur_sigma_px))
        pixels = np.stack([cv2.GaussianBlur(band, (0, 0), sigma) for band in pixels])
    if config.grey and rng.random() < config.grey:
        pixels = np.broadcast_to(pixels.mean(axis=0, keepdims=True), pixels.shape).copy()
    if config.gamma > 1:
        pixels = np.power(pixels.clip(0, 1), np.float32(_log_uniform(rng, config.gamma)))
    factors = np.array([_log_uniform(rng, config.channels) for _ in pixels], dtype=np.float32)
    contrast = _log_uniform(rng, config.contrast)
    shift = rng.uniform(-config.brightness, config.brightness)
    middle = np.float32(pixels.mean())
    pixels = (pixels * factors[:, None, None] - middle) * np.float32(contrast)
    pixels += middle + np.float32(shift)
    if config.noise:
        sigma = rng.uniform(0, config.noise)
        pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(sigma)
    scaled: NDArray[np.float32] = pixels.clip(0, 1) * np.float32(full_scale)
    return scaled


def _log_uniform(rng: np.random.Generator, limit: float) -> float:
    return float(np.exp(rng.uniform(-np.log(limit), np.log(limit))))
