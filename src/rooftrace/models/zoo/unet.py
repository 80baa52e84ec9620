"""Our own U-Net, whose every part is a parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import rooftrace.models._torch  # noqa: F401

# isort: split
import torch
from pydantic import Field
from torch import Tensor, nn

from rooftrace.core.config import Config, parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.models.zoo.config import ARCHITECTURES, Architecture, ModelConfig

__all__ = ["PlainUnet", "PlainUnetConfig"]

_GROUPS = 8


class PlainUnetConfig(Config):
    """`[model.options]` of PlainUnet.

    Args:
        filters: of the first level; each level below has twice as many.
        depth: levels below the first; height and width must be multiples of 2**depth.
        convolutions: of 3 × 3 px in each block.
        normalisation: after each of them: `batch` (Ioffe and Szegedy 2015), `instance` (Ulyanov
            et al. 2016), `group`: 8 groups, or as many as divide the filters (Wu and He 2018);
            `none`.
        dropout: share of the channels that are set to 0 in training after each block (Tompson et
            al. 2015).
        upsampling: `transposed`: a convolution of 2 × 2 px; `bilinear` or `nearest`: interpolated,
            then a convolution of 3 × 3 px (Odena et al. 2016).
    """

    filters: Annotated[int, Field(ge=1)] = 32
    depth: Annotated[int, Field(ge=1, le=8)] = 4
    convolutions: Annotated[int, Field(ge=1)] = 2
    normalisation: Literal["batch", "instance", "group", "none"] = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    upsampling: Literal["transposed", "bilinear", "nearest"] = "transposed"


class PlainUnet(nn.Module):
    """U-Net (Ronneberger et al. 2015) without a pretrained encoder.

    Convolutions are padded, where the paper's are not, so that the answer has the size of the
    input; filters, depth, normalisation, dropout and the way up are open. Weights begin as in He
    et al. 2015.

    Args:
        settings: see there.
        bands: of the image.
        channels: of the answer.

    Attributes:
        multiple_px: height and width of the input must be multiples of it.
    """

    def __init__(self, settings: PlainUnetConfig, bands: int, channels: int) -> None:
        super().__init__()
        self.multiple_px = 1 << settings.depth
        widths = [settings.filters << level for level in range(settings.depth + 1)]
        pairs = list(pairwise(widths))
        enlarged = _ENLARGED[settings.upsampling]
        self.first = _block(settings, bands, widths[0])
        self.down = nn.ModuleList(_block(settings, above, below) for above, below in pairs)
        self.pool = nn.MaxPool2d(2)
        self.enlarge = nn.ModuleList(enlarged(below, above) for above, below in reversed(pairs))
        self.up = nn.ModuleList(_block(settings, 2 * above, above) for above, _ in reversed(pairs))
        self.head = nn.Conv2d(widths[0], channels, 1)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """(n, band, y, x) to logits (n, channel, y, x)."""
        levels = [self.first(image)]
        for block in self.down:
            levels.append(block(self.pool(levels[-1])))
        x = levels.pop()
        for enlarge, block in zip(self.enlarge, self.up):
            x = block(torch.cat([levels.pop(), enlarge(x)], dim=1))
        logits: Tensor = self.head(x)
        return logits


class _PlainUnetArchitecture(Architecture):
    def resolved(self, options: dict[str, Any]) -> dict[str, Any]:
        return parse_config(options, PlainUnetConfig, source="model.options").model_dump()

    def check(self, config: ModelConfig) -> None:
        for key in ("encoder", "encoder_weights"):
            value = getattr(config, key)
            if value is not None:
                raise ConfigError(
                    f"model.{key} = {value!r}, but PlainUnet has no encoder.",
                    remedy=f"Leave model.{key} out, or choose another architecture.",
                )
        if config.dropout:
            raise ConfigError(
                f"model.dropout = {config.dropout}, but PlainUnet has a dropout of its own.",
                remedy=f"Write model.options.dropout = {config.dropout}.",
            )

    def build(self, config: ModelConfig, *, bands: int, channels: int, base: Path) -> nn.Module:
        del base
        return PlainUnet(PlainUnetConfig(**config.options), bands, channels)


def _block(settings: PlainUnetConfig, before: int, width: int) -> nn.Sequential:
    normalise = _NORMALISED[settings.normalisation]
    layers: list[nn.Module] = []
    for number in range(settings.convolutions):
        # What is normalised next needs no bias of its own.
        bias = settings.normalisation == "none"
        layers.append(nn.Conv2d(width if number else before, width, 3, padding=1, bias=bias))
        layers += [*normalise(width), nn.ReLU(inplace=True)]
    if settings.dropout:
        layers.append(nn.Dropout2d(settings.dropout))
    return nn.Sequential(*layers)


_NORMALISED: dict[str, Callable[[int], list[nn.Module]]] = {
    "batch": lambda width: [nn.BatchNorm2d(width)],
    "instance": lambda width: [nn.InstanceNorm2d(width, affine=True)],
    "group": lambda width: [nn.GroupNorm(math.gcd(width, _GROUPS), width)],
    "none": lambda _: [],
}


def _resized(before: int, width: int, mode: str) -> nn.Module:
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(before, width, 3, padding=1)
    )


_ENLARGED: dict[str, Callable[[int, int], nn.Module]] = {
    "transposed": lambda before, width: nn.ConvTranspose2d(before, width, 2, stride=2),
    "bilinear": partial(_resized, mode="bilinear"),
    "nearest": partial(_resized, mode="nearest"),
}


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


ARCHITECTURES.add("PlainUnet", _PlainUnetArchitecture())
