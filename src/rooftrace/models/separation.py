"""The second head, which tells touching buildings apart: the last of a network's outputs."""

from __future__ import annotations

import rooftrace.models._torch  # noqa: F401

# isort: split
from torch import Tensor
from torch.nn import functional as F

__all__ = ["separation_loss"]

_SMOOTH = 1.0


def separation_loss(logit: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy plus 1 - Dice, over the valid pixels of the batch.

    Cross-entropy with a target between 0 and 1 has its minimum where the probability is the
    target, so that one loss serves borders and distances. Borders are few pixels, which Dice
    weighs up (Milletari et al. 2016, with squares in the denominator, so that its minimum, too, is
    at the target).

    Args:
        logit: (n, y, x) of the head.
        target: (n, y, x) float32 in 0..1, see `data.separation`.
        valid: (n, y, x) bool.
    """
    # Sums over many pixels overflow or lose their small parts in half precision.
    logit, weight = logit.float(), valid.float()
    each = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    entropy = (each * weight).sum() / weight.sum().clamp(min=1)
    probability = logit.sigmoid()
    both = (probability * target * weight).sum()
    squares = ((probability**2 + target**2) * weight).sum()
    return entropy + 1 - (2 * both + _SMOOTH) / (squares + _SMOOTH)
