"""The boundary loss: how far from the true outline the answer is wrong."""

from __future__ import annotations

import math

import rooftrace.models._torch  # noqa: F401

# isort: split
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rooftrace.models.losses.base import LOSSES, Loss, masked_mean, one_hot, probabilities

__all__ = ["Boundary"]


@LOSSES.register("boundary")
class Boundary(Loss):
    """Mean over pixels and channels of |answer - truth| times the distance from the true outline
    (Kervadec et al. 2019, "Boundary loss for highly unbalanced segmentation").

    The paper's ∫ φ·s with the constant -∫ φ·g that it drops, so that the best answer has 0: φ is
    the signed distance, negative inside, s the answer and g the truth. Distances are in shares of
    the diagonal of the sample, from a pixel's centre to the edge of the nearest valid pixel on the
    other side; 0 where a class has no outline, so add a loss of overlap or of pixels to it.

    They are computed for each batch on the CPU.
    """

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        truth = one_hot(target, logits)
        distance = torch.from_numpy(
            _distances(truth.bool().cpu().numpy(), valid[:, None].cpu().numpy())
        ).to(logits)
        each = (probabilities(logits) - truth).abs() * distance
        return masked_mean(each.mean(dim=1), valid)


def _distances(inside: NDArray[np.bool_], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(n, channel, y, x) of `inside` to distances from its outline in shares of the diagonal."""
    distances = np.zeros(inside.shape, np.float32)
    diagonal_px = math.hypot(*inside.shape[-2:])
    for number, channel in np.ndindex(inside.shape[:2]):
        here, known = inside[number, channel], valid[number, 0]
        for side, other in ((here & known, ~here & known), (~here & known, here & known)):
            if side.any() and other.any():
                to_other = cv2.distanceTransform(
                    (~other).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
                )
                # From centre to centre, less the half pixel to the edge between the two.
                distances[number, channel][side] = (to_other[side] - 0.5) / diagonal_px
    return distances
