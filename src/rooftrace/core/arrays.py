"""Small functions of arrays that several layers share."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import BoolArray, Floats, Ints


def finite_array(values: object) -> Floats | None:
    """Return numbers of a file as an array; None if one is no number or beyond float64."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return array if np.isfinite(array).all() else None


def in_steps(values: NDArray[Any], count: int) -> Iterator[NDArray[Any]]:
    """Yield the values of an array, `count` at a time."""
    return (values[start : start + count] for start in range(0, len(values), count))


def numbered(count: Ints) -> tuple[Ints, Ints]:
    """Return the owner of each entry of runs of `count` (n,), and its number in the run."""
    own = np.repeat(np.arange(len(count)), count)
    return own, np.arange(len(own)) - (np.cumsum(count) - count)[own]


def components(count: int, one: Ints, other: Ints) -> Ints:
    """Return (count,) the smallest member of each node's connected component.

    Each label falls to the minimum of its neighbours' labels, with pointer doubling, until no edge
    connects two different labels.

    Args:
        count: Number of nodes.
        one, other: (edges,) the two nodes of each edge.
    """
    label = np.arange(count)
    while True:
        low, high = np.minimum(label[one], label[other]), np.maximum(label[one], label[other])
        different = low < high
        if not different.any():
            return label
        np.minimum.at(label, high[different], low[different])
        while (label[label] != label).any():
            label = label[label]


def nulls(values: NDArray[Any]) -> BoolArray | None:
    """Return (n,) True for NaN, NaT and masked values; None for texts, and where none is null."""
    masked: BoolArray | None = None
    if isinstance(values, np.ma.MaskedArray):
        masked = np.ma.getmaskarray(values)
    if values.dtype.kind not in "fM":
        return masked
    data = np.ma.getdata(values)
    missing: BoolArray = np.isnan(data) if values.dtype.kind == "f" else np.isnat(data)
    return missing if masked is None else missing | masked
