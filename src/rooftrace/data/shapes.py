"""Labels that are shapes: drawn on the image's grid when a window of them is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from rooftrace.core.types import GeoGrid, LabelReader, Mask, Window
from rooftrace.data.labels import IGNORED
from rooftrace.io.placed import WindowLabel

__all__ = [
    "ShapesLabel",
    "areal_parts",
    "count_vanished",
    "cut_outlines",
    "mended",
    "mended_polygons",
]

V = TypeVar("V", np.int16, np.int32)

_FEW = 64
"""Centres of pixels that are tried one by one; a shape among more of them is drawn."""


class ShapesLabel:
    """The `LabelReader` of polygons. A pixel belongs to a shape if its centre lies inside.

    Args:
        geometry: (n,) shapely polygons or multipolygons in pixels of the image, x right and y
            down, 0 being the outer edge of the first pixel. Where two overlap the later one wins.
        classes: (n,) the class index of each, or IGNORED.
        grid: of the image.
    """

    def __init__(
        self, geometry: NDArray[np.object_], classes: Sequence[int], grid: GeoGrid
    ) -> None:
        self.geometry = np.asarray(geometry, dtype=object)
        self.classes: NDArray[np.int16] = np.asarray(classes, dtype=np.int16)
        self.grid = grid
        if self.geometry.shape != self.classes.shape:
            raise ValueError(f"{self.geometry.shape} shapes, but {self.classes.shape} classes")

    def __len__(self) -> int:
        return len(self.geometry)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_tree", None)
        return state

    def read(self, window: Window | None = None) -> Mask:
        """The classes inside `window` (default all); drawn from the shapes that reach into it."""
        window = window or Window.whole(self.grid.shape)
        drawn = self._draw(self.classes, window)
        valid = drawn != IGNORED
        drawn[~valid] = 0
        return Mask(drawn.astype(np.uint8), valid, self.grid.crop(window))

    def read_instances(self, window: Window | None = None) -> NDArray[np.int32]:
        """(y, x) the number of the shape that `read` takes a pixel's class from, from 1; else 0."""
        numbers = np.where(self.classes > 0, np.arange(1, len(self) + 1), 0)
        return self._draw(numbers.astype(np.int32), window or Window.whole(self.grid.shape))

    def read_outlines(self) -> tuple[NDArray[np.object_], NDArray[np.int16]]:
        """The shapes as they are drawn, cut at the edges of the image."""
        frame = shapely.box(0, 0, self.grid.width, self.grid.height)
        return cut_outlines(self.geometry, self.classes, frame)

    def _draw(self, values: NDArray[V], window: Window) -> NDArray[V]:
        """The value of the uppermost shape at each pixel of `window`, 0 where there is none."""
        inside = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
        chosen = np.sort(self._tree.query(inside))
        drawn = np.zeros(window.shape_yx, dtype=values.dtype)
        if len(chosen):
            rasterize(
                zip(self.geometry[chosen], values[chosen].tolist()),
                out=drawn,
                transform=Affine.translation(window.col, window.row),
            )
        return drawn

    def vanished(self) -> NDArray[np.intp]:
        """Indices of the shapes that colour no pixel: smaller than one, or between the centres.

        A shape that lies outside of the image is not among them, nor one of which the image's edge
        leaves too little: on a larger image it would be seen.
        """
        left, top, right, bottom = shapely.bounds(self.geometry).T
        height, width = self.grid.shape
        inside = (right > 0) & (bottom > 0) & (left < width) & (top < height)
        doubtful = np.flatnonzero(inside)
        # Most are settled by one pixel: the one in which their middle lies.
        for middle_of in (shapely.centroid, shapely.point_on_surface):
            middle = middle_of(self.geometry[doubtful])
            x, y = np.floor(shapely.get_x(middle)) + 0.5, np.floor(shapely.get_y(middle)) + 0.5
            doubtful = doubtful[~shapely.contains_xy(self.geometry[doubtful], x, y)]
        # Of the others the centres that their box holds are tried, if there are few.
        col0, row0 = np.ceil(left[doubtful] - 0.5), np.ceil(top[doubtful] - 0.5)
        cols = np.floor(right[doubtful] - 0.5) - col0 + 1
        rows = np.floor(bottom[doubtful] - 0.5) - row0 + 1
        counts = (rows * cols).astype(np.int64)
        few = np.flatnonzero((counts > 0) & (counts <= _FEW))
        owner = np.repeat(few, counts[few])
        place = np.arange(len(owner)) - np.repeat(np.cumsum(counts[few]) - counts[few], counts[few])
        x = col0[owner] + place % cols[owner] + 0.5
        y = row0[owner] + place // cols[owner] + 0.5
        shapes = self.geometry[doubtful]
        held = np.zeros(len(doubtful), dtype=bool)
        held[owner[shapely.contains_xy(shapes[owner], x, y)]] = True
        # A centre on an outline is what only GDAL knows to which side it counts.
        touched = counts > _FEW
        touched[owner[shapely.intersects_xy(shapes[owner], x, y)]] = True
        for index in np.flatnonzero(touched & ~held):
            held[index] = _colours_any(shapes[index])
        found: NDArray[np.intp] = doubtful[~held]
        return found

    @cached_property
    def _vanished_xy(self) -> NDArray[np.float64]:
        """(n, 2) where those shapes lie."""
        return shapely.get_coordinates(shapely.centroid(self.geometry[self.vanished()]))

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.geometry)


def cut_outlines(
    geometry: NDArray[np.object_], classes: NDArray[np.int16], frame: shapely.Geometry
) -> tuple[NDArray[np.object_], NDArray[np.int16]]:
    """What of (n,) shapes lies inside of a frame, as (m,) valid polygons with (m,) classes.

    A shape of several parts, or that is cut into several, becomes so many polygons.
    """
    # Drawing minds nothing, but an intersection would fail.
    valid = mended(geometry)
    outside = ~shapely.covered_by(valid, frame)
    valid[outside] = shapely.intersection(valid[outside], frame)
    parts, owner = areal_parts(valid)
    return parts, classes[owner]


def mended(geometry: NDArray[np.object_]) -> NDArray[np.object_]:
    """(n,) geometries that are valid, if perhaps of another type."""
    valid = geometry.copy()
    invalid = ~shapely.is_valid(valid)
    valid[invalid] = shapely.make_valid(valid[invalid])
    return valid


def mended_polygons(polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    """(n,) polygons that are valid; of one that mending takes apart the largest part, and one that
    has no area becomes empty.
    """
    valid = mended(polygons)
    for index in np.flatnonzero(shapely.get_type_id(valid) != shapely.GeometryType.POLYGON):
        parts = areal_parts(valid[[index]])[0]
        valid[index] = parts[shapely.area(parts).argmax()] if len(parts) else shapely.Polygon()
    return valid


def areal_parts(
    geometry: NDArray[np.object_],
) -> tuple[NDArray[np.object_], NDArray[np.intp]]:
    """(m,) the polygons of what may be collections, and (m,) whose parts they are."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    while (shapely.get_type_id(parts) > shapely.GeometryType.POLYGON).any():
        parts, inner = shapely.get_parts(parts, return_index=True)
        owner = owner[inner]
    areal = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)
    return np.asarray(parts[areal], np.object_), owner[areal]


def count_vanished(label: LabelReader | None) -> int:
    """How many shapes of a scene, or in one of its windows, colour no pixel; 0 for other labels."""
    whole = label.label if isinstance(label, WindowLabel) else label
    if not isinstance(whole, ShapesLabel):
        return 0
    x, y = whole._vanished_xy.T
    if not isinstance(label, WindowLabel):
        return len(x)
    window = label.window
    cols, rows = np.floor(x), np.floor(y)
    inside = (cols >= window.col) & (cols < window.col_stop)
    return int((inside & (rows >= window.row) & (rows < window.row_stop)).sum())


def _colours_any(shape: shapely.Geometry) -> bool:
    left, top, right, bottom = shapely.bounds(shape).tolist()
    col, row = math.floor(left) - 1, math.floor(top) - 1
    size = math.ceil(bottom) - row + 1, math.ceil(right) - col + 1
    return bool(rasterize([shape], size, transform=Affine.translation(col, row)).any())
