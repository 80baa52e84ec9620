"""The Lovász extension of the Jaccard loss."""

from __future__ import annotations

from typing import Literal

import rooftrace.models._torch  # noqa: F401

# isort: split
import torch
from torch import Tensor

from rooftrace.models.losses.base import LOSSES, Loss, one_hot

__all__ = ["Lovasz"]


@LOSSES.register("lovasz")
class Lovasz(Loss):
    """A convex surrogate of 1 - IoU (Berman et al. 2018, "The Lovász-Softmax loss").

    One channel: Lovász hinge of the second class, 0 where every margin is at least 1. Several:
    Lovász softmax, the mean over the classes that the truth holds.

    Args:
        per: `image`: the mean over the images that have a valid pixel; `batch`: the pixels of all
            images as if they were of one.
    """

    per: Literal["image", "batch"] = "image"

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        inside, truth = valid[:, None], one_hot(target, logits)
        hinge = logits.shape[1] == 1
        errors = 1 - logits * (2 * truth - 1) if hinge else (truth - logits.softmax(dim=1)).abs()
        truth = truth * inside
        each = _extension(self._rows(errors.masked_fill(~inside, -1)), self._rows(truth))
        # A class that is not there says nothing of softmax; a scene without a building is an
        # answer of its own to the hinge.
        counted = self._rows(inside if hinge else truth > 0).any(dim=-1)
        classes = counted.sum(dim=1)
        groups = (each * counted).sum(dim=1) / classes.clamp(min=1)
        return groups.sum() / (classes > 0).sum().clamp(min=1)

    def _rows(self, values: Tensor) -> Tensor:
        """(n, channel, y, x) to (group, channel, pixel)."""
        if self.per == "batch":
            values = values.movedim(0, 1)[None]
        return values.flatten(start_dim=2)


def _extension(errors: Tensor, truth: Tensor) -> Tensor:
    """(…,) inner products of errors (…, pixel), in falling order, with the gradient of the Jaccard
    loss (…, pixel) there: Algorithm 1 of the paper. Errors below 0 count nothing.
    """
    ordered, index = errors.sort(dim=-1, descending=True)
    truth = truth.gather(-1, index)
    positives = truth.sum(dim=-1, keepdim=True)
    both = positives - truth.cumsum(dim=-1)
    either = positives + (1 - truth).cumsum(dim=-1)
    jaccard = 1 - both / either
    gradient = jaccard.diff(dim=-1, prepend=torch.zeros_like(positives))
    return (ordered.relu() * gradient).sum(dim=-1)
