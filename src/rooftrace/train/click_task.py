"""A network for clicks on single buildings, and its training.

It has the encoder of a trained segmenter and a small decoder. It is trained with simulated clicks
on one building of each sample, as in RITM (Sofiiuk et al. 2022): a few random clicks, then up to
`clicks.rounds` corrections of the network's own output in the middle of its largest error. The
output before the last correction is an input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rooftrace.core.errors import ConfigError
from rooftrace.core.types import BoolArray
from rooftrace.models.clicks import Click, draw_clicks, middle, next_click
from rooftrace.train.datamodule import Batch
from rooftrace.train.task import SegmentationTask

_STRIDES = (2, 4, 8, 16)
"""Strides of the features that the decoder takes."""

_CHANNELS = (24, 32, 48, 64)
"""Channels of the decoder at these strides."""

_FINE_CHANNELS = 16


class ClickNet(nn.Module):
    """Network from a normalised image, an earlier prediction and two maps of clicks to a logit.

    The encoder stays as it was trained: its features depend on the image alone. The decoder takes
    them from stride 16 up to the image, and sees the clicks and the earlier prediction at each
    stride (late fusion, as in Huang et al. 2023, "InterFormer").

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
        decoded: Tensor | None = None
        for stride, feature, block in zip(reversed(_STRIDES), reversed(features), self.blocks):
            parts = [feature, F.avg_pool2d(maps, stride)]
            if decoded is not None:
                parts.insert(0, F.interpolate(decoded, scale_factor=2.0, mode="nearest"))
            decoded = block(torch.cat(parts, dim=1))
        assert decoded is not None
        finer = F.interpolate(decoded, scale_factor=2.0, mode="nearest")
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


_MIN_OBJECT_PX = 25
"""Minimum number of visible pixels of a building that is clicked."""

_CENTRE_SHARE = 0.5
"""Share of the samples in which the building at the centre is clicked; else a random one."""

_SEED_LIMIT = 2**31


class ClickTask(SegmentationTask):
    """A network that takes an image, clicks and its earlier prediction, and segments one building.

    The figures of an epoch are those of the predictions after the last simulated click: after
    random numbers of clicks in training, and after `clicks.rounds` clicks in validation.
    """

    def training_step(self, batch: Batch, index: int) -> Tensor:
        del index
        # The trainer seeds torch for each batch, so that a resumed run draws the same clicks.
        rng = np.random.default_rng(int(torch.randint(_SEED_LIMIT, ())))
        objects, valid = _choose_objects(batch, rng)
        clicks = [_first_clicks(one, known, rng) for one, known in zip(objects, valid)]
        net, images = self.net, self.normalise(batch.images)
        assert isinstance(net, ClickNet)
        features = net.encode(images)
        earlier = torch.zeros_like(images[:, :1])
        net.eval()
        with torch.no_grad():
            for _ in range(int(rng.integers(self._rounds))):
                logits = net.decode(images, features, _maps(clicks, earlier))
                earlier = torch.sigmoid(logits.float())
                _correct(clicks, objects, valid, earlier, rng)
        # The mode of the task, not of the network alone: frozen statistics stay as they are.
        self.train()
        logits = net.decode(images, features, _maps(clicks, earlier))
        loss, targets, known = self._compare(logits, objects, valid)
        self._train.add(logits.detach(), targets, known, loss.detach())
        return loss

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        del index
        objects, valid = _choose_objects(batch, None)
        clicks: list[list[Click]] = [[] for _ in objects]
        net, images = self.best_net, self.normalise(batch.images)
        assert isinstance(net, ClickNet)
        features = net.encode(images)
        logits = torch.full_like(images[:, :1], -torch.inf)
        for _ in range(self._rounds):
            earlier = torch.sigmoid(logits.float())
            _correct(clicks, objects, valid, earlier, None)
            logits = net.decode(images, features, _maps(clicks, earlier))
        loss, targets, known = self._compare(logits, objects, valid)
        self._val[dataloader_idx].add(logits, targets, known, loss)

    def _compare(
        self, logits: Tensor, objects: BoolArray, valid: BoolArray
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, the target and the known pixels."""
        targets = torch.from_numpy(objects).to(logits.device).byte()
        known = torch.from_numpy(valid).to(logits.device)
        return self.loss(logits, targets, known), targets, known

    @property
    def _rounds(self) -> int:
        assert self.config.clicks is not None
        return self.config.clicks.rounds


def _maps(clicks: Sequence[Sequence[Click]], earlier: Tensor) -> Tensor:
    """Return the earlier predictions and the maps of clicks, (n, 3, y, x)."""
    drawn = np.stack([draw_clicks(one, earlier.shape[-2:]) for one in clicks])
    maps = torch.cat([earlier, torch.from_numpy(drawn).to(earlier)], dim=1)
    return maps.contiguous(memory_format=torch.channels_last)


def _choose_objects(batch: Batch, rng: np.random.Generator | None) -> tuple[BoolArray, BoolArray]:
    """Return the (n, y, x) building of each sample, and its known pixels.

    A sample without a building that is large enough has no known pixel. Without `rng`, the largest
    building is taken that is not cut by the edge, or the largest one.
    """
    assert batch.instances is not None
    numbers = batch.instances.cpu().numpy()
    valid = batch.valid.cpu().numpy().copy()
    objects = np.zeros(numbers.shape, dtype=np.bool_)
    for index, one in enumerate(numbers):
        found, counts = np.unique(one[one > 0], return_counts=True)
        found, counts = found[counts >= _MIN_OBJECT_PX], counts[counts >= _MIN_OBJECT_PX]
        if not len(found):
            valid[index] = False
            continue
        if rng is None:
            edge = np.unique(np.concatenate([one[0], one[-1], one[:, 0], one[:, -1]]))
            whole = ~np.isin(found, edge)
            number = found[(counts + (counts.sum() * whole)).argmax()]
        else:
            centre = one[one.shape[0] // 2, one.shape[1] // 2]
            at_centre = centre in found and rng.random() < _CENTRE_SHARE
            number = centre if at_centre else rng.choice(found)
        objects[index] = one == number
    return objects, valid


def _first_clicks(target: BoolArray, valid: BoolArray, rng: np.random.Generator) -> list[Click]:
    """Return one positive click, and in half of the samples further clicks of both kinds."""
    if not valid.any():
        return []
    clicks = [Click(*middle(target, rng.random(), rng))]
    if rng.random() < 0.5:
        outside = ~target & valid
        more = int(rng.integers(3)), int(rng.integers(4)) if outside.any() else 0
        clicks += [Click(*middle(target, 0.0, rng)) for _ in range(more[0])]
        clicks += [Click(*middle(outside, 0.0, rng), positive=False) for _ in range(more[1])]
    return clicks


def _correct(
    clicks: Sequence[list[Click]],
    objects: BoolArray,
    valid: BoolArray,
    predictions: Tensor,
    rng: np.random.Generator | None,
) -> None:
    """Add a click in the largest error of each prediction: in its middle, or with `rng` near it."""
    predicted = predictions[:, 0].detach().cpu().numpy() > 0.5
    for given, target, shown, known in zip(clicks, objects, predicted, valid):
        click = next_click(target, shown, known, 0.5, rng)
        if click is not None:
            given.append(click)
