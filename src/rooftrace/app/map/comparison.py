"""Results of `rooftrace compare` on the map: both layers with their statuses, over both images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from rooftrace.app.map.outlines import LayerTable, polygon_rows
from rooftrace.app.map.place import Place
from rooftrace.app.map.pyramid import DisplayStretch, Pyramid
from rooftrace.app.map.results import ImageFiles, read_results
from rooftrace.app.map.scene import PICTURE_PX, MapScene, find_image, levels_of
from rooftrace.core.cache import LazyValue
from rooftrace.core.errors import DataError
from rooftrace.core.types import GeoGrid, RasterSource
from rooftrace.flows.compare.page import COLOURS
from rooftrace.io.legend import Legend
from rooftrace.vector.compare import STATUSES

__all__ = ["ComparisonScene"]

_PIXEL_M = 0.3
"""Side in metres of a pixel of the map if no image says it."""

_DEGREE_M = 111_320.0


class ComparisonScene(MapScene):
    """A comparison on the map: two layers, and the images that they were made from, if known.

    The newer image is the one that `--imagery` named. Otherwise, a layer that `rooftrace predict`
    wrote has the image of its `run.json`, and a layer that is an image is shown itself.

    Args:
        files: Results of the comparison.
        run: Content of a `run.json` beside them.
        legend: It is not used: the classes are the statuses.

    Raises:
        DataError: The layer of both sides cannot be read, or has no coordinate system.
    """

    def __init__(self, files: ImageFiles, run: Mapping[str, Any], legend: Legend | None) -> None:
        self._old = LazyValue(self._open_old)
        self._old_stretch = LazyValue(self._find_old_stretch)
        super().__init__(files, run, legend)

    @property
    def old(self) -> Pyramid | None:
        return self._old.get()

    @property
    def old_stretch(self) -> DisplayStretch | None:
        return self._old_stretch.get()

    def describe(self) -> dict[str, Any]:
        """Return what a page needs to show the comparison, as plain data."""
        record, old = self.files.record, self.old
        names = {side: Path(str(record.get(side) or side)).name for side in ("new", "old")}
        return super().describe() | {
            "comparison": names,
            "old": None if old is None else {
                "bounds": old.place.bounds_degrees, "maxzoom": old.place.deepest_zoom(PICTURE_PX)
            },
        }  # fmt: skip

    def _colour(self, index: int) -> str:
        return COLOURS[STATUSES[index]]

    def _find_input(self, run: Mapping[str, Any], mask: GeoGrid | None) -> RasterSource | None:
        return self._image_of("new")

    def _open_image(self) -> Pyramid | None:
        return _pyramid(self._input)

    def _open_old(self) -> Pyramid | None:
        return _pyramid(self._image_of("old"))

    def _find_old_stretch(self) -> DisplayStretch | None:
        return None if self.old is None else DisplayStretch.of(self.old.sample())

    def _image_of(self, side: str) -> RasterSource | None:
        """Return the image that a layer was made from; None if it is not known."""
        record = self.files.record
        imagery = record.get("imagery")
        if side == "new" and isinstance(imagery, list) and imagery:
            return find_image(imagery[0], {}, self._folder, None)[0]
        recorded = str(record.get(side) or "")
        layer = next((path for path in _places(recorded, self._folder) if path.exists()), None)
        if layer is None:
            return None
        results = read_results(layer.parent)
        for one in results.images.values():
            if layer.name in {path.name for path in (one.polygons, one.mask) if path is not None}:
                image, note = find_image(one.record.get("input"), results.run, layer.parent, None)
                if note:
                    self._say(note)
                return image
        return find_image(str(layer), {}, self._folder, None)[0]

    def _grid(self) -> GeoGrid:
        """Return a grid over the buildings that were compared, without those outside."""
        assert self.files.polygons is not None
        geometry, crs, columns = LayerTable(self.files.polygons).table()
        if crs is None:
            raise DataError(f"{self.files.polygons.name} has no coordinate system.")
        rows = polygon_rows(geometry)
        status = columns.get("status")
        inside = rows if status is None else rows[status[rows] != "outside"]
        bounds = shapely.total_bounds(geometry[inside if len(inside) else rows])
        if not np.isfinite(bounds).all():
            raise DataError(f"{self.files.polygons.name} has no buildings.")
        unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
        pixel = _PIXEL_M / (_DEGREE_M if crs.is_geographic else unit)
        left, bottom, right, top = _widened(bounds).tolist()
        shape = (int((top - bottom) / pixel) + 1, int((right - left) / pixel) + 1)
        return GeoGrid(shape, Affine(pixel, 0, left, 0, -pixel, top), crs)


def _widened(bounds: NDArray[np.float64]) -> NDArray[np.float64]:
    margin = 0.02 * max(bounds[2] - bounds[0], bounds[3] - bounds[1])
    return np.asarray(bounds + np.array([-margin, -margin, margin, margin]), np.float64)


def _places(recorded: str, folder: Path) -> list[Path]:
    """Return the paths at which a layer may be whose recorded path was relative."""
    path = Path(recorded)
    if not recorded:
        return []
    near = [folder.parent / path.name, folder / path.name]
    return [path, *near] if path.is_absolute() else [path, folder.parent / path, *near]


def _pyramid(source: RasterSource | None) -> Pyramid | None:
    if source is None or source.grid.crs is None:
        return None
    place = Place(source.grid)
    return None if place.flat else Pyramid(levels_of(source, source.grid), place)
