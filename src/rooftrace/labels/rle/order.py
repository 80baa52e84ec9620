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

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import comb

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import LabelError, RooftraceError
from rooftrace.core.types import BoolArray, Scene, Window
from rooftrace.labels.rle.codec import Bounds, Order, draw_runs, is_empty, parse_runs
from rooftrace.labels.rle.table import RleTable
from rooftrace.labels.source import SceneEntry

Cells = tuple[tuple[str, str], ...]
"""Pairs (location for error messages, text of runs), one for each row of an image."""

DIRECTION: dict[Order, str] = {"row": "along rows", "column": "down columns"}
"""Description of each order."""

_MOST_SCENES = 64
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


def deduce_order(
    table: RleTable,
    cells: Mapping[str, Cells],
    entries: Sequence[SceneEntry],
    open_scene: Callable[[SceneEntry], Scene],
    remedy: str = "Say which it is: order = row, or order = column.",
) -> tuple[Order, str]:
    """Deduce the order of a table's runs from its columns and some of its scenes.

    Args:
        table: Table of run lengths.
        cells: Run lengths of each scene, by its id.
        entries: The scenes.
        open_scene: Function that opens an entry.
        remedy: Instruction to the user for stating the order.

    Returns:
        The order, and a note that explains it; empty if no mask has a pixel.

    Raises:
        LabelError: The order cannot be deduced.
    """
    custom = table.columns.custom
    drawn = [one for one in entries if not all(is_empty(text) for _, text in cells[one.id])]
    if not drawn:
        return custom or "row", ""
    # With more scenes, chance findings would be likelier.
    spread = sorted({index * len(drawn) // _MOST_SCENES for index in range(_MOST_SCENES)})
    leaning, is_proven, reason = _evidence([drawn[i] for i in spread], cells, open_scene)
    if leaning is not None and is_proven:
        note = f"{table.name}: runs go {DIRECTION[leaning]}: {reason}."
        if custom not in (None, leaning):
            note += f" In tables with these columns they usually go {DIRECTION[custom]}."
        return leaning, note
    if custom is not None and leaning in (None, custom):
        return custom, (
            f"{table.name}: runs are assumed to go {DIRECTION[custom]}, as in most tables with the "
            f"column {table.columns.header[table.columns.runs]}; the data does not prove it "
            f"({reason})."
        )
    against = f", although {reason}" if leaning else f": {reason}"
    expected = f"are expected to go {DIRECTION[custom]}" if custom else "may go either way"
    raise LabelError(f"The runs of {table.name} {expected}{against}.", remedy=remedy)


def _evidence(
    entries: Sequence[SceneEntry],
    cells: Mapping[str, Cells],
    open_scene: Callable[[SceneEntry], Scene],
) -> tuple[Order | None, bool, str]:
    """Return the order that fits better than by chance or None, whether that is proof, and why."""
    by_shape: list[int] = []
    by_image: list[int] = []
    runs = 0
    for entry in entries:
        # A scene that cannot be read is skipped; reading it later raises the error.
        with suppress(RooftraceError):
            scene = open_scene(entry)
            height, width = scene.image.grid.shape
            where, text = next(cell for cell in cells[entry.id] if not is_empty(cell[1]))
            bounds = parse_runs(text, (height, width), where=where)
            if height == width:
                by_image.append(_image_vote(bounds, scene))
                continue
            by_shape.append(_shape_vote(bounds, (height, width)))
            runs += len(bounds) if by_shape[-1] else 0
    votes = by_shape if any(by_shape) else by_image
    row, column = votes.count(1), votes.count(-1)
    count, most = row + column, max(row, column)
    fits: Order = "row" if row > column else "column"
    if any(by_shape):
        reason = f"{most} of {count} masks on images that are not square are compact only in {fits}"
        unanimous = most == count
        return fits if unanimous else None, runs >= _LEAST_RUNS_IN_ALL, f"{reason} order"
    if not count:
        return None, False, "no mask gives evidence of the order"
    reason = f"the outlines of {most} of {count} masks fit their images better in {fits} order"
    chance = 2 * sum(comb(count, k) for k in range(most, count + 1)) / 2**count
    return fits if chance < _DOUBT else None, chance < _PROOF, reason


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
