"""Pix2Pix (Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks")
as a refiner: from an image and a coarse map of it to a map with outlines as labels have them.

Both networks are those of the paper's appendix, with the number of filters and layers open. What
differs: the generator sees the coarse map beside the image and answers logits; BatchNorm keeps its
running statistics in evaluation, where the paper takes those of the test batch, so that the answer
for a tile does not depend on the batch it is in; dropout, the paper's only source of noise, acts in
training alone, so that a model answers the same each time.
"""

from __future__ import annotations

import math
from itertools import pairwise

import rooftrace.models._torch  # noqa: F401

# isort: split
import torch
from torch import Tensor, nn

from rooftrace.models.losses import probabilities

__all__ = ["Generator", "PatchDiscriminator", "RefinedNet"]

_SLOPE = 0.2
_STD = 0.02
_DROPPED_BLOCKS = 3

_SUREST = math.log(999.0)
"""Odds of the coarse map are cut to 999 : 1, so that what it is wrongly sure of can be changed."""


class Generator(nn.Module):
    """The U-Net of the paper: halved `depth` times by 4 × 4 convolutions, and back.

    The paper draws a picture anew; here most of it is in the coarse map already. With `residual`
    the answer is added to the coarse logits and begins as nothing: the untrained refiner is the
    identity, and training goes on from what the segmenter knows.

    Args:
        bands: of the image.
        channels: of the map.
        filters: of the first convolution; doubled in each of the next three.
        depth: how often it is halved; 8 in the paper, for 256 px. Height and width must be
            multiples of `multiple_px`.
        dropout: in the three innermost blocks on the way back.
        residual: add to the coarse logits, or answer without them.
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
            # Normalised, an innermost block of one pixel would be nothing (the paper's errata).
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
        """Refined logits (n, channel, y, x).

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
    """Whether patches of a map are drawn by hand, each judged with the image beneath it.

    Args:
        bands: of the image.
        channels: of the map.
        filters: of the first convolution; doubled in each of the next three.
        layers: convolutions that halve; 3 judges patches of 70 × 70 px, as in the paper.
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
    def patch_px(layers: int) -> int:
        """Side of what one answer looks at."""
        # 7 for the two last convolutions, which step by one; doubled, and 2 more, by each other.
        return 9 * (1 << layers) - 2

    @staticmethod
    def smallest_px(layers: int) -> int:
        """Side of the smallest input that gives an answer."""
        return 3 << layers

    def forward(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Logits (n, 1, patch, patch), high for what is drawn by hand.

        Args:
            image: (n, band, y, x) normalised pixels.
            drawn: (n, channel, y, x) probabilities in 0..1.
        """
        verdict: Tensor = self.blocks(torch.cat([image, 2 * drawn - 1], dim=1))
        return verdict


class RefinedNet(nn.Module):
    """Segmenter and generator as one: normalised pixels to (refined, coarse) logits.

    What the segmenter answers beyond the classes (a second head) is in both as it is.
    """

    def __init__(self, segmenter: nn.Module, generator: Generator) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.generator = generator

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        coarse = self.segmenter(image)
        channels = self.generator.channels
        refined = self.generator(image, coarse[:, :channels])
        if coarse.shape[1] > channels:
            refined = torch.cat([refined, coarse[:, channels:]], dim=1)
        return refined, coarse


def _widths(filters: int, levels: int) -> list[int]:
    """Doubled three times at most."""
    return [filters << min(level, 3) for level in range(levels)]


def _bounded(logits: Tensor) -> Tensor:
    """Logits whose odds, each class against the most likely, are at most `_SUREST`."""
    logits = logits.float()
    if logits.shape[1] == 1:
        return logits.clamp(-_SUREST, _SUREST)
    return (logits - logits.amax(dim=1, keepdim=True)).clamp(min=-_SUREST)


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
    """As in the paper: weights from N(0, 0.02)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, _STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
