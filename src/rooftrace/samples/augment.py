"""Augment training samples: random changes of geometry and of colours.

A sample is cut out of its scene by ONE affine map: crop, scale, rotation, shear and flip together.
Pixels are therefore interpolated only once, and image, target and validity use the same map.
Changes of light, colour and sensor properties leave target and validity as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Annotated, Any, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rooftrace.core.config import Config
from rooftrace.core.types import Sample, Window

Share = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=1)]
Range = tuple[float, float]

_LIGHT: Mapping[str, object] = {
    "rotate_90": 1.0, "flip_horizontal": 0.5,
    "gamma": 1.2, "brightness": 0.1, "contrast": 1.2,
}  # fmt: skip
_AERIAL: Mapping[str, object] = {
    "prefer_buildings": 0.3, "scale_range": (0.5, 1.5), "rotate_deg": 180.0,
    "flip_horizontal": 0.5, "gamma": 1.6, "brightness": 0.15, "contrast": 1.5, "channels": 1.2,
    "grey": 0.15, "blur": 0.25, "noise": 0.03,
}  # fmt: skip
_STRONG: Mapping[str, object] = {
    **_AERIAL,
    "scale_range": (0.4, 2.0), "ratio_range": (0.8, 1.25), "shear_deg": 8.0,
    "gamma": 1.8, "brightness": 0.2, "contrast": 1.7, "saturation": 1.6, "hue_deg": 15.0,
    "channels": 1.3, "coarsen": 0.2, "noise": 0.05, "jpeg": 0.2, "cutout": 0.2,
}  # fmt: skip

POLICIES: Mapping[str, Mapping[str, object]] = {
    "none": {},
    "light": _LIGHT,
    "aerial": _AERIAL,
    "strong": _STRONG,
}
"""Settings of each policy; all others keep their default, which changes nothing."""


class AugmentConfig(Config):
    """Augmentation settings. The defaults change only the position of samples.

    `NAME_p` is the share of samples to which NAME is applied. `grey`, `blur`, `coarsen`, `jpeg`,
    `cutout`, `rotate_90` and the flips are such shares themselves.

    Args:
        policy: Source of values that are not given: `none`, `light`, `aerial` (the bundled
            model's) or `strong`.
        prefer_buildings: Share of samples whose centre is moved onto a building, if one is found
            within 12 tries near the drawn place or elsewhere in its scene.
        prefer_classes: Classes that count as buildings for `prefer_buildings`, all equally likely;
            default the building class.
        gsd_range_m: Range of metres per pixel of a sample, drawn log-uniformly; default the
            model's metres per pixel.
        scale_range: Range of the factor on the ground that a sample shows along each side. Use it
            instead of `gsd_range_m` without metres.
        scale_p: Share of samples to which one of these two ranges is applied.
        ratio_range: Range of ground along a row over ground down a column, log-uniform; the area
            stays the same.
        rotate_90: Rotation by 0, 90, 180 or 270 degrees, all equally likely.
        rotate_deg: Additional rotation by an angle, uniform in ±.
        shear_deg: Shear by an angle, uniform in ±.
        flip_horizontal: Mirroring left to right.
        flip_vertical: Mirroring top to bottom.
        gamma: Exponent, log-uniform in [1/g, g].
        brightness: Shift in shares of the full scale, uniform in ±.
        contrast: Factor on the distance from the mean, log-uniform in [1/c, c].
        saturation: Factor on the colour of the first three bands, log-uniform in [1/s, s].
        hue_deg: Rotation of the colours of the first three bands by an angle, uniform in ±.
        channels: Factor on each band separately, log-uniform in [1/c, c].
        grey: Replacement of every band by the mean of all bands.
        blur: Gaussian blur, sigma uniform from 0.3 to `blur_sigma_px`.
        coarsen: Coarser sensor: averaging over a factor, uniform from 1 to `coarsen_factor`, and
            interpolation back.
        sharpen: Unsharp mask with a sigma of 1 px; the factor on the difference from the blurred
            image is uniform from 0 to `sharpen_amount`.
        noise: Gaussian noise; its standard deviation is uniform from 0 to this share of the full
            scale.
        jpeg: JPEG compression with 8 bits, quality uniform in `jpeg_quality`; the first three bands
            as a colour image, every other band separately.
        cutout: 1 to `cutout_count` rectangles, each side uniform up to `cutout_share` of the
            sample's, filled with its mean colour. The target stays, and the network must infer it
            from the surroundings.
    """

    policy: Literal["none", "light", "aerial", "strong"] = "none"
    prefer_buildings: Share = 0.0
    prefer_classes: tuple[str, ...] = ()
    gsd_range_m: Range | None = None
    scale_range: Range | None = None
    scale_p: Share = 1.0
    ratio_range: Range | None = None
    ratio_p: Share = 1.0
    rotate_90: Share = 0.0
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 0.0
    rotate_p: Share = 1.0
    shear_deg: Annotated[float, Field(ge=0, le=45)] = 0.0
    shear_p: Share = 1.0
    flip_horizontal: Share = 0.0
    flip_vertical: Share = 0.0
    gamma: Factor = 1.0
    gamma_p: Share = 1.0
    brightness: Share = 0.0
    brightness_p: Share = 1.0
    contrast: Factor = 1.0
    contrast_p: Share = 1.0
    saturation: Factor = 1.0
    saturation_p: Share = 1.0
    hue_deg: Annotated[float, Field(ge=0, le=180)] = 0.0
    hue_p: Share = 1.0
    channels: Factor = 1.0
    channels_p: Share = 1.0
    grey: Share = 0.0
    blur: Share = 0.0
    blur_sigma_px: Annotated[float, Field(ge=0.3)] = 1.5
    coarsen: Share = 0.0
    coarsen_factor: Factor = 2.0
    sharpen: Share = 0.0
    sharpen_amount: Annotated[float, Field(gt=0)] = 1.0
    noise: Share = 0.0
    noise_p: Share = 1.0
    jpeg: Share = 0.0
    jpeg_quality: tuple[
        Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]
    ] = (40, 90)
    cutout: Share = 0.0
    cutout_count: Annotated[int, Field(ge=1)] = 4
    cutout_share: Annotated[float, Field(gt=0, le=1)] = 0.2

    @model_validator(mode="before")
    @classmethod
    def _with_policy(cls, raw: Any) -> Any:
        """Complete the given values with those of the policy, so that records are complete."""
        if not isinstance(raw, dict):
            return raw
        policy = raw.get("policy")
        values = dict(POLICIES.get(policy, {})) if isinstance(policy, str) else {}
        if raw.get("gsd_range_m") is not None:
            # It replaces the policy's scale_range, in metres.
            values.pop("scale_range", None)
        return {**values, **raw}

    @model_validator(mode="after")
    def _ranges(self) -> AugmentConfig:
        for name in ("gsd_range_m", "scale_range", "ratio_range", "jpeg_quality"):
            limits = getattr(self, name)
            if limits is not None and not 0 < limits[0] <= limits[1]:
                raise ValueError(f"{name} = {list(limits)} is not an ascending range above 0")
        if self.gsd_range_m is not None and self.scale_range is not None:
            raise ValueError("gsd_range_m and scale_range mean the same; give only one of them")
        return self

    @property
    def changes_colours(self) -> bool:
        """True if pixel values may change."""
        factors = self.gamma, self.contrast, self.saturation, self.channels
        shares = (
            self.brightness, self.hue_deg, self.grey, self.blur, self.coarsen, self.sharpen,
            self.noise, self.jpeg, self.cutout,
        )  # fmt: skip
        return max(factors) > 1 or max(shares) > 0


def chance(rng: np.random.Generator, share: float) -> bool:
    """Return True with this probability; certain outcomes draw no random number."""
    return share >= 1 or (share > 0 and bool(rng.random() < share))


T = TypeVar("T", bound=np.generic)


def crop_transform(
    centre_yx: tuple[float, float],
    scale_yx: tuple[float, float],
    crop_px: int,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw the affine map (2, 3) from pixels (x, y) of a crop to pixels (x, y) of its scene.

    Args:
        centre_yx: Position in the scene of the crop's centre, counted from the centre of the
            scene's first pixel.
        scale_yx: Scene pixels per crop pixel, down and along. The crop is turned and sheared on the
            ground, before pixels that are not square stretch it.
        crop_px: Side of the crop in pixels.
        config: Augmentation settings.
        rng: Random generator.
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
    cos, sin = np.cos(angle), np.sin(angle)
    scale_y, scale_x = scale_yx
    turned = np.array([[scale_x * cos, -scale_x * sin], [scale_y * sin, scale_y * cos]])
    linear = turned @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag([across, down])
    middle = np.full(2, (crop_px - 1) / 2)
    centre = np.array([centre_yx[1], centre_yx[0]])
    return np.column_stack([linear, centre - linear @ middle])


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw log-uniformly between two positive limits."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def window_under(to_scene: NDArray[np.float64], crop_px: int) -> Window:
    """Return the window of a scene that `warp` needs; it may extend beyond the scene."""
    sides = (-0.5, crop_px - 0.5)
    corners = np.array([to_scene[:, :2] @ xy + to_scene[:, 2] for xy in product(sides, sides)])
    # The margin is two neighbours, of which one replaces the other where that is nodata. If pixels
    # are averaged first, it is two blocks.
    margin = 2 * max(1, _blocks(to_scene))
    col, row = np.floor(corners.min(axis=0)).astype(int) - margin
    col_stop, row_stop = np.ceil(corners.max(axis=0)).astype(int) + margin + 1
    return Window(int(row), int(col), int(row_stop - row), int(col_stop - col))


def warp(sample: Sample, to_scene: NDArray[np.float64], crop_px: int) -> Sample:
    """Cut a square crop out of a scene by an affine map of `crop_transform`.

    Pixels outside the scene, and nodata, become invalid with the value 0 and do not affect their
    neighbours. Pixels whose class alone is not known keep their values. If the crop is much coarser
    than the scene, the scene is averaged first to prevent aliasing.
    """
    factor = _blocks(to_scene)
    image, target, shown, valid = sample.image, sample.target, sample.shown, sample.valid
    instances = sample.instances
    if factor >= 2:
        instances = None if instances is None else _middles(instances, factor)
        image, target, shown = _shrink(image, target, shown, factor)
        valid = _middles(valid, factor)
        # A pixel of the averaged scene has its centre (factor - 1) / 2 inside its block.
        to_scene = to_scene.copy()
        to_scene[:, 2] -= (factor - 1) / 2
        to_scene /= factor
    if not shown.all():
        image = _with_edge(image, shown)
    size = (crop_px, crop_px)
    nearest = cv2.WARP_INVERSE_MAP | cv2.INTER_NEAREST
    is_inside = _within(to_scene, crop_px, valid.shape)

    def cut_mask(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if is_inside and mask.all():
            return np.ones(size, dtype=bool)
        found = cv2.warpAffine(mask.astype(np.uint8), to_scene, size, flags=nearest)
        return np.asarray(found, dtype=bool)

    seen = cut_mask(shown)
    image_valid = None if sample.image_valid is None else seen
    known = seen if image_valid is None else cut_mask(valid)
    labels = cv2.warpAffine(target, to_scene, size, flags=nearest).astype(np.uint8, copy=False)

    def cut(picture: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = cv2.warpAffine(
            picture,
            to_scene,
            size,
            flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR,
            # The outermost half pixel belongs to the scene and must not fade out.
            borderMode=cv2.BORDER_REPLICATE,
        )
        return found

    pixels = on_pictures(image, cut)
    if not seen.all():
        pixels = np.where(seen, pixels, 0)
    if not known.all():
        labels[~known] = 0
    if instances is None:
        return Sample(pixels, labels, known, None, image_valid)
    # OpenCV rounds four-byte integers to other pixels than bytes and floats.
    numbers = cv2.warpAffine(instances.astype(np.float32), to_scene, size, flags=nearest).astype(
        np.int32
    )
    numbers[~known] = 0
    return Sample(pixels, labels, known, numbers, image_valid)


def on_pictures(
    image: NDArray[Any], change: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[Any]:
    """Apply an OpenCV function to an image (band, y, x).

    The function receives up to four bands at a time as (y, x, band), and a single band as (y, x).
    """
    # OpenCV interleaves bands five times faster than NumPy.
    parts = [cv2.merge(list(image[first : first + 4])) for first in range(0, len(image), 4)]
    return np.stack([band for part in parts for band in cv2.split(change(part))])


def _within(to_scene: NDArray[np.float64], crop_px: int, shape_yx: tuple[int, ...]) -> bool:
    """Return whether every pixel of a crop has its nearest pixel in the scene."""
    corners = np.array(list(product((0, crop_px - 1), repeat=2))) @ to_scene[:, :2].T
    corners += to_scene[:, 2]
    last = np.array(shape_yx[::-1]) - 1
    return bool((corners >= 0).all() and (corners <= last).all())


def _blocks(to_scene: NDArray[np.float64]) -> int:
    """Return the side of the blocks of scene pixels that are averaged; 0 or 1 for no averaging."""
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
    """Return (y, x) the pixel in the middle of each block that `_shrink` averages."""
    if min(values.shape) < factor:
        return values[:1, :1]
    rows, cols = (side // factor * factor for side in values.shape)
    half = factor // 2
    return np.ascontiguousarray(values[half:rows:factor, half:cols:factor])


def _with_edge(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Fill invalid pixels beside valid ones with the mean of these, for interpolation."""
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
    """Convert to a dtype, rounding for integers; means never leave its range."""
    return (np.rint(values) if dtype.kind in "ui" else values).astype(dtype)


Pixels = NDArray[np.float32]

_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
"""Matrix from RGB to brightness and two colour axes (NTSC, FCC 1953), both 0 for grey."""


def change_colours(
    image: NDArray[Any],
    valid: NDArray[np.bool_],
    full_scale: float,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> Pixels:
    """Change (band, y, x) pixel values at random and return them as float32.

    The order is that of a camera: optics, light and colour, noise, compression. Changed values are
    clipped to 0..full_scale; if `config` changes no colours, the values stay the same. Invalid
    pixels become 0 and do not affect the others.

    Args:
        image: Any number of bands; hue and saturation change the first three, if there are three.
        valid: (y, x) validity.
        full_scale: Value of the brightest pixel.
        config: Augmentation settings.
        rng: Random generator.
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
    if chance(rng, config.sharpen):
        amount = np.float32(rng.uniform(0, config.sharpen_amount))
        blurred = _smoothed(pixels, known, lambda part: cv2.GaussianBlur(part, (0, 0), 1.0))
        pixels = (pixels + amount * (pixels - blurred)).clip(0, 1)
    if chance(rng, config.grey):
        pixels = np.broadcast_to(pixels.mean(axis=0, keepdims=True), pixels.shape).copy()
    if config.gamma > 1 and chance(rng, config.gamma_p):
        exponent = log_uniform(rng, 1 / config.gamma, config.gamma)
        pixels = np.asarray(cv2.pow(pixels.clip(0, 1), exponent), dtype=np.float32)
    pixels = _change_light(pixels, valid, config, rng)
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
    """Apply a linear filter to known pixels: normalised convolution (Knutsson and Westin 1993)."""
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


def _change_light(
    pixels: Pixels, valid: NDArray[np.bool_], config: AugmentConfig, rng: np.random.Generator
) -> Pixels:
    """Change brightness, contrast, saturation, hue and band factors by one affine map of bands."""
    bands = len(pixels)
    mixed = np.eye(bands)
    if config.channels > 1 and chance(rng, config.channels_p):
        factors = [log_uniform(rng, 1 / config.channels, config.channels) for _ in range(bands)]
        mixed = np.diag(factors)
    if bands >= 3:
        colour = _colour_rotation(config, rng)
        if colour is not None:
            mixed[:3] = colour @ mixed[:3]
    offset = 0.0
    if config.contrast > 1 and chance(rng, config.contrast_p):
        contrast = log_uniform(rng, 1 / config.contrast, config.contrast)
        mixed = contrast * mixed
        mean = pixels.mean() if valid.all() else _means(pixels, valid).mean()
        offset = float(mean) * (1 - contrast)
    if config.brightness and chance(rng, config.brightness_p):
        offset += float(rng.uniform(-config.brightness, config.brightness))
    mixing = mixed.astype(np.float32)
    if np.count_nonzero(mixing) > bands:
        changed = (mixing @ pixels.reshape(bands, -1)).reshape(pixels.shape)
    else:
        changed = pixels * np.diag(mixing)[:, None, None]
    changed += np.float32(offset)
    return changed


def _colour_rotation(config: AugmentConfig, rng: np.random.Generator) -> NDArray[np.float64] | None:
    """Return the (3, 3) map that rotates and scales colours about grey; None for no change."""
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


def _means(pixels: Pixels, valid: NDArray[np.bool_]) -> Pixels:
    """Return (band,) means over the valid pixels; 0 if there are none."""
    count = max(1, int(np.count_nonzero(valid)))
    means: Pixels = (pixels * valid).sum(axis=(1, 2)) / np.float32(count)
    return means


def _noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Pixels:
    # OpenCV is five times faster than NumPy; the seed makes the noise specific to the sample.
    cv2.setRNGSeed(int(rng.integers(2**31)))
    noise = np.empty((shape[0], shape[1] * shape[2]), dtype=np.float32)
    cv2.randn(noise, np.zeros(1), np.full(1, sigma))
    return noise.reshape(shape)


def _filled(pixels: Pixels, valid: NDArray[np.bool_]) -> Pixels:
    """Fill invalid pixels of each band with the mean of its valid pixels."""
    if valid.all():
        return pixels
    return np.where(valid, pixels, _means(pixels, valid)[:, None, None])


def _compressed(pixels: Pixels, quality: int) -> Pixels:
    """Compress as JPEG and decompress; values 0..1."""
    coded = np.rint(pixels * 255).astype(np.uint8)
    parts = [coded[:3]] if len(coded) >= 3 else []
    parts += [coded[i : i + 1] for i in range(3 * len(parts), len(coded))]
    found = []
    for part in parts:
        # OpenCV orders colours from blue to red.
        picture = np.ascontiguousarray(np.moveaxis(part[::-1], 0, -1))
        _, stream = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        back = np.asarray(cv2.imdecode(stream, cv2.IMREAD_UNCHANGED)).reshape(picture.shape)
        found.append(np.moveaxis(back, -1, 0)[::-1])
    return np.concatenate(found).astype(np.float32) / np.float32(255)


def _cut_out(
    pixels: Pixels, valid: NDArray[np.bool_], config: AugmentConfig, rng: np.random.Generator
) -> Pixels:
    """Replace rectangles by the mean colour (DeVries and Taylor 2017, Cutout)."""
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
