"""Where a scene has valid data, as polygons."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.types import GeoGrid, Window
from rooftrace.io.legend import NODATA
from rooftrace.vector.blocks import BlockPolygonizer

__all__ = ["ValidOutline"]

_SMALLEST_PX = 64
"""Of valid data; less is no ground that one could see a building on."""

_SMALLEST_HOLE_PX = 1024
"""Smaller holes are specks in the image: a building there is not cut by the edge of the scene."""

_OFF_PX = 0.5


class ValidOutline:
    """The outline of what is valid, from blocks of a class mask that partition a scene.

    Args:
        grid: of the scene.
    """

    def __init__(self, grid: GeoGrid) -> None:
        self._grid = grid
        self._polygonizer = BlockPolygonizer(grid.shape, _SMALLEST_PX)

    def feed(self, window: Window, mask: NDArray[np.uint8]) -> None:
        """Take a block (y, x) of class indices, NODATA where nothing is known."""
        valid = mask != NODATA
        if valid.any():
            self._polygonizer.feed(window, valid, None)
        else:
            self._polygonizer.skip(window)

    def finish(self) -> shapely.MultiPolygon:
        """In the grid's CRS, half a pixel off at most; empty where nothing is valid."""
        found = self._polygonizer.finish().polygons
        filled = [
            shapely.Polygon(
                one.exterior,
                [h for h in one.interiors if shapely.Polygon(h).area >= _SMALLEST_HOLE_PX],
            )
            for one in found
        ]
        simple = shapely.simplify(np.array(filled, np.object_), _OFF_PX)
        placed = shapely.transform(
            shapely.multipolygons(list(simple)),
            lambda xy: np.stack(self._grid.to_world(xy[:, 0], xy[:, 1]), axis=1),
        )
        assert isinstance(placed, shapely.MultiPolygon)
        return placed
