"""The segmentations of COCO: what one image is labelled with, and how a mask is written.

The format: https://cocodataset.org/#format-data. Polygons are drawn as pycocotools draws them, so
that every tool of COCO sees the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.errors import LabelError, MissingExtraError
from rooftrace.core.types import GeoGrid, Mask, Window
from rooftrace.data.labels import IGNORED
from rooftrace.data.runs import Bounds, draw_runs
from rooftrace.data.shapes import cut_outlines

__all__ = ["CocoLabel", "Drawn", "Rle", "mask_tools"]

Rle = dict[str, Any]
"""pycocotools' own: `size` (rows, columns) and `counts`, compressed."""

_ALL_VALUES = 64
_MOST_CODES = 7
"""Of one number: 35 bits, more than any image has pixels."""

_MERGED = 32
"""Masks that are merged at a time: each merge goes through all runs so far."""


def mask_tools() -> Any:
    """The module `pycocotools.mask`; MissingExtraError where it is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise MissingExtraError.of("labels", "COCO data", "pycocotools") from error
    return mask


@dataclass(frozen=True, slots=True)
class Drawn:
    """One annotation.

    Args:
        where: what errors call it.
        index: its class, or IGNORED.
        segmentation: polygons (lists of x, y, x, y, …) or run lengths, as the file has them.
    """

    where: str
    index: int
    segmentation: Any


@dataclass(frozen=True)
class CocoLabel:
    """The `LabelReader` of an image's annotations. Where two overlap the later one wins.

    Args:
        drawn: the annotations, from the lowest to the uppermost.
        shape: (rows, columns) that the file says the image has.
        grid: of the image; it must have that shape.
        where: the file, for errors.
        image_name: the same of the image.
    """

    drawn: tuple[Drawn, ...]
    shape: tuple[int, int]
    grid: GeoGrid
    where: str
    image_name: str

    def read(self, window: Window | None = None) -> Mask:
        """The classes inside `window` of the image; what is IGNORED is not valid.

        Raises:
            LabelError: the size differs from the image's, or a segmentation is damaged.
            MissingExtraError: pycocotools is not installed.
        """
        self._check_size()
        window = window or Window.whole(self.shape)
        found = np.zeros(window.shape_yx, dtype=np.int16)
        for index, bounds in self._layers:
            found[draw_runs(bounds, self.shape, "column", window)] = index
        valid = found != IGNORED
        found[~valid] = 0
        return Mask(found.astype(np.uint8), valid, self.grid.crop(window))

    def read_instances(self, window: Window | None = None) -> NDArray[np.int32]:
        """(y, x) the number of the annotation that `read` takes a pixel's class from, from 1; 0
        where there is none.

        Raises:
            As `read`.
        """
        self._check_size()
        window = window or Window.whole(self.shape)
        height = self.shape[0]
        first_px, stop_px = window.col * height, window.col_stop * height
        columns = np.zeros(stop_px - first_px, dtype=np.int32)
        for number, (one, bounds) in enumerate(zip(self.drawn, self._each), start=1):
            inside = bounds[(bounds[:, 1] > first_px) & (bounds[:, 0] < stop_px)]
            for start, stop in (inside.clip(first_px, stop_px) - first_px).tolist():
                columns[start:stop] = number if one.index > 0 else 0
        drawn = columns.reshape(-1, height)[:, window.row : window.row_stop]
        return np.ascontiguousarray(drawn.T)

    def read_outlines(self) -> tuple[NDArray[np.object_], NDArray[np.int16]] | None:
        """The annotations as they are drawn; None where one of them is run lengths.

        Raises:
            LabelError: an annotation is damaged.
        """
        if not all(isinstance(one.segmentation, list) for one in self.drawn):
            return None
        shapes = [_outline(one, self.shape) for one in self.drawn]
        classes = np.array([one.index for one in self.drawn], np.int16)
        frame = shapely.box(0, 0, self.shape[1], self.shape[0])
        return cut_outlines(np.array([*shapes, None], np.object_)[:-1], classes, frame)

    @cached_property
    def _layers(self) -> tuple[tuple[int, Bounds], ...]:
        """Neighbours of one class as one mask: its class and its runs."""
        groups = groupby(self.drawn, key=lambda one: one.index)
        layers = ((index, self._runs_of(list(group))) for index, group in groups)
        return tuple((index, bounds) for index, bounds in layers if len(bounds))

    @cached_property
    def _each(self) -> tuple[Bounds, ...]:
        """The runs of each annotation by itself."""
        return tuple(self._runs_of([one]) for one in self.drawn)

    def _runs_of(self, group: Sequence[Drawn]) -> Bounds:
        """Of all that is drawn, as one mask."""
        tools = mask_tools()
        rles = [rle for one in group for rle in _rles(one, self.shape, tools)]
        while len(rles) > 1:
            rles = [
                tools.merge(rles[start : start + _MERGED]) for start in range(0, len(rles), _MERGED)
            ]
        counts = _decompress(rles[0]["counts"]) if rles else None
        return _bounds(np.zeros(0, dtype=np.int64) if counts is None else counts)

    def _check_size(self) -> None:
        if self.shape != self.grid.shape:
            raise LabelError(
                f"{self.where} says that {self.image_name} has {_size(self.shape)}, but it has "
                f"{_size(self.grid.shape)}.",
                remedy="Export the labels again for the images as they are.",
            )


def _rles(one: Drawn, shape: tuple[int, int], tools: Any) -> list[Rle]:
    """A segmentation as pycocotools has it, after a look at what that would not survive."""
    given = one.segmentation
    if isinstance(given, list):
        polygons = [_checked_polygon(polygon, one.where, shape) for polygon in given]
        return list(tools.frPyObjects(polygons, *shape)) if polygons else []
    counts = given["counts"]
    found = _decompress(counts) if isinstance(counts, (str, bytes)) else _listed(counts)
    if found is None or (found < 0).any():
        raise LabelError(
            f"{one.where} has run lengths that cannot be read: {str(counts)[:40]!r}.",
            remedy="Export the labels again.",
        )
    if found.sum() != shape[0] * shape[1]:
        raise LabelError(
            f"{one.where} has run lengths of {found.sum()} pixels in all, but its image has "
            f"{shape[0] * shape[1]} ({_size(shape)}).",
            remedy="Export the labels again for the images as they are.",
        )
    if isinstance(counts, (str, bytes)):
        text = counts.encode() if isinstance(counts, str) else counts
        return [{"size": list(shape), "counts": text}]
    return [tools.frPyObjects({"size": list(shape), "counts": found.tolist()}, *shape)]


def _outline(one: Drawn, shape: tuple[int, int]) -> shapely.Geometry:
    polygons = [_checked_polygon(polygon, one.where, shape) for polygon in one.segmentation]
    parts = [shapely.Polygon(np.reshape(polygon, (-1, 2))) for polygon in polygons]
    return shapely.union_all([shapely.make_valid(part) for part in parts])


def _checked_polygon(polygon: object, where: str, shape: tuple[int, int]) -> list[float]:
    try:
        values = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 1 or len(values) < 6 or len(values) % 2 or not np.isfinite(values).all():
        raise LabelError(
            f"{where} has the polygon {str(polygon)[:60]!r}; expected the numbers x, y, x, y, … "
            "of three corners or more.",
            remedy="Correct or remove the annotation.",
        )
    # pycocotools walks along each side, point by point.
    sides = np.array(shape[::-1], dtype=np.float64)
    outside = (values.reshape(-1, 2) < -sides) | (values.reshape(-1, 2) > 2 * sides)
    if outside.any():
        x, y = values.reshape(-1, 2)[outside.any(axis=1)][0].tolist()
        raise LabelError(
            f"{where} has a corner at x = {x:g}, y = {y:g}, far outside of its image "
            f"({_size(shape)}).",
            remedy="Corners are in pixels of the image, from its upper left corner.",
        )
    return [float(value) for value in values]


def _listed(counts: object) -> NDArray[np.int64] | None:
    if not isinstance(counts, list) or not all(type(one) is int for one in counts):
        return None
    return np.array([min(max(one, -1), 2**40) for one in counts], dtype=np.int64)


def _decompress(text: str | bytes) -> NDArray[np.int64] | None:
    """Run lengths of COCO's compressed form; None where the text is no such thing.

    Five bits of a number to a character, lowest first; each number from the fourth on is the
    difference to the last but one (`rleFrString` in https://github.com/ppwwyyxx/cocoapi).
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


def _bounds(counts: NDArray[np.int64]) -> Bounds:
    edges = np.cumsum(counts)
    edges = edges[: len(edges) // 2 * 2]
    return edges.reshape(-1, 2)


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]} rows × {shape[1]} columns"
