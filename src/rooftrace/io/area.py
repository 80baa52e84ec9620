"""Work that is limited to an area of interest: everything outside counts as nodata."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.features import rasterize

from rooftrace.core.errors import DataError, GeoreferenceError
from rooftrace.core.types import BoolArray, GeoGrid, Raster, RasterSource, SparseSource, Window
from rooftrace.io.placed import OtherSource
from rooftrace.io.reproject import degrees_text, reprojected
from rooftrace.io.vector_read import VectorFile

__all__ = ["Area", "AreaSource", "read_area"]

_CELL_PX = 512
_CELLS_HELD = 64
_BEND_PX = 0.05
"""That an edge may lie off where it is bent by a projection."""

_JSON = (".geojson", ".json", ".geojsonl", ".geojsons")


@dataclass(frozen=True)
class Area:
    """Polygons inside of which there is something to do.

    Args:
        geometry: (n,) shapely polygons and multipolygons, at least one.
        crs: of their coordinates; None where they are pixels (x right, y down).
        name: what messages call it.
        may_be_pixels: whether the CRS is one that the format has anyway, as GeoJSON.
    """

    geometry: NDArray[np.object_]
    crs: CRS | None
    name: str
    may_be_pixels: bool = False

    @property
    def digest(self) -> str:
        """What changes when a coordinate does."""
        told = hashlib.sha256(b"" if self.crs is None else self.crs.to_wkt().encode())
        told.update(b"".join(shapely.to_wkb(self.geometry).tolist()))
        return told.hexdigest()


def read_area(path: Path) -> Area:
    """An area of interest from a vector file.

    Args:
        path: of any format that `VectorFile` reads, with polygons.

    Raises:
        DataError: it cannot be read, or holds no polygon.
    """
    if not path.exists():
        raise DataError(f"There is no area at {path}.", remedy="Check the path.")
    geometry, crs = VectorFile(path).outlines()
    if not len(geometry):
        raise DataError(
            f"{path} holds no polygon; an area has at least one.",
            remedy="Draw the area as a polygon.",
        )
    return Area(geometry, crs, str(path), path.suffix.lower() in _JSON)


class AreaSource(OtherSource):
    """A `RasterSource` that is nodata where another one is outside an area.

    A pixel is inside if its centre is. Nothing outside is read, but for the corners of the
    rectangles in which files are. It can be pickled; one thread at a time reads from it.

    Args:
        source: the whole scene.
        area: in any CRS, or in pixels where the scene has none.
    """

    def __init__(self, source: RasterSource, area: Area) -> None:
        super().__init__(source)
        self.area = area
        self._cells: OrderedDict[tuple[int, int], BoolArray] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cells": OrderedDict()}

    def __repr__(self) -> str:
        return f"AreaSource({self.source!r}, {self.area.name!r})"

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def grid(self) -> GeoGrid:
        return self.source.grid

    @property
    def notes(self) -> tuple[str, ...]:
        if self.grid.crs is not None:
            return super().notes
        taken = f"{self.area.name} is taken to be in pixels of {self.name}, which lies nowhere."
        return (*super().notes, taken)

    def read(self, window: Window | None = None) -> Raster:
        """The pixels of `window`; 0 and not valid outside of the area.

        Raises:
            DataError: the scene cannot be read, or the area misses it.
            GeoreferenceError: one of scene and area does not say where it lies.
        """
        window = window or Window.whole(self.grid.shape)
        inside = self._inside(window)
        part = _extent(inside, window)
        if part == window:
            raster = self.source.read(window)
            return Raster(raster.data, raster.valid & inside, raster.grid)
        data = np.zeros((self.bands, *window.shape_yx), self.dtype)
        valid = np.zeros(window.shape_yx, np.bool_)
        if part is not None:
            raster = self.source.read(part)
            rows, cols = part.slices(window)
            data[:, rows, cols] = raster.data
            valid[rows, cols] = raster.valid & inside[rows, cols]
        return Raster(data, valid, self.grid.crop(window))

    def is_empty(self, window: Window) -> bool:
        part = _extent(self._inside(window), window)
        if part is None:
            return True
        return isinstance(self.source, SparseSource) and self.source.is_empty(part)

    @property
    def is_missed(self) -> bool:
        """Whether the area and the scene have no ground in common.

        Raises:
            GeoreferenceError: as in `read`.
        """
        return not len(self._tree.query(_box(Window.whole(self.grid.shape)), "intersects"))

    def check(self) -> None:
        """Raises DataError where the area misses the scene, GeoreferenceError as `read`."""
        if self.is_missed:
            raise DataError(
                f"The area {self.area.name} lies outside of {self.name}: it reaches over "
                f"{self._extent_text(self._polygons)}, the image over "
                f"{self._extent_text(np.array([_box(Window.whole(self.grid.shape))]))}.",
                remedy="Check both in a GIS, and above all the coordinate system of the area.",
            )

    def _extent_text(self, geometry: NDArray[np.object_]) -> str:
        left, top, right, bottom = (float(edge) for edge in shapely.total_bounds(geometry))
        crs = self.grid.crs
        if crs is None:
            return f"columns {left:g} to {right:g} and rows {top:g} to {bottom:g}"
        corners = (np.array([left, right, right, left]), np.array([top, top, bottom, bottom]))
        xs, ys = self.grid.to_world(*corners)
        return degrees_text((xs.min(), ys.min(), xs.max(), ys.max()), crs)

    @cached_property
    def _polygons(self) -> NDArray[np.object_]:
        """(n,) in pixels of the scene."""
        crs, area = self.grid.crs, self.area
        if crs is None:
            if area.crs is not None and not area.may_be_pixels:
                raise GeoreferenceError(
                    f"{self.name} has no georeference, and the area {area.name} is in "
                    f"{area.crs.name}: where it lies in the image is not known.",
                    remedy="Draw the area in pixels of the image, as a GeoJSON.",
                )
            return area.geometry
        if area.crs is None:
            raise GeoreferenceError(
                f"The area {area.name} has no coordinate system, but {self.name} has {crs.name}.",
                remedy="Assign the one that it is in: ogr2ogr -a_srs EPSG:4326 OUT.gpkg AREA",
            )
        inverse = ~self.grid.transform
        unit_px = float(np.sqrt(abs(inverse.determinant)))
        moved = reprojected(area.geometry, area.crs, crs, _BEND_PX / unit_px)
        if not np.isfinite(shapely.get_coordinates(moved)).all():
            raise GeoreferenceError(
                f"The area {area.name} has coordinates that {area.crs.name} or the image's "
                f"{crs.name} does not have.",
                remedy="Assign it the coordinate system that it is in, or cut it to the image.",
            )
        matrix = np.array([[inverse.a, inverse.d], [inverse.b, inverse.e]])
        origin = np.array([inverse.c, inverse.f])
        placed = shapely.transform(moved, lambda xy: xy @ matrix + origin)
        return np.asarray(placed, np.object_)

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self._polygons)

    def _inside(self, window: Window) -> BoolArray:
        """(y, x) which pixels of a window are in the area.

        It is drawn by cells of the scene, so that a pixel does not depend on the window.
        """
        self.check()
        inside = np.zeros(window.shape_yx, np.bool_)
        if not len(self._tree.query(_box(window), "intersects")):
            return inside
        for row in range(window.row // _CELL_PX, -(-window.row_stop // _CELL_PX)):
            for col in range(window.col // _CELL_PX, -(-window.col_stop // _CELL_PX)):
                cell = Window(row * _CELL_PX, col * _CELL_PX, _CELL_PX, _CELL_PX)
                part = cell.intersection(window)
                assert part is not None
                inside[part.slices(window)] = self._cell(cell)[part.slices(cell)]
        return inside

    def _cell(self, cell: Window) -> BoolArray:
        key = (cell.row, cell.col)
        found = self._cells.get(key)
        if found is None:
            found = self._cells[key] = self._drawn(cell)
            if len(self._cells) > _CELLS_HELD:
                self._cells.popitem(last=False)
        self._cells.move_to_end(key)
        return found

    def _drawn(self, cell: Window) -> BoolArray:
        near = self._polygons[self._tree.query(_box(cell), "intersects")]
        if not len(near):
            return np.zeros(cell.shape_yx, np.bool_)
        clipped = shapely.clip_by_rect(
            near, cell.col - 1, cell.row - 1, cell.col_stop + 1, cell.row_stop + 1
        )
        moved = shapely.transform(clipped, lambda xy: xy - (cell.col, cell.row))
        shapes = [shape for shape in moved if shape is not None and not shape.is_empty]
        if not shapes:
            return np.zeros(cell.shape_yx, np.bool_)
        drawn: NDArray[np.uint8] = rasterize(shapes, cell.shape_yx, dtype=np.uint8)
        return drawn.astype(np.bool_)


def _box(window: Window) -> Any:
    return shapely.box(window.col, window.row, window.col_stop, window.row_stop)


def _extent(inside: BoolArray, window: Window) -> Window | None:
    """The smallest window that holds all that is True; None where nothing is."""
    rows = np.flatnonzero(inside.any(axis=1))
    if not len(rows):
        return None
    cols = np.flatnonzero(inside.any(axis=0))
    top, left = int(rows[0]), int(cols[0])
    return Window(
        window.row + top, window.col + left, int(rows[-1]) - top + 1, int(cols[-1]) - left + 1
    )
