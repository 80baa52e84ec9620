"""What training changes at random: every operation with its parameters, and policies by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from rooftrace.core.config import Config

__all__ = ["POLICIES", "AugmentConfig", "chance"]

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
"""What a policy sets; everything else keeps its default, which changes nothing."""

_RENAMED = {
    "rotate": 'rotate = "any" is rotate_deg = 180, rotate = "90" is rotate_90 = 1.0',
    "flip": "flip = true is flip_horizontal = 0.5",
}


class AugmentConfig(Config):
    """What training changes at random. The defaults change nothing but place.

    `NAME_p` is the share of samples on which NAME acts. `grey`, `blur`, `coarsen`, `jpeg`,
    `cutout`, `rotate_90` and the flips are such shares themselves.

    Args:
        policy: where values come from that are not given: `none`, `light`, `aerial` (the bundled
            model's) or `strong`.
        prefer_buildings: share of samples whose centre is moved onto a building, if one is found
            within 12 tries near where the sample was drawn or elsewhere in its scene.
        prefer_classes: the classes that count for that, each alike; default the building class.
        gsd_range_m: metres per pixel of a sample, drawn log-uniformly; else the model's.
        scale_range: the same without metres: a factor on how much ground a sample shows, along
            each side. In place of `gsd_range_m`.
        scale_p: of the two.
        ratio_range: ground along a row over ground down a column, log-uniform; the area stays.
        rotate_90: turned by 0, 90, 180 or 270 degrees, each alike.
        rotate_deg: turned by an angle, uniform in ±, on top of that.
        shear_deg: sheared by an angle, uniform in ±.
        flip_horizontal: mirrored left to right.
        flip_vertical: mirrored top to bottom.
        gamma: exponent, log-uniform in [1/g, g].
        brightness: shift, in shares of the full scale, uniform in ±.
        contrast: factor on the distance from the mean, log-uniform in [1/c, c].
        saturation: factor on the colour of the first three bands, log-uniform in [1/s, s].
        hue_deg: the colours of the first three bands turned by an angle, uniform in ±.
        channels: factor of each band apart, log-uniform in [1/c, c].
        grey: every band becomes the mean of all.
        blur: Gaussian blur, sigma uniform from 0.3 to `blur_sigma_px`.
        coarsen: a coarser sensor: averaged over a factor, uniform from 1 to `coarsen_factor`, and
            interpolated back.
        noise: Gaussian, its standard deviation uniform from 0 to this share of the full scale.
        jpeg: compressed as JPEG with 8 bits, quality uniform in `jpeg_quality`; the first three
            bands as a colour, every other by itself.
        cutout: 1 to `cutout_count` rectangles, each side uniform up to `cutout_share` of the
            sample's, take its mean colour; their target stays, and must be told from around them.
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
        """The values of the policy under those that are given, so that records are whole."""
        if not isinstance(raw, dict):
            return raw
        for old, new in _RENAMED.items():
            if old in raw:
                raise ValueError(f"{old} is no longer a key: {new}")
        policy = raw.get("policy")
        values = dict(POLICIES.get(policy, {})) if isinstance(policy, str) else {}
        if raw.get("gsd_range_m") is not None:
            # It says the same as the policy's, in metres.
            values.pop("scale_range", None)
        return {**values, **raw}

    @model_validator(mode="after")
    def _ranges(self) -> AugmentConfig:
        for name in ("gsd_range_m", "scale_range", "ratio_range", "jpeg_quality"):
            limits = getattr(self, name)
            if limits is not None and not 0 < limits[0] <= limits[1]:
                raise ValueError(f"{name} = {list(limits)} is not an ascending range above 0")
        if self.gsd_range_m is not None and self.scale_range is not None:
            raise ValueError("gsd_range_m and scale_range say the same thing; give one of them")
        return self

    @property
    def changes_colours(self) -> bool:
        """Whether any value of a pixel may become another."""
        factors = self.gamma, self.contrast, self.saturation, self.channels
        shares = (
            self.brightness, self.hue_deg, self.grey, self.blur, self.coarsen, self.noise,
            self.jpeg, self.cutout,
        )  # fmt: skip
        return max(factors) > 1 or max(shares) > 0


def chance(rng: np.random.Generator, share: float) -> bool:
    """True in this share of all cases; what is certain draws no number."""
    return share >= 1 or (share > 0 and bool(rng.random() < share))
