"""Losses of how much the answer and the truth overlap, over the pixels of a batch."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import rooftrace.models._torch  # noqa: F401

# isort: split
from pydantic import Field
from torch import Tensor

from rooftrace.models.losses.base import LOSSES, Loss, one_hot, probabilities

__all__ = ["Dice", "Jaccard", "Tversky"]

_SMOOTH = 1.0
"""Pixels added to both sides of an overlap, so that an empty batch has a gradient."""


@LOSSES.register("dice")
class Dice(Loss):
    """1 - Dice over the batch, mean over channels (Milletari et al. 2016, "V-Net")."""

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        both, answer, truth = _overlap(logits, target, valid)
        return (1 - (2 * both + _SMOOTH) / (answer + truth + _SMOOTH)).mean()


@LOSSES.register("jaccard")
class Jaccard(Loss):
    """1 - IoU over the batch, mean over channels (Rahman and Wang 2016)."""

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        both, answer, truth = _overlap(logits, target, valid)
        return (1 - (both + _SMOOTH) / (answer + truth - both + _SMOOTH)).mean()


@LOSSES.register("tversky")
class Tversky(Loss):
    """1 - Tversky index over the batch, mean over channels (Salehi et al. 2017, "Tversky Loss
    Function for Image Segmentation Using 3D Fully Convolutional Deep Networks").

    With 1 and 1 it is `jaccard`; the defaults are those that the paper found best.

    Args:
        alpha: weight of what was answered and is not so (false positives).
        beta: weight of what was missed (false negatives).
    """

    alpha: Annotated[float, Field(ge=0)] = 0.3
    beta: Annotated[float, Field(ge=0)] = 0.7

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        both, answer, truth = _overlap(logits, target, valid)
        errors = self.alpha * (answer - both) + self.beta * (truth - both)
        return (1 - (both + _SMOOTH) / (both + errors + _SMOOTH)).mean()


class _Overlap(NamedTuple):
    both: Tensor
    answer: Tensor
    truth: Tensor


def _overlap(logits: Tensor, target: Tensor, valid: Tensor) -> _Overlap:
    """(channel,) soft pixels: of answer and truth at once, of the answer, of the truth."""
    weight = valid[:, None].to(logits.dtype)
    truth = one_hot(target, logits) * weight
    answer = probabilities(logits) * weight
    dims = (0, 2, 3)
    return _Overlap((answer * truth).sum(dim=dims), answer.sum(dim=dims), truth.sum(dim=dims))
