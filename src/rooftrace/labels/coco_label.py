"""Segmentations of COCO, polygons and run lengths: the label of an image, and their encoding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from rooftrace.core.arrays import finite_array
from rooftrace.core.errors import LabelError, MissingExtraError
from rooftrace.core.text import size_text
from rooftrace.core.types import BoolArray, Floats, GeoGrid, Ints, Window
from rooftrace.io.make_valid import made_valid
from rooftrace.labels.rle import Bounds, Order, bounds_of, draw_runs
from rooftrace.labels.shapes import ShapesLabel, bridged, traced

Rle = dict[str, Any]
"""Run lengths of pycocotools: `size` (rows, columns) and compressed `counts`."""

_ALL_VALUES = 64
"""Number of values that a character of compressed run lengths may have."""

_MOST_CODES = 7
"""Maximum number of characters in a number: 35 bits, more than any image has pixels."""


def mask_tools() -> Any:
    """Return the module `pycocotools.mask`; raise MissingExtraError if it is not installed."""
    with MissingExtraError.on_import("labels", "Writing COCO", "pycocotools"):
        from pycocotools import mask
    return mask


def decompress(text: str | bytes) -> Ints | None:
    """Decompress COCO's run lengths; return None if the text is not compressed run lengths.

    Each character holds five bits of a number, lowest bits first. Each number from the fourth on is
    the difference from the last but one (`rleFrString` in https://github.com/ppwwyyxx/cocoapi).
    """
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError:
        return None
    codes = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() >= _ALL_VALUES or codes[-1] & 32:
        return None
    stops = np.flatnonzero((codes & 32) == 0) + 1
    starts = np.concatenate(([0], stops[:-1]))
    lengths = stops - starts
    if lengths.max() > _MOST_CODES:
        return None
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= np.where(codes[stops - 1] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def outline_rle(outline: shapely.Geometry, shape_yx: tuple[int, int]) -> Rle:
    """Return the run lengths of a polygon in pixels, as JSON has them."""
    parts = shapely.orient_polygons(shapely.get_parts(outline))
    rings = [bridged(part).ravel().tolist() for part in parts]
    tools = mask_tools()
    rle = tools.merge(tools.frPyObjects(rings, *shape_yx))
    return {"size": list(shape_yx), "counts": rle["counts"].decode()}


def encode_mask(mask: BoolArray) -> Rle:
    """Encode a mask (y, x) as one compressed RLE."""
    encoded: Rle = mask_tools().encode(np.asfortranarray(mask.view(np.uint8)))
    return encoded


@dataclass(frozen=True, slots=True)
class CocoAnnotation:
    """One annotation.

    Args:
        where: Location for error messages.
        index: Class index, or IGNORED.
        segmentation: Polygons (lists of x, y, x, y, …) or run lengths, as in the file.
    """

    where: str
    index: int
    segmentation: Any


def annotated_label(annotations: Sequence[CocoAnnotation], grid: GeoGrid) -> ShapesLabel:
    """Return the label of an image by its annotations, from the lowest to the topmost.

    Raises:
        LabelError: A segmentation is damaged, or for an image of another size.
    """
    outlines = [_outline(one, grid.shape) for one in annotations]
    return ShapesLabel(
        np.array([*outlines, None], np.object_)[:-1],
        [one.index for one in annotations],
        grid,
        are_drawn=all(isinstance(one.segmentation, list) for one in annotations),
    )


def _outline(one: CocoAnnotation, shape_yx: tuple[int, int]) -> shapely.Geometry:
    try:
        if isinstance(one.segmentation, dict):
            return traced_runs({**one.segmentation, "size": shape_yx})
        corners = map(polygon_corners, one.segmentation)
        return shapely.union_all([made_valid(shapely.Polygon(ring)) for ring in corners])
    except ValueError as error:
        raise LabelError(
            f"{one.where} cannot be read: {error}.", remedy="Export the labels again."
        ) from error


def polygon_corners(polygon: object) -> Floats:
    """Return the (n, 2) corners x, y of a polygon of the file; raise ValueError if it is none."""
    values = finite_array(polygon)
    if values is None or values.ndim != 1 or len(values) < 6 or len(values) % 2:
        raise ValueError(f"{str(polygon)[:60]!r} is not a polygon x, y, x, y, …")
    return values.reshape(-1, 2)


def traced_runs(rle: Mapping[str, Any]) -> shapely.MultiPolygon:
    """Return the outline of a mask in COCO's run lengths, as a string or as numbers.

    Raises:
        ValueError: They are not run lengths, or do not fill the mask.
    """
    counts, (height, width) = rle["counts"], rle["size"]
    found = decompress(counts) if isinstance(counts, (str, bytes)) else finite_array(counts)
    if found is None or found.ndim != 1:
        raise ValueError(f"{str(counts)[:40]!r} is not run lengths")
    bounds = run_bounds(found.astype(np.int64), (height, width))
    bounds = bounds[bounds[:, 0] < bounds[:, 1]]
    if not len(bounds):
        return shapely.MultiPolygon()
    # Of a large image, a building has a few columns.
    first, stop = int(bounds[0, 0]) // height, -(-int(bounds[-1, 1]) // height)
    window = Window(0, first, height, stop - first)
    return traced(draw_runs(bounds, (height, width), "column", window), first)


def run_mask(counts: Sequence[int], shape_yx: tuple[int, int], order: Order) -> BoolArray:
    """Return the bitmap (y, x) of run lengths that begin with a run of zeros; see `run_bounds`."""
    return draw_runs(run_bounds(np.asarray(counts, np.int64), shape_yx), shape_yx, order)


def run_bounds(counts: Ints, shape_yx: tuple[int, int]) -> Bounds:
    """Return the runs of a mask; raise ValueError if they do not fill it."""
    if (counts < 0).any() or counts.sum() != shape_yx[0] * shape_yx[1]:
        raise ValueError(f"run lengths are for {counts.sum()} pixels, not {size_text(shape_yx)}")
    return bounds_of(counts)
