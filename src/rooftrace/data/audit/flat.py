"""Nodata where it is not meant to be: unmarked at the edge of an image, or marked inside."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["flat_area", "inner_nodata"]

_EDGE_SHARE = 0.02
"""Of the pixels along the edge, so many must have the colour before the rest is looked at."""

_LEAST_SHARE = 0.005
"""Of all pixels, what a piece must have: a white car or an overexposed roof is smaller."""


def flat_area(data: NDArray[Any], valid: NDArray[np.bool_] | None) -> tuple[tuple[int, ...], int]:
    """The commonest extreme colour at the edge of an image, and the pixels of its pieces there.

    A colour is extreme if every band is at the least or the greatest value of the dtype (floats:
    0 or 1), as fill values mostly are: black, white, magenta.

    Args:
        data: (band, y, x).
        valid: (y, x), False where nodata is marked; default all valid.

    Returns:
        The colour, one value per band, and how many valid pixels have it in pieces that reach the
        edge; ((), 0) if there are none of any size.
    """
    least, greatest = _extremes(data.dtype)
    edge = np.concatenate([data[:, 0], data[:, -1], data[:, :, 0], data[:, :, -1]], axis=1)
    if least < edge.min() and edge.max() < greatest:
        return (), 0
    high = edge == greatest
    extreme = (high | (edge == least)).all(axis=0)
    if valid is not None:
        extreme &= np.concatenate([valid[0], valid[-1], valid[:, 0], valid[:, -1]])
    if np.count_nonzero(extreme) < _EDGE_SHARE * extreme.size:
        return (), 0
    patterns, counts = np.unique(high[:, extreme], axis=1, return_counts=True)
    pattern = patterns[:, counts.argmax()]
    here = np.ones(data.shape[1:], np.bool_) if valid is None else valid.copy()
    colour = tuple(greatest if band else least for band in pattern.tolist())
    for band, value in zip(data, colour):
        here &= band == value
    areas, at_edge = _pieces(here)
    px = int(areas[at_edge & (areas >= _LEAST_SHARE * here.size)].sum())
    return (colour, px) if px else ((), 0)


def inner_nodata(valid: NDArray[np.bool_]) -> int:
    """How many pixels are nodata in pieces that do not reach the edge. `valid` (y, x)."""
    areas, at_edge = _pieces(~valid)
    return int(areas[~at_edge].sum())


def _pieces(area: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(n,) the pixels of each 4-connected piece of (y, x), and whether it reaches the edge."""
    count, labels = cv2.connectedComponents(area.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    at_edge = np.zeros(count, dtype=bool)
    for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        at_edge[line] = True
    return np.bincount(labels[area], minlength=count)[1:], at_edge[1:]


def _extremes(dtype: np.dtype[Any]) -> tuple[int, int]:
    if dtype.kind not in "ui":
        return 0, 1
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)
