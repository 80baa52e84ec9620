"""What the second head learns: where one building ends and the next begins.

Targets are made from instances, on the crop and at the model's scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import BoolArray, InstanceReader, LabelReader, Window

__all__ = [
    "BorderTarget",
    "DistanceTarget",
    "Separation",
    "SeparationTarget",
    "building_instances",
    "separation_target",
    "told_instances",
]

Instances = NDArray[np.int32]

Separation = Literal["border", "distance"]

SeparationTarget = Callable[[Instances], NDArray[np.float32]]
"""(y, x) instances, 0 where there is none, to (y, x) float32 in 0..1."""


def told_instances(label: LabelReader | None, window: Window | None = None) -> Instances | None:
    """What a label says of its objects inside `window` (default all); None where it does not."""
    return label.read_instances(window) if isinstance(label, InstanceReader) else None


def building_instances(is_building: BoolArray, told: Instances | None) -> Instances:
    """Which building each pixel belongs to.

    Args:
        is_building: (y, x).
        told: (y, x) by the label, see `InstanceReader`. Where it does not tell buildings apart,
            their connected components stand in: pixels that share an edge or a corner. Then houses
            that touch count as one.

    Returns:
        (y, x) int32; 0 where there is no building.
    """
    if told is not None:
        return np.where(is_building, told, 0)
    _, numbers = cv2.connectedComponents(is_building.view(np.uint8), connectivity=8)
    return np.asarray(numbers, dtype=np.int32)


@dataclass(frozen=True)
class BorderTarget:
    """1 within `reach_px` of two buildings, else 0 (the touching borders of Iglovikov et al. 2018,
    "TernausNetV2").

    It covers the pixels on both sides of a shared wall, and gaps up to twice the reach, which
    alone keep such houses apart.

    Args:
        reach_px: model pixels, along rows and columns.
    """

    reach_px: int

    def __call__(self, instances: Instances) -> NDArray[np.float32]:
        low, high = _extremes(instances, self.reach_px)
        border: NDArray[np.float32] = ((high > 0) & (low != high)).astype(np.float32)
        return border


@dataclass(frozen=True)
class DistanceTarget:
    """How deep a pixel lies in its building: 0 on the outline, 1 from `reach_px` inwards (the
    clipped distance of Audebert et al. 2019, "Distance transform regression for spatially-aware
    deep semantic segmentation").

    Args:
        reach_px: model pixels.
    """

    reach_px: int

    def __call__(self, instances: Instances) -> NDArray[np.float32]:
        low, high = _extremes(instances, 1, background=0)
        inside = ((instances > 0) & (low == high)).astype(np.uint8)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.asarray(np.minimum(depth / np.float32(self.reach_px), 1), dtype=np.float32)


def separation_target(kind: Separation, reach_px: int) -> SeparationTarget:
    """The target of one kind of head; picklable."""
    return BorderTarget(reach_px) if kind == "border" else DistanceTarget(reach_px)


def _extremes(
    instances: Instances, reach_px: int, *, background: float = np.inf
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The lowest and the highest number in the square around each pixel.

    Args:
        background: what stands for no building in the lowest; infinite leaves it out.
    """
    # OpenCV has these filters for floats, which hold the numbers of 2^24 buildings.
    numbers = instances.astype(np.float32)
    square = np.ones((2 * reach_px + 1, 2 * reach_px + 1), np.uint8)
    high = cv2.dilate(numbers, square)
    low = cv2.erode(np.where(instances > 0, numbers, np.float32(background)), square)
    return np.asarray(low, dtype=np.float32), np.asarray(high, dtype=np.float32)
