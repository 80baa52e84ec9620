"""Whether runs go along rows or down columns: deduced where the data proves it.

On an image that is not square the runs prove it by themselves. Buildings are compact, so from one
line of pixels to the next a mask hardly changes; cut into lines of the wrong length it shears, and
changes everywhere.

On a square image they cannot: read in the other order any mask is its own transpose, with as many
pieces, edges and runs at the ends of lines. There the image has to tell. A building's outline lies
where the image changes; that of the transpose lies anywhere. One image may say the wrong thing by
chance, so a sign test over many is asked, which needs nothing but that a mask that has nothing to
do with its image is as likely to fit better one way as the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import comb

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import BoolArray, Scene, Window
from rooftrace.data.runs import Bounds, Order, draw_runs

__all__ = ["LOOKED_AT", "Evidence", "gather"]

LOOKED_AT = 64
"""Scenes with a mask that are looked at, spread over the table."""

_LEAST_RUNS = 50
"""In a mask that has a say: of fewer the shape of a single building may decide."""

_LEAST_RUNS_IN_ALL = 200
_LEAST_RATIO = 2.0
"""Changes from line to line, wrong order by right: 8 to 120 on real towns, where sides differ."""

_LEAST_OUTLINE_PX = 50
_PROOF = 1e-6
_DOUBT = 0.01
"""Chance of so uneven votes where the image says nothing: below it they prove, or are doubt."""

_LARGEST_PX = 1024
"""Side of the part of an image that is looked at."""


@dataclass(frozen=True)
class Evidence:
    """What the data says of the order.

    Args:
        proven: the order, where there is no doubt.
        leaning: the order that fits better, where that can hardly be chance.
        reason: for people.
    """

    proven: Order | None
    leaning: Order | None
    reason: str


def gather(scenes: Iterable[tuple[Scene, Bounds]]) -> Evidence:
    """Judge by scenes and their runs. What cannot be read of a scene is told when its turn comes.

    Args:
        scenes: at most `LOOKED_AT`, with runs; more make chance more likely to be met.
    """
    by_shape: list[int] = []
    runs = 0
    by_image: list[int] = []
    for scene, bounds in scenes:
        shape_yx = scene.image.grid.shape
        if shape_yx[0] != shape_yx[1]:
            vote = _shape_vote(bounds, shape_yx)
            runs += len(bounds) if vote else 0
            by_shape.append(vote)
        else:
            try:
                by_image.append(_image_vote(bounds, scene))
            except RooftraceError:
                continue
    if any(by_shape):
        return _judge_shapes(by_shape, runs)
    return _judge_images(by_image)


def _judge_shapes(votes: list[int], runs: int) -> Evidence:
    row, column = votes.count(1), votes.count(-1)
    leaning: Order = "row" if row > column else "column"
    told = (
        f"of {row + column} masks on images that are not square {max(row, column)} hold together "
        f"in {leaning} order alone"
    )
    unanimous = not (row and column)
    proven = leaning if unanimous and runs >= _LEAST_RUNS_IN_ALL else None
    return Evidence(proven, leaning if unanimous else None, told)


def _judge_images(votes: list[int]) -> Evidence:
    row, column = votes.count(1), votes.count(-1)
    count, most = row + column, max(row, column)
    if not count:
        return Evidence(None, None, "no mask says anything of it")
    chance = 2 * sum(comb(count, k) for k in range(most, count + 1)) / 2**count
    fits: Order = "row" if row > column else "column"
    told = f"the outlines of {most} of {count} masks fit their images better in {fits} order"
    proven = fits if chance < _PROOF else None
    return Evidence(proven, fits if chance < _DOUBT else None, told)


def _shape_vote(bounds: Bounds, shape_yx: tuple[int, int]) -> int:
    """1 where the mask holds together read along rows, -1 down columns, 0 where neither is sure."""
    if len(bounds) < _LEAST_RUNS:
        return 0
    height, width = shape_yx
    flat = draw_runs(bounds, shape_yx, "row").ravel()
    by_row = _share(flat[width:] != flat[:-width])
    by_column = _share(flat[height:] != flat[:-height])
    if by_column >= _LEAST_RATIO * by_row:
        return 1
    return -1 if by_row >= _LEAST_RATIO * by_column else 0


def _share(changes: BoolArray) -> float:
    return float(np.count_nonzero(changes) / max(changes.size, 1))


def _image_vote(bounds: Bounds, scene: Scene) -> int:
    """1 where the outlines fit the image better read along rows, -1 down columns, 0 if unsure."""
    shape_yx = scene.image.grid.shape
    side = min(shape_yx[0], _LARGEST_PX)
    # On the diagonal, so that its transpose is the same part.
    first = (shape_yx[0] - side) // 2
    window = Window(first, first, side, side)
    by_row = draw_runs(bounds, shape_yx, "row", window)
    edges = [_edges(mask) for mask in (by_row, by_row.T)]
    if sum(map(np.count_nonzero, edges[0])) < _LEAST_OUTLINE_PX or np.array_equal(by_row, by_row.T):
        return 0
    raster = scene.image.read(window)
    known = raster.valid & raster.valid.T
    grey = raster.data[:3].astype(np.float32).mean(axis=0)
    grey = cv2.GaussianBlur(np.where(raster.valid, grey, np.float32(0)), (0, 0), 1.0)
    slopes = (
        np.abs(np.diff(grey, axis=0)) * (known[1:] & known[:-1]),
        np.abs(np.diff(grey, axis=1)) * (known[:, 1:] & known[:, :-1]),
    )
    row, column = (_mean_slope(slopes, outline) for outline in edges)
    return int(np.sign(row - column))


def _edges(mask: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Where the mask changes from a pixel to the one below, and to the next in its row."""
    return mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]


def _mean_slope(
    slopes: tuple[NDArray[np.float32], NDArray[np.float32]], edges: tuple[BoolArray, BoolArray]
) -> float:
    """How much the image changes across the outline, on the average."""
    total = sum(float(slope[edge].sum(dtype=np.float64)) for slope, edge in zip(slopes, edges))
    return total / sum(int(np.count_nonzero(edge)) for edge in edges)
