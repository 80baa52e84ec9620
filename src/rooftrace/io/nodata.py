"""Pixels that count as nodata besides those that a file marks: by a value, a colour, or alpha."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError


@dataclass(frozen=True)
class NodataRule:
    """Rule for pixels that count as nodata besides those that the file marks.

    Args:
        value: A pixel is nodata if every band has this value.
        colour: A pixel is nodata if it has exactly these values, one per band.
        alpha: A pixel is nodata if its alpha is zero; alpha never counts as a band.
    """

    value: float | None = None
    colour: tuple[float, ...] | None = None
    alpha: bool = True

    def valid(self, data: NDArray[Any], name: str) -> NDArray[np.bool_] | None:
        """Return (y, x), True where (band, y, x) is valid; None without value and colour."""
        found: NDArray[np.bool_] | None = None
        for value in (self.value, *(self.colour or ())):
            if value is not None and data.dtype.kind in "ui" and not _fits(value, data.dtype):
                limits = np.iinfo(data.dtype)
                raise DataError(
                    f"The nodata value {value:g} does not occur in {name}, whose pixels are whole "
                    f"numbers from {limits.min} to {limits.max} ({data.dtype}).",
                    remedy="Give a value of this range, or leave it out.",
                )
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


def nodata_to_json(rule: NodataRule | None) -> dict[str, Any] | None:
    """Return a rule as plain data; NaN and infinity are texts, since JSON has neither."""
    if rule is None:
        return None

    def plain(value: float) -> float | str:
        return value if isfinite(value) else str(value)

    return {
        "value": None if rule.value is None else plain(rule.value),
        "colour": None if rule.colour is None else [plain(value) for value in rule.colour],
        "alpha": rule.alpha,
    }


def nodata_from_json(record: object) -> NodataRule | None:
    """Return the rule in the result of `nodata_to_json`; None if there is none."""
    if not isinstance(record, Mapping):
        return None
    value, colour = record.get("value"), record.get("colour")
    return NodataRule(
        None if value is None else float(value),
        None if colour is None else tuple(float(one) for one in colour),
        record.get("alpha", True),
    )


def differs(data: NDArray[Any], colour: tuple[float | None, ...]) -> NDArray[np.bool_]:
    """Return (y, x), True where any band of (band, y, x) differs from its value in `colour`."""
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
