"""Run lengths of COCO, as pycocotools has them: read, and encoded from masks and polygons."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.errors import MissingExtraError
from rooftrace.core.types import BoolArray
from rooftrace.labels.shapes import bridged

Rle = dict[str, Any]
"""Run lengths of pycocotools: `size` (rows, columns) and compressed `counts`."""

_ALL_VALUES = 64
"""Number of values that a character of compressed run lengths may have."""

_MOST_CODES = 7
"""Maximum number of characters in a number: 35 bits, more than any image has pixels."""


def mask_tools() -> Any:
    """Return the module `pycocotools.mask`; raise MissingExtraError if it is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise MissingExtraError.of("labels", "COCO data", "pycocotools") from error
    return mask


def decompress(text: str | bytes) -> NDArray[np.int64] | None:
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
    """Return the run lengths of a polygon in pixels, as JSON has them.

    Raises:
        MissingExtraError: pycocotools is not installed.
    """
    parts = shapely.orient_polygons(shapely.get_parts(outline))
    rings = [bridged(part).ravel().tolist() for part in parts]
    tools = mask_tools()
    rle = tools.merge(tools.frPyObjects(rings, *shape_yx))
    return {"size": list(shape_yx), "counts": rle["counts"].decode()}


def encode_mask(mask: BoolArray) -> Rle:
    """Encode a mask (y, x) as one compressed RLE."""
    encoded: Rle = mask_tools().encode(np.asfortranarray(mask.view(np.uint8)))
    return encoded


def encode_regions(mask: BoolArray) -> list[Rle]:
    """Encode each connected region of a mask (y, x) as its own RLE.

    Pixels that share an edge are connected. All regions are encoded in one pass over the pixels.
    """
    tools = mask_tools()
    height, width = mask.shape
    _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    flat = cv2.transpose(labels).ravel()  # COCO counts down columns
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    stops = np.concatenate((starts[1:], [flat.size]))
    region = flat[starts]
    drawn = np.flatnonzero(region)
    drawn = drawn[np.argsort(region[drawn], kind="stable")]
    cuts = np.flatnonzero(np.diff(region[drawn])) + 1
    found = []
    for runs in np.split(drawn, cuts) if len(drawn) else []:
        edges = np.empty(2 * len(runs) + 2, dtype=np.int64)
        edges[0], edges[1:-1:2], edges[2:-1:2], edges[-1] = 0, starts[runs], stops[runs], flat.size
        counts = np.diff(edges).tolist()
        found.append(tools.frPyObjects({"size": [height, width], "counts": counts}, height, width))
    return found
