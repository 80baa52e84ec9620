"""Deduce what a table does not state: whether its runs go along rows or down columns.

If an image is not square, the runs prove it by themselves. Buildings are compact, so a mask hardly
changes from one line of pixels to the next; cut into lines of the wrong length it shears, and
changes everywhere.

If an image is square, they cannot: read in the other order, any mask is its own transpose, with the
same number of pieces, edges and runs at the ends of lines. There the image decides. A building's
outline lies where the image changes; that of the transpose lies anywhere. One image may mislead by
chance, so a sign test over many images is used. The test only assumes that a mask unrelated to its
image is equally likely to fit better in either order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import comb

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import LabelError, RooftraceError
from rooftrace.core.types import BoolArray, Scene, Window
from rooftrace.labels.rle.codec import Bounds, Order, draw_runs, is_empty, parse_runs
from rooftrace.labels.rle.table import RleTable
from rooftrace.labels.source import SceneEntry

DIRECTION: dict[Order, str] = {"row": "along rows", "column": "down columns"}
"""Description of each order."""

MOST_SCENES = 64
"""Maximum number of scenes with a mask that are examined, spread over the table."""

_LEAST_RUNS = 50
"""Minimum number of runs in a mask that votes; with fewer, a single building might decide."""

_LEAST_RUNS_IN_ALL = 200
"""Minimum number of runs in all masks for a proof of the order."""

_LEAST_RATIO = 2.0
"""Minimum ratio of changes from line to line, wrong order to right order.

The ratio is 8 to 120 on real towns whose images are not square.
"""

_LEAST_OUTLINE_PX = 50
"""Minimum length in pixels of the outlines in a mask that votes."""

_PROOF = 1e-6
_DOUBT = 0.01
"""Probabilities of votes this uneven if the images said nothing.

Below `_PROOF` the votes prove the order; below `_DOUBT` they only cast doubt on the other order.
"""

_LARGEST_PX = 1024
"""Maximum side in pixels of the part of an image that is examined."""


@dataclass(frozen=True)
class OrderEvidence:
    """Evidence in the data for the order of runs.

    Args:
        proven: Order that is proven, or None.
        leaning: Order that fits better, if that is unlikely to be chance; otherwise None.
        reason: Explanation for people.
    """

    proven: Order | None
    leaning: Order | None
    reason: str


def deduce_order(
    table: RleTable,
    scenes: Sequence[tuple[Scene, Bounds]],
    remedy: str = "Say which it is: order = row, or order = column.",
) -> tuple[Order, str]:
    """Deduce the order of a table's runs from its columns and some of its scenes.

    Args:
        table: Table of run lengths.
        scenes: Scenes of the table with their runs; see `infer_order`.
        remedy: Instruction to the user for stating the order.

    Returns:
        The order, and a note that explains it.

    Raises:
        LabelError: The order cannot be deduced.
    """
    evidence = infer_order(scenes)
    custom = table.columns.custom
    if evidence.proven is not None:
        note = f"{table.name}: runs go {DIRECTION[evidence.proven]}: {evidence.reason}."
        if custom not in (None, evidence.proven):
            note += f" In tables with these columns they usually go {DIRECTION[custom]}."
        return evidence.proven, note
    if custom is not None and evidence.leaning in (None, custom):
        return custom, (
            f"{table.name}: runs are assumed to go {DIRECTION[custom]}, as in most tables with the "
            f"column {table.columns.header[table.columns.runs]}; the data does not prove it "
            f"({evidence.reason})."
        )
    against = f", although {evidence.reason}" if evidence.leaning else f": {evidence.reason}"
    expected = f"are expected to go {DIRECTION[custom]}" if custom else "may go either way"
    raise LabelError(f"The runs of {table.name} {expected}{against}.", remedy=remedy)


def scenes_with_runs(
    entries: Iterable[SceneEntry],
    open_scene: Callable[[SceneEntry], Scene],
    cells_of: Callable[[SceneEntry], Sequence[tuple[str, str]]],
) -> Iterator[tuple[Scene, Bounds]]:
    """Yield scenes with the runs of their first row that has any, for `deduce_order`.

    A scene that cannot be read is skipped; reading it later raises the error.

    Args:
        entries: Entries with at least one row that has runs.
        open_scene: Function that opens an entry.
        cells_of: Function that returns location and runs of each row of an entry.
    """
    for entry in entries:
        try:
            scene = open_scene(entry)
            where, text = next(cell for cell in cells_of(entry) if not is_empty(cell[1]))
            yield scene, parse_runs(text, scene.image.grid.shape, where=where)
        except RooftraceError:
            continue


def infer_order(scenes: Iterable[tuple[Scene, Bounds]]) -> OrderEvidence:
    """Infer the order from scenes and their runs.

    A scene whose image cannot be read is skipped here; reading the scene later raises the error.

    Args:
        scenes: Scenes with runs, at most `MOST_SCENES`; more would make chance findings likelier.
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
        return _order_by_shapes(by_shape, runs)
    return _order_by_images(by_image)


def _order_by_shapes(votes: list[int], runs: int) -> OrderEvidence:
    row, column = votes.count(1), votes.count(-1)
    leaning: Order = "row" if row > column else "column"
    reason = (
        f"{max(row, column)} of {row + column} masks on images that are not square are compact "
        f"only in {leaning} order"
    )
    unanimous = not (row and column)
    proven = leaning if unanimous and runs >= _LEAST_RUNS_IN_ALL else None
    return OrderEvidence(proven, leaning if unanimous else None, reason)


def _order_by_images(votes: list[int]) -> OrderEvidence:
    row, column = votes.count(1), votes.count(-1)
    count, most = row + column, max(row, column)
    if not count:
        return OrderEvidence(None, None, "no mask gives evidence of the order")
    chance = 2 * sum(comb(count, k) for k in range(most, count + 1)) / 2**count
    fits: Order = "row" if row > column else "column"
    reason = f"the outlines of {most} of {count} masks fit their images better in {fits} order"
    proven = fits if chance < _PROOF else None
    return OrderEvidence(proven, fits if chance < _DOUBT else None, reason)


def _shape_vote(bounds: Bounds, shape_yx: tuple[int, int]) -> int:
    """Return 1 if the mask is compact along rows, -1 if down columns, 0 if undecided."""
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
    """Return 1 if the outlines fit the image better along rows, -1 if down columns, else 0."""
    shape_yx = scene.image.grid.shape
    side = min(shape_yx[0], _LARGEST_PX)
    # The window lies on the diagonal, so the transpose shows the same part.
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
    """Return where the mask changes to the pixel below, and to the next pixel in the row."""
    return mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]


def _mean_slope(
    slopes: tuple[NDArray[np.float32], NDArray[np.float32]], edges: tuple[BoolArray, BoolArray]
) -> float:
    """Return the mean change of the image across the outline."""
    total = sum(float(slope[edge].sum(dtype=np.float64)) for slope, edge in zip(slopes, edges))
    return total / sum(int(np.count_nonzero(edge)) for edge in edges)
