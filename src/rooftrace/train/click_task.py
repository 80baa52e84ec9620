"""Training of a network for clicks on single buildings.

It is trained with simulated clicks on one building of each sample, as in RITM (Sofiiuk et al.
2022): a few random clicks, then up to `clicks.rounds` corrections of the network's own answer in
the middle of its largest error. The answer before the last correction is an input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rooftrace.core.types import BoolArray
from rooftrace.models.click_net import ClickNet
from rooftrace.models.clicks import Click, draw_clicks, middle, next_click
from rooftrace.train.datamodule import Batch
from rooftrace.train.task import SegmentationTask

_MIN_OBJECT_PX = 25
"""Minimum number of visible pixels of a building that is clicked."""

_CENTRE_SHARE = 0.5
"""Share of the samples in which the building at the centre is clicked; else a random one."""

_SEED_LIMIT = 2**31


class ClickTask(SegmentationTask):
    """A network that takes an image, clicks and its earlier answer, and segments one building.

    The figures of an epoch are those of the answers after the last simulated click: after random
    numbers of clicks in training, and after `clicks.rounds` clicks in validation.
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
    """Return the earlier answers and the maps of clicks, (n, 3, y, x)."""
    drawn = np.stack([draw_clicks(one, earlier.shape[-2:]) for one in clicks])
    maps = torch.cat([earlier, torch.from_numpy(drawn).to(earlier)], dim=1)
    return maps.contiguous(memory_format=torch.channels_last)


def _choose_objects(batch: Batch, rng: np.random.Generator | None) -> tuple[BoolArray, BoolArray]:
    """Return the (n, y, x) building of each sample, and its known pixels.

    A sample without a building that is large enough has no known pixel.

    Args:
        rng: Random generator; None takes the largest building that is not cut by the edge, or the
            largest one.
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
    answers: Tensor,
    rng: np.random.Generator | None,
) -> None:
    """Add a click in the largest error of each answer: in its middle, or with `rng` near it."""
    predicted = answers[:, 0].detach().cpu().numpy() > 0.5
    for given, target, shown, known in zip(clicks, objects, predicted, valid):
        click = next_click(target, shown, known, 0.5, rng)
        if click is not None:
            given.append(click)
