"""Losses that are means over pixels: cross-entropies, and focal loss."""

from __future__ import annotations

from typing import Annotated

import rooftrace.models._torch  # noqa: F401

# isort: split
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from rooftrace.core.errors import ConfigError
from rooftrace.models.losses.base import LOSSES, Loss, check_one_each, masked_mean, one_hot
from rooftrace.models.losses.overlap import Dice

__all__ = ["BinaryCrossEntropy", "CrossEntropy", "Focal", "FocalDice"]

Weights = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=2)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Entropy(Loss):
    """What the two cross-entropies share.

    Args:
        class_weights: one per class, in the order of the classes; default: all alike. Pixels of a
            class of weight 0 have no part.
        label_smoothing: this share of the truth is spread evenly over the classes (Szegedy et al.
            2016, "Rethinking the Inception Architecture").
    """

    class_weights: Weights | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def check(self, classes: int) -> None:
        check_one_each("class_weights", self.class_weights, classes)

    def _of_two_classes(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        first, second = self.class_weights or (1.0, 1.0)
        truth = self._smoothed(target.to(logits.dtype))
        z = logits[:, 0]
        each = -second * truth * F.logsigmoid(z) - first * (1 - truth) * F.logsigmoid(-z)
        return self._mean(each, target, valid)

    def _smoothed(self, truth: Tensor) -> Tensor:
        """Of two classes: the one, or the rest."""
        return truth * (1 - self.label_smoothing) + self.label_smoothing / 2

    def _mean(self, each: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Of weighted values, divided by the weights of the true classes, as torch does it."""
        if self.class_weights is None:
            return masked_mean(each, valid)
        weights = each.new_tensor(self.class_weights)[target]
        return masked_mean(each, valid & (weights > 0), divided_by=weights)


@LOSSES.register("ce")
class CrossEntropy(_Entropy):
    """Mean negative log likelihood of the true class; parameters as in `_Entropy`."""

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            return self._of_two_classes(logits, target, valid)
        weights = logits.new_tensor(self.class_weights) if self.class_weights else None
        each = F.cross_entropy(
            logits, target, weights, reduction="none", label_smoothing=self.label_smoothing
        )
        return self._mean(each, target, valid)


@LOSSES.register("bce")
class BinaryCrossEntropy(_Entropy):
    """Mean over channels of the binary cross-entropy, each channel against the rest.

    The weights of several classes weigh the channels; the weights of two classes that share one
    channel weigh pixels, as in cross-entropy.
    """

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            return self._of_two_classes(logits, target, valid)
        truth = self._smoothed(one_hot(target, logits))
        each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        weights = logits.new_tensor(self.class_weights or [1.0] * logits.shape[1])
        shares = weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
        return masked_mean((each * shares[:, None, None]).sum(dim=1), valid)


@LOSSES.register("focal")
class Focal(Loss):
    """Cross-entropy in which a pixel weighs (1 - p)^γ by the probability p of its true class (Lin
    et al. 2017, "Focal Loss for Dense Object Detection"); the mean over valid pixels.

    Args:
        gamma: γ; 0 is cross-entropy.
        alpha: weight of the second of two classes, the first has 1 - alpha; or one weight per
            class. Default: all 1.
    """

    gamma: Annotated[float, Field(ge=0)] = 2.0
    alpha: Share | Weights | None = None

    def check(self, classes: int) -> None:
        if isinstance(self.alpha, tuple):
            check_one_each("alpha", self.alpha, classes)
        elif self.alpha is not None and classes != 2:
            raise ConfigError(
                f"alpha of the loss is {self.alpha} for {classes} classes; a single number is "
                "for two.",
                remedy=f"Give a list of {classes} weights.",
            )

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        odds = _log_odds_of_truth(logits, target)
        # As a power of a logarithm: that of 1 - p has no finite gradient at p = 1 where γ < 1.
        each = -F.logsigmoid(odds) * (self.gamma * F.logsigmoid(-odds)).exp()
        if self.alpha is not None:
            alpha = self.alpha if isinstance(self.alpha, tuple) else (1 - self.alpha, self.alpha)
            each = each * each.new_tensor(alpha)[target]
        return masked_mean(each, valid)


@LOSSES.register("focal_dice")
class FocalDice(Loss):
    """`focal + dice`, the sum of the two as they are.

    Args:
        gamma: of the focal loss.
    """

    gamma: Annotated[float, Field(ge=0)] = 2.0

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        focal = Focal(gamma=self.gamma).value(logits, target, valid)
        return focal + Dice().value(logits, target, valid)


def _log_odds_of_truth(logits: Tensor, target: Tensor) -> Tensor:
    """(n, y, x): log p / (1 - p) of the probability of the true class."""
    if logits.shape[1] == 1:
        return torch.where(target == 1, logits[:, 0], -logits[:, 0])
    true = target[:, None]
    rest = logits.scatter(1, true, -torch.inf).logsumexp(dim=1)
    return logits.gather(1, true)[:, 0] - rest
