"""What counts as nodata in pixels that have been read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError

__all__ = ["NodataRule", "differs"]


@dataclass(frozen=True)
class NodataRule:
    """What counts as nodata besides what the file itself says.

    Args:
        value: a pixel whose every band has this value.
        colour: a pixel with exactly these values, one per band.
        alpha: whether an alpha channel's zero is nodata; the channel is never a band.
    """

    value: float | None = None
    colour: tuple[float, ...] | None = None
    alpha: bool = True

    def valid(self, data: NDArray[Any], name: str) -> NDArray[np.bool_] | None:
        """(band, y, x) to (y, x), True where the rule leaves a pixel; None where it has none."""
        found: NDArray[np.bool_] | None = None
        if self.colour is not None:
            if len(self.colour) != len(data):
                raise DataError(
                    f"The nodata colour {self.colour} has {len(self.colour)} values, "
                    f"but {name} has {len(data)} bands.",
                    remedy="Give the colour one value per band.",
                )
            found = differs(data, self.colour)
        if self.value is not None:
            by_value = differs(data, (self.value,) * len(data))
            found = by_value if found is None else found & by_value
        return found


def differs(data: NDArray[Any], colour: tuple[float | None, ...]) -> NDArray[np.bool_]:
    """(band, y, x) to (y, x), True where any band differs from its value in `colour`."""
    compare: Callable[[NDArray[Any], float], NDArray[np.bool_]] = np.not_equal
    found = np.zeros(data.shape[1:], dtype=bool)
    for band, value in zip(data, colour):
        if value is None:
            found[:] = True
        elif np.isnan(value):
            found |= ~np.isnan(band)
        elif data.dtype.kind in "ui" and not _fits(value, data.dtype):
            found[:] = True
        else:
            found |= compare(band, data.dtype.type(value))
    return found


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max
