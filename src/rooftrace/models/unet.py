"""A U-Net without a pretrained encoder, all parts of which are parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rooftrace.core.config import Config

_GROUPS = 8


class PlainUnetConfig(Config):
    """`[model.options]` of PlainUnet.

    Args:
        filters: Filters of the first level; each level below has twice as many.
        depth: Levels below the first; height and width must be multiples of 2**depth.
        convolutions: Convolutions of 3 × 3 px in each block.
        normalisation: Normalisation after each of them: `batch` (Ioffe and Szegedy 2015),
            `instance` (Ulyanov et al. 2016), `group`: 8 groups, or as many as divide the filters
            (Wu and He 2018); `none`.
        dropout: Share of the channels that are set to 0 in training after each block (Tompson et
            al. 2015).
        upsampling: `transposed`: a convolution of 2 × 2 px; `bilinear` or `nearest`: interpolation,
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

    Convolutions are padded, unlike the paper's, so that the output has the size of the input.
    Filters, depth, normalisation, dropout and upsampling are parameters. Weights are initialised as
    in He et al. 2015.

    Attributes:
        multiple_px: Number that height and width of the input must be multiples of.
    """

    def __init__(self, settings: PlainUnetConfig, bands: int, channels: int) -> None:
        super().__init__()
        self.multiple_px = 1 << settings.depth
        widths = [settings.filters << level for level in range(settings.depth + 1)]
        pairs = list(pairwise(widths))
        enlarged = _UPSAMPLINGS[settings.upsampling]
        self.first = _block(settings, bands, widths[0])
        self.down = nn.ModuleList(_block(settings, above, below) for above, below in pairs)
        self.pool = nn.MaxPool2d(2)
        self.enlarge = nn.ModuleList(enlarged(below, above) for above, below in reversed(pairs))
        self.up = nn.ModuleList(_block(settings, 2 * above, above) for above, _ in reversed(pairs))
        self.head = nn.Conv2d(widths[0], channels, 1)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (n, channel, y, x) of normalised pixels (n, band, y, x)."""
        levels = [self.first(image)]
        for block in self.down:
            levels.append(block(self.pool(levels[-1])))
        x = levels.pop()
        for enlarge, block in zip(self.enlarge, self.up):
            x = block(torch.cat([levels.pop(), enlarge(x)], dim=1))
        logits: Tensor = self.head(x)
        return logits


def _block(settings: PlainUnetConfig, before: int, width: int) -> nn.Sequential:
    normalise = _NORMALISATIONS[settings.normalisation]
    layers: list[nn.Module] = []
    for number in range(settings.convolutions):
        # A convolution before a normalisation needs no bias.
        bias = settings.normalisation == "none"
        layers.append(nn.Conv2d(width if number else before, width, 3, padding=1, bias=bias))
        layers += [*normalise(width), nn.ReLU(inplace=True)]
    if settings.dropout:
        layers.append(nn.Dropout2d(settings.dropout))
    return nn.Sequential(*layers)


_NORMALISATIONS: dict[str, Callable[[int], list[nn.Module]]] = {
    "batch": lambda width: [nn.BatchNorm2d(width)],
    "instance": lambda width: [nn.InstanceNorm2d(width, affine=True)],
    "group": lambda width: [nn.GroupNorm(math.gcd(width, _GROUPS), width)],
    "none": lambda _: [],
}


def _resized(before: int, width: int, mode: str) -> nn.Module:
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(before, width, 3, padding=1)
    )


_UPSAMPLINGS: dict[str, Callable[[int, int], nn.Module]] = {
    "transposed": lambda before, width: nn.ConvTranspose2d(before, width, 2, stride=2),
    "bilinear": partial(_resized, mode="bilinear"),
    "nearest": partial(_resized, mode="nearest"),
}


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
