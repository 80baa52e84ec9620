"""The built-up density of a scene, cell by cell, from its mask and its buildings.

Built-up shares come from pixels where there is a mask, else from the exact areas of polygons.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.density import DensityFigures
from rooftrace.core.errors import ConfigError
from rooftrace.core.types import DensityGrid, Footprints, GeoGrid, Window
from rooftrace.vector.density_cells import CellGrid
from rooftrace.vector.density_nearest import nearest_neighbour
from rooftrace.vector.density_pixels import PixelCounter, pixel_bounds
from rooftrace.vector.density_plane import Ground

__all__ = ["BuildingTally", "DensityAccumulator", "density_of_polygons"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Polygons = NDArray[np.object_]

_AREA_STEPS = 2**20
"""To a square metre. Areas are added as whole numbers, so that the sum depends on no order."""

_TOGETHER = 2**16
"""Polygons that are cut at a time."""


class DensityAccumulator:
    """Built-up density from a mask that comes block by block, and its buildings.

    Shares are counted by pixels, each in the cell of its centre; buildings in the cell of their
    centroid. The result is the same whatever the blocks, and whatever the chunks.

    Args:
        grid: of the mask.
        cell_m: the side of a cell. Cells lie on the mask's own coordinate system where its metres
            are metres on the ground, else as `metric_crs` has it.
        building_class: its class index in the mask.
        gsd_m: metres per pixel of a mask that lies nowhere.
        min_area_m2: smaller buildings are not counted, whatever the mask has of them.
        name: of the mask, for errors.

    Raises:
        GeoreferenceError: neither the grid nor `gsd_m` tells metres.
        ConfigError: cells are smaller than pixels, or too many; `gsd_m` where the grid says it.
    """

    def __init__(
        self,
        grid: GeoGrid,
        cell_m: float,
        *,
        building_class: int = 1,
        gsd_m: float | None = None,
        min_area_m2: float = 0.0,
        name: str = "The image",
    ) -> None:
        self.ground = Ground.of(grid, gsd_m, name=name)
        _check_cell(cell_m, grid, gsd_m, name)
        self.cells = CellGrid.over(pixel_bounds(self.ground), cell_m, self.ground.crs)
        self._pixels = PixelCounter(self.ground, self.cells, building_class)
        self._tally = BuildingTally()
        self._min_area_m2 = min_area_m2

    def feed(self, window: Window, mask: NDArray[np.uint8]) -> None:
        """Takes a block.

        Args:
            window: of the grid; shares no pixel with a block fed before.
            mask: (y, x) class indices, NODATA (255) where nothing is known.

        Raises:
            ValueError: the mask does not fill its window.
        """
        if mask.shape != window.shape_yx:
            raise ValueError(f"the mask has shape {mask.shape}, its window {window.shape_yx}")
        self._pixels.feed(window, mask)

    def add(self, footprints: Footprints) -> None:
        """Takes buildings, in pixels of the grid where they have no CRS.

        Raises:
            GeoreferenceError: they have a CRS and the mask lies nowhere.
        """
        self.add_polygons(footprints.geometry, footprints.crs)

    def add_polygons(self, polygons: Polygons, crs: CRS | None) -> None:
        """Takes buildings (n,) without their attributes, otherwise as `add`."""
        moved = self.ground.move(polygons, crs)
        self._tally.add(moved[shapely.area(moved) >= self._min_area_m2])

    def finish(self) -> DensityGrid:
        """The figures of all that was fed and added."""
        valid, built = self._pixels.valid_px, self._pixels.built_px
        seen = np.flatnonzero(valid)
        row, col = np.divmod(seen, self.cells.shape[1])
        x = (self.cells.first_col + col + 0.5) * self.cells.cell_m
        y = (self.cells.top_row - row + 0.5) * self.cells.cell_m
        px_area = np.zeros(len(valid))
        px_area[seen] = self.ground.px_area_m2(x, y)
        return _on_grid(self.cells, valid * px_area, built * px_area, self._tally)


class BuildingTally:
    """Buildings by their centroids."""

    def __init__(self) -> None:
        self._xy: list[Floats] = [np.empty((0, 2))]
        self._area_m2: list[Floats] = [np.empty(0)]

    def add(self, polygons: Polygons) -> None:
        """Takes buildings (n,) on a plane in metres."""
        self._xy.append(shapely.get_coordinates(shapely.centroid(polygons)))
        self._area_m2.append(shapely.area(polygons))

    def sorted(self) -> tuple[Floats, Floats]:
        """(n, 2) x and y of all of them, (n,) their areas; in an order that is always the same."""
        xy, area_m2 = np.concatenate(self._xy), np.concatenate(self._area_m2)
        order = np.lexsort((area_m2, xy[:, 1], xy[:, 0]))
        return xy[order], area_m2[order]

    def figures(self, place: Ints, building: Ints, count: int) -> tuple[Ints, Floats, Floats]:
        """(count,) how many buildings there are in places, their areas, their mean distance.

        Args:
            place, building: (k,) which building, in the order of `sorted`, is in which place.
            count: of places.
        """
        number = np.bincount(place, minlength=count).astype(np.int64)
        xy, area_m2 = self.sorted()
        area = np.bincount(place, area_m2[building], minlength=count)
        apart = nearest_neighbour(xy)[building]
        total = np.bincount(place, apart, minlength=count)
        known = (number > 0) & np.isfinite(total)
        mean = np.full(count, np.nan)
        mean[known] = total[known] / number[known]
        return number, area.astype(np.float64), mean


def density_of_polygons(chunks: Iterable[Polygons], cells: CellGrid) -> DensityGrid:
    """Built-up density from polygons alone: exact areas, and all of the grid taken as looked at.

    Args:
        chunks: of polygons on the plane of the cells; they do not overlap one another.
        cells: that reach over all of them.
    """
    tally = BuildingTally()
    steps = np.zeros(cells.count, np.int64)
    for chunk in chunks:
        tally.add(chunk)
        for start in range(0, len(chunk), _TOGETHER):
            cell, area = cells.areas_of(chunk[start : start + _TOGETHER])
            np.add.at(steps, cell, np.rint(area * _AREA_STEPS).astype(np.int64))
    observed = np.full(cells.count, cells.cell_m**2)
    return _on_grid(cells, observed, steps / _AREA_STEPS, tally)


def _on_grid(
    cells: CellGrid, observed_m2: Floats, built_m2: Floats, tally: BuildingTally
) -> DensityGrid:
    xy, _ = tally.sorted()
    place = cells.index(xy[:, 0], xy[:, 1])
    inside = np.flatnonzero(place >= 0)
    number, area_m2, nearest_m = tally.figures(place[inside], inside, cells.count)
    figures = DensityFigures(
        np.full(cells.shape, cells.cell_m**2),
        observed_m2.reshape(cells.shape),
        built_m2.reshape(cells.shape),
        number.reshape(cells.shape),
        area_m2.reshape(cells.shape),
        nearest_m.reshape(cells.shape),
    )
    return DensityGrid(cells.grid, cells.cell_m, figures, outside=len(xy) - len(inside))


def _check_cell(cell_m: float, grid: GeoGrid, gsd_m: float | None, name: str) -> None:
    pixel = max(grid.gsd_yx_m or (0.0,)) if gsd_m is None else gsd_m
    if cell_m < pixel:
        raise ConfigError(
            f"Cells of {cell_m:g} m are smaller than the pixels of {name}, {pixel:.4g} m.",
            remedy="Use larger cells, of many pixels each: --cell 100",
        )
