"""Labels that are shapes: drawn on the image's grid when a window of them is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from rooftrace.core.types import GeoGrid, Mask, Window
from rooftrace.data.labels import IGNORED

__all__ = ["ShapesLabel"]


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
        grid = self.grid.crop(window)
        inside = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
        chosen = np.sort(self._tree.query(inside))
        drawn = np.zeros(window.shape_yx, dtype=np.int16)
        if len(chosen):
            rasterize(
                zip(self.geometry[chosen], self.classes[chosen].tolist()),
                out=drawn,
                transform=Affine.translation(window.col, window.row),
            )
        valid = drawn != IGNORED
        drawn[~valid] = 0
        return Mask(drawn.astype(np.uint8), valid, grid)

    def vanished(self) -> NDArray[np.intp]:
        """Indices of the shapes that colour no pixel: smaller than one, or between the centres.

        A shape that lies outside of the image is not among them.
        """
        left, top, right, bottom = shapely.bounds(self.geometry).T
        height, width = self.grid.shape
        inside = (right > 0) & (bottom > 0) & (left < width) & (top < height)
        # What is wider and higher than a pixel may still miss every centre, but not what holds a
        # square of that size; so only what is small or thin is tried.
        area = shapely.area(self.geometry)
        thin = area < 4 + 2 * shapely.length(self.geometry)
        found = []
        for index in np.flatnonzero(inside & thin):
            x0, y0 = int(np.floor(left[index])), int(np.floor(top[index]))
            shape = int(np.ceil(bottom[index])) - y0, int(np.ceil(right[index])) - x0
            cols, rows = np.meshgrid(np.arange(shape[1]) + x0 + 0.5, np.arange(shape[0]) + y0 + 0.5)
            if not shapely.contains_xy(self.geometry[index], cols, rows).any():
                found.append(index)
        return np.array(found, dtype=np.intp)

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.geometry)
