"""Pix2Pix as a refiner: from an image and a coarse map of it to a map with accurate outlines.

Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks". Both networks
are those of the paper's appendix, with a free number of filters and layers. There are three
differences. The generator sees the coarse map beside the image and returns logits. BatchNorm keeps
its running statistics in evaluation, while the paper uses those of the test batch, so that the
output for a tile does not depend on its batch. Dropout, the paper's only source of noise, acts in
training alone, so that a model always gives the same output.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from rooftrace.models.losses import probabilities

_SLOPE = 0.2
_STD = 0.02
_DROPPED_BLOCKS = 3

_MAX_LOG_ODDS = math.log(999.0)
"""Limit of the odds of the coarse map, 999 : 1; beyond it a confident error could not be corrected.
"""


class Generator(nn.Module):
    """The U-Net of the paper: halved `depth` times by 4 × 4 convolutions, and enlarged again.

    The paper draws a new picture; here most of it is in the coarse map already. With `residual` the
    output is added to the coarse logits and starts as zero: the untrained refiner is the identity,
    and training starts from the output of the segmenter.

    Args:
        bands: Number of bands of the image.
        channels: Number of channels of the map.
        filters: Filters of the first convolution; doubled in each of the next three.
        depth: Number of halvings; 8 in the paper, for 256 px. Height and width must be multiples of
            `multiple_px`.
        dropout: Dropout in the three innermost blocks on the way back.
        residual: Add the output to the coarse logits.
    """

    def __init__(
        self,
        bands: int,
        channels: int,
        *,
        filters: int = 64,
        depth: int = 5,
        dropout: float = 0.5,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.multiple_px = 1 << depth
        self.residual = residual
        widths = _widths(filters, depth)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            before = widths[level - 1] if level else bands + channels
            # Normalisation would set an innermost block of one pixel to 0 (the paper's errata).
            self.down.append(_down(before, width, normalised=0 < level < depth - 1))
        self.up = nn.ModuleList()
        inside = widths[-1]
        for number, width in enumerate(reversed(widths[:-1])):
            self.up.append(_up(inside, width, dropout if number < _DROPPED_BLOCKS else 0.0))
            inside = 2 * width
        self.head = nn.ConvTranspose2d(inside, channels, 4, stride=2, padding=1)
        self.apply(_initialise)
        if residual:
            nn.init.zeros_(self.head.weight)

    def forward(self, image: Tensor, coarse: Tensor) -> Tensor:
        """Return refined logits (n, channel, y, x).

        Args:
            image: (n, band, y, x) normalised pixels.
            coarse: (n, channel, y, x) logits of the segmenter.
        """
        bounded = _bounded(coarse)
        x = torch.cat([image, 2 * probabilities(bounded) - 1], dim=1)
        passed = []
        for block in self.down:
            x = block(x)
            passed.append(x)
        x = passed.pop()
        for block in self.up:
            x = torch.cat([block(x), passed.pop()], dim=1)
        change: Tensor = self.head(x)
        return bounded + change if self.residual else change


class PatchDiscriminator(nn.Module):
    """Classifies patches of a map as drawn by hand or generated, each with the image beneath it.

    Args:
        bands: Number of bands of the image.
        channels: Number of channels of the map.
        filters: Filters of the first convolution; doubled in each of the next three.
        layers: Number of convolutions that halve; 3 judges patches of 70 × 70 px, as in the paper.
    """

    def __init__(self, bands: int, channels: int, *, filters: int = 64, layers: int = 3) -> None:
        super().__init__()
        widths = _widths(filters, layers + 1)
        blocks = [_down(bands + channels, widths[0], normalised=False)]
        for level, (before, width) in enumerate(pairwise(widths), start=1):
            stride = 2 if level < layers else 1
            blocks.append(_down(before, width, normalised=True, stride=stride))
        self.blocks = nn.Sequential(*blocks, nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.apply(_initialise)

    @staticmethod
    def smallest_px(layers: int) -> int:
        """Return the side of the smallest input that gives an output."""
        return 3 << layers

    def forward(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Return logits (n, 1, patch, patch), which are high for maps drawn by hand.

        Args:
            image: (n, band, y, x) normalised pixels.
            drawn: (n, channel, y, x) probabilities in 0..1.
        """
        refined: Tensor = self.blocks(torch.cat([image, 2 * drawn - 1], dim=1))
        return refined


class RefinedNet(nn.Module):
    """Segmenter and generator as one: normalised pixels to (refined, coarse) logits."""

    def __init__(self, segmenter: nn.Module, generator: nn.Module) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.generator = generator

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        coarse = self.segmenter(image)
        return self.generator(image, coarse), coarse


def _widths(filters: int, levels: int) -> list[int]:
    """Return the filters of each level, doubled at most three times."""
    return [filters << min(level, 3) for level in range(levels)]


def _bounded(logits: Tensor) -> Tensor:
    """Limit the odds of each class against the most likely one to `_MAX_LOG_ODDS`."""
    logits = logits.float()
    if logits.shape[1] == 1:
        return logits.clamp(-_MAX_LOG_ODDS, _MAX_LOG_ODDS)
    return (logits - logits.amax(dim=1, keepdim=True)).clamp(min=-_MAX_LOG_ODDS)


def _down(before: int, width: int, *, normalised: bool, stride: int = 2) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=not normalised),
        nn.BatchNorm2d(width) if normalised else nn.Identity(),
        nn.LeakyReLU(_SLOPE),
    )


def _up(before: int, width: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(before, width, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.Dropout(dropout),
        nn.ReLU(),
    )


def _initialise(module: nn.Module) -> None:
    """Initialise weights from N(0, 0.02), as in the paper."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, _STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
