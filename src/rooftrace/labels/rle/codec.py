"""Encode and decode run lengths: the pixels of a mask as `start length start length …`.

Pixels are counted from 1, along rows (`row`) or down columns (`column`), as in the tables of
contests. A run may continue from the end of one line into the next.
"""

from __future__ import annotations

import re
from typing import Literal, NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import LabelError
from rooftrace.core.types import BoolArray, Window

Order = Literal["row", "column"]

Bounds = NDArray[np.int64]
"""(n, 2) first pixel of each run and the pixel after its last, from 0, in ascending order."""

NO_RUNS = "-1"
"""Text of a mask without pixels."""

_EMPTY = frozenset(("", NO_RUNS, "nan", "none", "null", "na", "n/a", "<na>"))
_SPACES = " \t\n\v\f\r"
_ALLOWED = f"0123456789{_SPACES}".encode()
_MOST_DIGITS = 18
"""Maximum number of digits: enough for any pixel count; a sum of two fits into int64."""

_REMEDY = "Write runs as START LENGTH START LENGTH …, counted from 1, separated by spaces."


def is_empty(text: str) -> bool:
    """Return whether a text means a mask without pixels."""
    return text.strip(_SPACES).casefold() in _EMPTY


def decode_runs(text: str, shape_yx: tuple[int, int], order: Order, *, where: str) -> BoolArray:
    """Decode a string to a mask (y, x); see `parse_runs` for the arguments and errors."""
    return draw_runs(parse_runs(text, shape_yx, where=where), shape_yx, order)


def encode_runs(mask: NDArray[np.bool_ | np.uint8], order: Order) -> str:
    """Encode the nonzero pixels of a mask (y, x) as text.

    The text is canonical: runs ascend and never touch. An empty mask is `-1`.
    """
    # Comparing bool with a number makes NumPy use eight bytes for each pixel.
    inside = mask if mask.dtype == np.bool_ else mask != 0
    flat: NDArray[np.uint8] = np.ascontiguousarray(inside).view(np.uint8)
    if order == "column":
        # OpenCV transposes by blocks, many times faster than NumPy copies a transposed view.
        flat = np.asarray(cv2.transpose(flat)) if flat.size else flat.T
    flat = flat.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = [[0]] if flat.size and flat[0] else []
    ends = [[flat.size]] if flat.size and flat[-1] else []
    values = np.concatenate([*edges, changes, *ends]).astype(np.int64)
    if not len(values):
        return NO_RUNS
    values[1::2] -= values[::2]
    values[::2] += 1
    return " ".join(map(str, values.tolist()))


def parse_runs(text: str, shape_yx: tuple[int, int], *, where: str) -> Bounds:
    """Parse text to runs, checked against the size of the image.

    Runs may be in any order, since the order does not change the mask.

    Args:
        text: `start length …`. A mask without pixels is `-1`, the empty text, or a missing value
            of a table (`nan`, `null`, …).
        shape_yx: Shape of the image.
        where: Location of the text for error messages: table, row and column.

    Raises:
        LabelError: A number is not a whole number from 1, a start has no length, a run ends beyond
            the image, or two runs overlap. The message names `where` and the position of the run.
    """
    if is_empty(text):
        return np.empty((0, 2), dtype=np.int64)
    text = text.strip(_SPACES)
    values = _numbers(text)
    if values is None or values.min() < 1:
        _refuse_numbers(text, where)
    if len(values) % 2:
        raise LabelError(
            f"{where} holds {len(values)} numbers, expected pairs of start and length: the last "
            f"start, {values[-1]}, has no length.",
            remedy=_REMEDY,
        )
    bounds: Bounds = values.reshape(-1, 2) - np.array([1, 0])
    bounds[:, 1] += bounds[:, 0]
    size_px = shape_yx[0] * shape_yx[1]
    if bounds[:, 1].max() > size_px:
        first = int(np.argmax(bounds[:, 1] > size_px))
        raise LabelError(
            f"{where}: {_run(bounds, first)} ends at pixel {bounds[first, 1]:,}, but the image has "
            f"{size_px:,} ({shape_yx[0]} rows × {shape_yx[1]} columns).",
            remedy="Give the image on which the mask was drawn, at its original size.",
        )
    rank = None
    if (bounds[1:, 0] < bounds[:-1, 0]).any():
        rank = np.argsort(bounds[:, 0], kind="stable")
        bounds = bounds[rank]
    overlaps = bounds[1:, 0] < bounds[:-1, 1]
    if overlaps.any():
        at = int(np.argmax(overlaps))
        raise LabelError(
            f"{where}: {_run(bounds, at, rank)} and {_run(bounds, at + 1, rank)} overlap.",
            remedy="Write each pixel once. Masks that may overlap need a row of the table each.",
        )
    return bounds


def bounds_of(counts: NDArray[np.int64]) -> Bounds:
    """Return the runs of alternating lengths, the first of which is outside the mask."""
    edges = np.cumsum(counts)
    return edges[: len(edges) // 2 * 2].reshape(-1, 2)


def draw_runs(
    bounds: Bounds, shape_yx: tuple[int, int], order: Order, window: Window | None = None
) -> BoolArray:
    """Draw runs as a mask (y, x) or a window of it; only the lines of the window are drawn."""
    height, width = shape_yx
    window = window or Window.whole(shape_yx)
    if order == "row":
        lines, line_px = (window.row, window.row_stop), width
    else:
        lines, line_px = (window.col, window.col_stop), height
    first_px = lines[0] * line_px
    size_px = (lines[1] - lines[0]) * line_px
    inside = bounds
    if size_px < height * width:
        inside = bounds[(bounds[:, 1] > first_px) & (bounds[:, 0] < first_px + size_px)] - first_px
        inside = inside.clip(0, size_px)
    # Lengths of background and mask alternate.
    steps = np.zeros(2 * len(inside) + 2, dtype=np.int64)
    steps[1:-1] = inside.ravel()
    steps[-1] = size_px
    turns = np.arange(len(steps) - 1, dtype=np.uint8) & 1
    drawn = np.repeat(turns, np.diff(steps)).reshape(-1, line_px)
    if order == "row":
        part = drawn[:, window.col : window.col_stop]
    else:
        part = cv2.transpose(drawn[:, window.row : window.row_stop])
    return np.ascontiguousarray(part).view(np.bool_)


def _numbers(text: str) -> NDArray[np.int64] | None:
    """Parse whole numbers between spaces; return None for any other text."""
    if text.encode("ascii", "replace").translate(None, _ALLOWED):
        return None
    values: NDArray[np.int64] = np.fromstring(text, dtype=np.int64, sep=" ")
    return None if values.max() >= 10**_MOST_DIGITS else values


def _refuse_numbers(text: str, where: str) -> NoReturn:
    """Raise the error that names the first invalid number of a text."""
    tokens = re.split(f"[{_SPACES}]+", text)
    for index, token in enumerate(tokens):
        if re.fullmatch(f"[0-9]{{1,{_MOST_DIGITS}}}", token) and int(token) > 0:
            continue
        shown = token if len(token) <= 24 else token[:24] + "…"
        raise LabelError(
            f"{where}: the {'length' if index % 2 else 'start'} of run {index // 2 + 1} is "
            f"{shown!r}; expected a whole number from 1 to the number of pixels.",
            remedy=_REMEDY,
        )
    raise AssertionError(f"{text[:80]!r} has only valid numbers")


def _run(bounds: Bounds, index: int, rank: NDArray[np.intp] | None = None) -> str:
    """Describe a run as the user wrote it, with its position in the text."""
    start, stop = bounds[index].tolist()
    written = index if rank is None else int(rank[index])
    return f"run {written + 1} ({start + 1} {stop - start})"
