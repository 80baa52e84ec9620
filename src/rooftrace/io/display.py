"""Pixels of any kind as a screen shows them, and pictures as they are kept."""

from __future__ import annotations

from math import floor, log10
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rooftrace.io.atomic import replacing

__all__ = ["as_rgb", "round_length", "write_picture"]


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


def round_length(metres: float) -> float:
    """For a scale bar: the largest of 1, 2, 5, 10, 20… that is no longer than `metres`."""
    power = 10.0 ** floor(log10(metres))
    return float(max(step for step in (1, 2, 5) if step * power <= metres * 1.0001) * power)


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG.

    Raises:
        ExportError: the file cannot be written.
    """
    with replacing(path) as partial:
        # Level 1 is a third larger and five times as fast.
        picture.save(partial, format="PNG", compress_level=1)
