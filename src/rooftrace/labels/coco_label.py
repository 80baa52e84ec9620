"""Segmentations of COCO, polygons and run lengths: the label of an image, and its encoding.

Both are drawn as pycocotools draws them, so that every COCO tool sees the same pixels.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.arrays import finite_array
from rooftrace.core.errors import LabelError, MissingExtraError
from rooftrace.core.text import size_text
from rooftrace.core.types import BoolArray, Floats, GeoGrid, Ints, Mask, Polygons, Window
from rooftrace.io.make_valid import made_valid
from rooftrace.labels.mask_values import check_size, mask_of
from rooftrace.labels.rle import Bounds, bounds_of, draw_runs
from rooftrace.labels.shapes import bridged, clip_outlines, drawing_order, traced

Rle = dict[str, Any]
"""Run lengths of pycocotools: `size` (rows, columns) and compressed `counts`."""

_ALL_VALUES = 64
"""Number of values that a character of compressed run lengths may have."""

_MOST_CODES = 7
"""Maximum number of characters in a number: 35 bits, more than any image has pixels."""


def mask_tools() -> Any:
    """Return the module `pycocotools.mask`; raise MissingExtraError if it is not installed."""
    with MissingExtraError.on_import("labels", "COCO data", "pycocotools"):
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


@dataclass(frozen=True)
class CocoLabel:
    """The `LabelReader` of an image's annotations, drawn in `drawing_order`.

    Args:
        annotations: Annotations in the order of the file.
        shape: (rows, columns) of the image according to the file.
        grid: Grid of the image; it must have that shape.
        where: Name of the file, for error messages.
        image_name: Name of the image, for error messages.
    """

    annotations: tuple[CocoAnnotation, ...]
    shape: tuple[int, int]
    grid: GeoGrid
    where: str
    image_name: str

    def read(self, window: Window | None = None) -> Mask:
        """Return the classes inside `window` of the image; IGNORED pixels are not valid.

        Raises:
            LabelError: The size differs from the image's, or a segmentation is damaged.
        """
        window = window or Window.whole(self.shape)
        return mask_of(self._classes[self._numbers(window)], self.grid.crop(window))

    def read_instances(self, window: Window | None = None) -> NDArray[np.int32]:
        """Return (y, x) the number of the annotation that gives each pixel its class.

        Numbers start at 1; 0 means background. The errors are those of `read`.
        """
        numbers = self._numbers(window or Window.whole(self.shape))
        return np.where(self._classes[numbers] > 0, numbers, 0)

    @cached_property
    def _classes(self) -> NDArray[np.int16]:
        """Class index of the background, and of each annotation."""
        return np.array([0, *(one.index for one in self._drawn)], np.int16)

    def _numbers(self, window: Window) -> NDArray[np.int32]:
        """Return (y, x) the number of the topmost annotation, from 1; else 0."""
        check_size(self.where, self.shape, self.grid, self.image_name)
        height = self.shape[0]
        first_px, stop_px = window.col * height, window.col_stop * height
        columns = np.zeros(stop_px - first_px, dtype=np.int32)
        for number, bounds in enumerate(self._runs, start=1):
            inside = bounds[(bounds[:, 1] > first_px) & (bounds[:, 0] < stop_px)]
            for start, stop in (inside.clip(first_px, stop_px) - first_px).tolist():
                columns[start:stop] = number
        drawn = columns.reshape(-1, height)[:, window.row : window.row_stop]
        return np.ascontiguousarray(drawn.T)

    def read_outlines(self) -> tuple[Polygons, NDArray[np.int16]] | None:
        """Return the outlines as drawn, and their classes; None if any is run lengths."""
        if not all(isinstance(one.segmentation, list) for one in self.annotations):
            return None
        shapes = [_outline(one, self.shape) for one in self._drawn]
        classes = np.array([one.index for one in self._drawn], np.int16)
        frame = shapely.box(0, 0, self.shape[1], self.shape[0])
        return clip_outlines(np.array([*shapes, None], np.object_)[:-1], classes, frame)

    @cached_property
    def _drawn(self) -> tuple[CocoAnnotation, ...]:
        """Annotations from the lowest to the topmost."""
        classes = np.array([one.index for one in self.annotations], np.int16)
        if len({*classes.tolist()}) < 2:
            return self.annotations
        shapes = [
            _outline(one, self.shape)
            if isinstance(one.segmentation, list)
            else traced(draw_runs(self._runs_of(one), self.shape, "column"))
            for one in self.annotations
        ]
        order = drawing_order(np.array([*shapes, None], np.object_)[:-1], classes)
        return tuple(self.annotations[number] for number in order)

    @cached_property
    def _runs(self) -> tuple[Bounds, ...]:
        """Runs of each annotation, from the lowest to the topmost."""
        return tuple(self._runs_of(one) for one in self._drawn)

    def _runs_of(self, one: CocoAnnotation) -> Bounds:
        tools = mask_tools()
        rles = _rles(one, self.shape, tools)
        counts = decompress(tools.merge(rles)["counts"]) if rles else None
        return bounds_of(np.zeros(0, dtype=np.int64) if counts is None else counts)


def _rles(one: CocoAnnotation, shape: tuple[int, int], tools: Any) -> list[Rle]:
    """Return a segmentation as pycocotools takes it, after checking values that would crash it."""
    given = one.segmentation
    if isinstance(given, list):
        polygons = [_checked_corners(polygon, one.where, shape) for polygon in given]
        lists = [corners.ravel().tolist() for corners in polygons]
        return list(tools.frPyObjects(lists, *shape)) if lists else []
    counts = given["counts"]
    found = decompress(counts) if isinstance(counts, (str, bytes)) else _listed(counts)
    if found is None or (found < 0).any():
        raise LabelError(
            f"{one.where} has run lengths that cannot be read: {str(counts)[:40]!r}.",
            remedy="Export the labels again.",
        )
    if found.sum() != shape[0] * shape[1]:
        raise LabelError(
            f"{one.where} has run lengths for {found.sum()} pixels in total, but its image has "
            f"{shape[0] * shape[1]} ({size_text(shape)}).",
            remedy="Export the labels again for the images as they are.",
        )
    if isinstance(counts, (str, bytes)):
        text = counts.encode() if isinstance(counts, str) else counts
        return [{"size": list(shape), "counts": text}]
    return [tools.frPyObjects({"size": list(shape), "counts": found.tolist()}, *shape)]


def _outline(one: CocoAnnotation, shape: tuple[int, int]) -> shapely.Geometry:
    polygons = (_checked_corners(polygon, one.where, shape) for polygon in one.segmentation)
    return shapely.union_all([made_valid(shapely.Polygon(corners)) for corners in polygons])


def polygon_corners(polygon: object) -> Floats | None:
    """Return the (n, 2) corners x, y of a polygon of the file; None if it is not one."""
    values = finite_array(polygon)
    if values is None or values.ndim != 1 or len(values) < 6 or len(values) % 2:
        return None
    return values.reshape(-1, 2)


def _checked_corners(polygon: object, where: str, shape: tuple[int, int]) -> Floats:
    corners = polygon_corners(polygon)
    if corners is None:
        raise LabelError(
            f"{where} has the polygon {str(polygon)[:60]!r}; expected the numbers x, y, x, y, … "
            "of at least three corners.",
            remedy="Correct or remove the annotation.",
        )
    # pycocotools walks along each side point by point, so distant corners take too long.
    sides = np.array(shape[::-1], dtype=np.float64)
    outside = (corners < -sides) | (corners > 2 * sides)
    if outside.any():
        x, y = corners[outside.any(axis=1)][0].tolist()
        raise LabelError(
            f"{where} has a corner at x = {x:g}, y = {y:g}, far outside its image "
            f"({size_text(shape)}).",
            remedy="Corners are in pixels of the image, from its upper left corner.",
        )
    return corners


def _listed(counts: object) -> Ints | None:
    if not isinstance(counts, list) or not all(type(one) is int for one in counts):
        return None
    return np.array([min(max(one, -1), 2**40) for one in counts], dtype=np.int64)
