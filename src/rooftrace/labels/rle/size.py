"""Doubt the size of images that was given for a table of run lengths, if its runs speak against it.

A table does not state the size of its images, and runs that fit into a wrong size are read without
an error. Two signs show that a size is wrong. A mask hardly changes from one line of pixels to the
next, so the flat mask resembles itself most at a shift by the true length of a line. And some run
of many masks reaches the last lines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rooftrace.labels.rle.codec import Bounds, Order, draw_runs

__all__ = ["doubt_size"]

_LEAST_RUNS = 200
"""Minimum number of runs in all masks for a judgement."""

_LEAST_LINE_PX = 16
"""Smallest length of a line that is considered; masks resemble themselves at shorter shifts."""

_LEAST_RATIO = 2.0
"""Minimum ratio of changes from line to line, given length to best length."""

_MOST_MASKS = 16
"""Maximum number of masks that are compared with themselves: those with the most runs."""

_MOST_PX = 1 << 18
"""Maximum number of pixels of a mask that are compared."""

_LEAST_MASKS = 20
_UNREACHED = 0.1
"""Share at the end of all images that no run of `_LEAST_MASKS` masks or more may leave empty."""


def doubt_size(masks: Sequence[Bounds], shape_yx: tuple[int, int], order: Order) -> str:
    """Return a sentence that says why the size is probably wrong; "" without a reason.

    Args:
        masks: Runs of some masks that are not empty.
        shape_yx: Size of the images, which was given.
        order: Order of the runs.
    """
    if sum(map(len, masks)) < _LEAST_RUNS:
        return ""
    given_px = shape_yx[1] if order == "row" else shape_yx[0]
    changes = _changes(masks, shape_yx[0] * shape_yx[1])
    if given_px < len(changes):
        best_px = _LEAST_LINE_PX + int(np.argmin(changes[_LEAST_LINE_PX:]))
        if changes[given_px] > _LEAST_RATIO * changes[best_px]:
            return (
                f"The masks are compact with lines of {best_px} pixels, not of {given_px} as in "
                f"images of {shape_yx[0]} rows × {shape_yx[1]} columns read in {order} order."
            )
    reached = max(int(bounds[-1, 1]) for bounds in masks) / (shape_yx[0] * shape_yx[1])
    if len(masks) >= _LEAST_MASKS and reached < 1 - _UNREACHED:
        return (
            f"No run of {len(masks)} masks reaches the last {1 - reached:.0%} of images of "
            f"{shape_yx[0]} rows × {shape_yx[1]} columns."
        )
    return ""


def _changes(masks: Sequence[Bounds], size_px: int) -> NDArray[np.float64]:
    """Return the share of pixels that differ from the pixel `shift` further, by shift."""
    count_px = min(size_px, _MOST_PX)
    shifts = np.arange(count_px // 2)
    differ = np.zeros(len(shifts))
    some = sorted(masks, key=len, reverse=True)[:_MOST_MASKS]
    for bounds in some:
        flat = draw_runs(bounds, (1, size_px), "row").ravel()[:count_px].astype(np.float32)
        spectrum = np.fft.rfft(flat, 2 * count_px)
        both = np.fft.irfft(np.abs(spectrum) ** 2, 2 * count_px)[: len(shifts)]
        inside = np.concatenate([[0], np.cumsum(flat, dtype=np.float64)])
        # Inside at the first or at the second pixel of a pair, less twice those inside at both.
        first, second = inside[count_px - shifts], inside[-1] - inside[shifts]
        differ += np.maximum(np.rint(first + second - 2 * both), 0)
    return differ / (count_px - shifts) / len(some)
