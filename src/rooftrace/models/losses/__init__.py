"""Losses by name, and sums of them written as `"0.6*ce + 0.4*tversky(alpha=0.3, beta=0.7)"`.

Each takes logits (n, channel, y, x), the target (n, y, x) of class indices and the validity
(n, y, x), and answers a scalar; pixels that are not valid have no part in it. One channel stands
for two classes: its logit is the difference of their two, so that cross-entropy over two classes
and binary cross-entropy are the same function.
"""

from __future__ import annotations

from rooftrace.models.losses.base import LOSSES, Loss, probabilities
from rooftrace.models.losses.boundary import Boundary
from rooftrace.models.losses.expression import LossSum, parse_loss
from rooftrace.models.losses.lovasz import Lovasz
from rooftrace.models.losses.overlap import Dice, Jaccard, Tversky
from rooftrace.models.losses.pixelwise import BinaryCrossEntropy, CrossEntropy, Focal, FocalDice

__all__ = [
    "LOSSES",
    "BinaryCrossEntropy",
    "Boundary",
    "CrossEntropy",
    "Dice",
    "Focal",
    "FocalDice",
    "Jaccard",
    "Loss",
    "LossSum",
    "Lovasz",
    "Tversky",
    "parse_loss",
    "probabilities",
]
