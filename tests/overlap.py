"""Intersection over union of two things that a test compares."""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray


def polygon_iou(one: Any, other: Any) -> Any:
    """Return the intersection over union of polygons, or of arrays of polygons in pairs."""
    return shapely.area(shapely.intersection(one, other)) / shapely.area(shapely.union(one, other))


def mask_iou(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the intersection over union of two masks."""
    return float(np.sum(found & expected) / np.sum(found | expected))
