"""Pixels of any kind as a screen shows them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_rgb"]


def as_rgb(data: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """(y, x, 3) uint8: the first three bands, or the first as grey.

    Args:
        data: (band, y, x), any dtype; what is not 8-bit is stretched from its 1st to its 99th
            percentile.
        valid: (y, x), the pixels that the percentiles are taken of; default all.
    """
    bands = data[:3] if len(data) >= 3 else np.repeat(data[:1], 3, axis=0)
    if bands.dtype != np.uint8:
        values = bands.astype(np.float32)
        known = values if valid is None else values[:, valid]
        low, high = np.percentile(known, (1, 99)) if known.size else (0.0, 1.0)
        bands = ((values - low) / max(high - low, 1e-6) * 255).clip(0, 255)
    return np.ascontiguousarray(np.moveaxis(bands, 0, -1).astype(np.uint8))
