"""A U-Net whose decoder ends at half the resolution, and whose head makes four pixels of each.

The last step of a usual decoder works on all pixels with few channels, which is where a light
network spends a third of its time. Here the head returns 2 × 2 values for each place of half the
resolution instead (Shi et al. 2016, "Real-time single image and video super-resolution using an
efficient sub-pixel convolutional neural network").

This module imports only torch and segmentation-models-pytorch, so that a bare machine with a GPU
can train with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

_SUBPIXELS = 2
"""Output pixels per pixel of the decoder, along each axis."""

_STAGES = 5
"""Stages of the encoder, each of which halves the resolution."""


class SubpixelUnet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with a sub-pixel head: (n, band, y, x) to (n, channel, y, x)
    logits, where y and x are multiples of the stride of the encoder.

    Args:
        encoder_name, encoder_weights, in_channels: As in `smp.Unet`.
        classes: Channels of the output.
        decoder_channels: Channels of the decoder from a sixteenth to half of the resolution.
        kwargs: Further arguments of the encoder.

    Raises:
        ValueError: The encoder has not five stages, or `decoder_channels` has not four values.
    """

    def __init__(
        self,
        encoder_name: str = "mobilenet_v2",
        encoder_weights: str | None = "imagenet",
        in_channels: int = 3,
        classes: int = 1,
        decoder_channels: Sequence[int] = (128, 64, 32, 16),
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.encoder = smp.encoders.get_encoder(
            encoder_name, in_channels=in_channels, depth=_STAGES, weights=encoder_weights, **kwargs
        )
        widths = self.encoder.out_channels
        stages, stride = len(widths) - 1, self.encoder.output_stride
        if (stages, stride) != (_STAGES, 2**_STAGES):
            raise ValueError(
                f"the encoder has {stages} stages down to a stride of {stride}, expected {_STAGES} "
                f"down to {2**_STAGES}; choose another one, such as mobilenet_v2"
            )
        self.decoder = UnetDecoder(widths, decoder_channels, n_blocks=_STAGES - 1)
        self.shuffled_channels = classes
        self.segmentation_head = nn.Sequential(
            nn.Conv2d(decoder_channels[-1], classes * _SUBPIXELS**2, 3, padding=1),
            nn.PixelShuffle(_SUBPIXELS),
        )
        initialize_decoder(self.decoder)
        initialize_head(self.segmentation_head)

    def forward(
        self, image: Tensor, activate: Callable[[Tensor], Tensor] = lambda logits: logits
    ) -> Tensor:
        """Return the logits of a normalised image.

        Args:
            image: (n, band, y, x), normalised.
            activate: Function by pixel and channel that is applied to the logits. Before the
                shuffle, engines can round its values to bytes.
        """
        features = self.encoder(image)
        decoded = features[-1]
        for block, skip in zip(self.decoder.blocks, features[-2:0:-1], strict=True):
            height, width = skip.shape[-2:]
            decoded = block(decoded, height, width, skip_connection=skip)
        convolution, shuffle = self.segmentation_head
        values: Tensor = shuffle(activate(convolution(decoded)))
        return values
