"""A network for clicks: the encoder of a trained segmenter and a small decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rooftrace.core.errors import ConfigError

_STRIDES = (2, 4, 8, 16)
"""Strides of the features that the decoder takes."""

_CHANNELS = (24, 32, 48, 64)
"""Channels of the decoder at these strides."""

_FINE_CHANNELS = 16


class ClickNet(nn.Module):
    """Network from a normalised image, an earlier answer and two maps of clicks to a logit.

    The encoder stays as it was trained: its features depend on the image alone. The decoder takes
    them from stride 16 up to the image, and sees the clicks and the earlier answer at each stride
    (late fusion, as in Huang et al. 2023, "InterFormer").

    Args:
        encoder: Encoder of segmentation-models-pytorch, with features at the strides 2, 4, 8, 16.
        bands: Number of bands of the image.
        extra: Number of maps after the bands.

    Raises:
        ConfigError: The encoder has fewer strides.
    """

    multiple_px = _STRIDES[-1]

    def __init__(self, encoder: nn.Module, *, bands: int, extra: int) -> None:
        super().__init__()
        widths = [int(count) for count in getattr(encoder, "out_channels", ())][1:5]
        if len(widths) < len(_STRIDES):
            raise ConfigError(
                f"A network for clicks needs an encoder with features at the strides {_STRIDES}; "
                f"this one has {len(widths)} of them.",
                remedy="Choose another encoder, such as mobilenet_v2.",
            )
        self.bands = bands
        self.encoder = encoder.requires_grad_(False)
        below = 0
        blocks = []
        for width, channels in zip(reversed(widths), reversed(_CHANNELS)):
            blocks.append(_block(below + width + extra, channels))
            below = channels
        self.blocks = nn.ModuleList(blocks)
        self.fine = _block(below + bands + extra, _FINE_CHANNELS)
        self.head = nn.Conv2d(_FINE_CHANNELS, 1, 3, padding=1)

    @classmethod
    def of(cls, segmenter: nn.Module, *, bands: int, extra: int) -> ClickNet:
        """Return the network with the encoder of a segmenter.

        Raises:
            ConfigError: The segmenter has no encoder, or one with fewer strides.
        """
        encoder = getattr(segmenter, "encoder", nn.Identity())
        return cls(encoder, bands=bands, extra=extra)

    def train(self, mode: bool = True) -> ClickNet:
        """Set the mode of the decoder; the encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of an image (n, band, y, x) at the strides 2, 4, 8 and 16."""
        features: list[Tensor] = self.encoder(image)[1 : 1 + len(_STRIDES)]
        return features

    def decode(self, image: Tensor, features: list[Tensor], maps: Tensor) -> Tensor:
        """Return logits (n, 1, y, x) for the features of an image and maps (n, extra, y, x)."""
        # Joining maps of different types takes longer than the layers.
        image, maps = (one.to(features[0].dtype) for one in (image, maps))
        answer: Tensor | None = None
        for stride, feature, block in zip(reversed(_STRIDES), reversed(features), self.blocks):
            parts = [feature, F.avg_pool2d(maps, stride)]
            if answer is not None:
                parts.insert(0, F.interpolate(answer, scale_factor=2.0, mode="nearest"))
            answer = block(torch.cat(parts, dim=1))
        assert answer is not None
        finer = F.interpolate(answer, scale_factor=2.0, mode="nearest")
        logits: Tensor = self.head(self.fine(torch.cat([finer, image, maps], dim=1)))
        return logits

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits (n, 1, y, x) for an image with maps (n, band + extra, y, x)."""
        image, maps = inputs[:, : self.bands], inputs[:, self.bands :]
        return self.decode(image, self.encode(image), maps)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
