"""The label of a scene as polygons on the ground, whatever the label is made of."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import GeoreferenceError, LabelError
from rooftrace.core.types import GeoGrid, LabelReader, Scene, Window
from rooftrace.data.ground.layer import IGNORE_NAME, OWN_FIELDS
from rooftrace.data.labels import IGNORED
from rooftrace.data.shapes import ShapesLabel, areal_parts, mended
from rooftrace.io.reproject import reprojected
from rooftrace.tiling.plan import plan_blocks
from rooftrace.vector.blocks import BlockPolygonizer

__all__ = ["Outlines", "scene_crs"]

_BLOCK_PX = 2048
_BEND_PX = 0.1
_METRES_PER_DEGREE = 111_320.0

Polygons = NDArray[np.object_]


def scene_crs(scene: Scene) -> CRS:
    """The coordinate system of a scene.

    Raises:
        GeoreferenceError: it has none.
    """
    crs = scene.image.grid.crs
    if crs is None:
        raise GeoreferenceError(
            f"{scene.image.name} has no coordinate system, so its labels have no place on the "
            "ground.",
            remedy="Write the data as a kind that has none, such as folder, rle or coco.",
        )
    return crs


class Outlines:
    """Gathers the labels of scenes as one layer with the attributes `OWN_FIELDS`.

    Args:
        classes: names by class index.
        crs: of the layer.
    """

    def __init__(self, classes: tuple[str, ...], crs: CRS) -> None:
        self.crs = crs
        self._names = dict(enumerate(classes))
        self._geometry: list[Polygons] = [np.empty(0, np.object_)]
        self._classes: list[str] = []
        self._scenes: list[str | None] = []

    def add(
        self, scene: Scene, *, scene_id: str | None, within: shapely.Geometry | None = None
    ) -> None:
        """Take the label of a scene.

        A label of shapes stays as it is drawn, cut at the edge of the image. Of any other the
        outlines follow the edges of its pixels, so that the same mask is drawn from them again.

        Args:
            scene_id: the scene that the outlines belong to; None: whatever lies there.
            within: in `crs`, what of the scene is taken; default all.

        Raises:
            GeoreferenceError: the scene has no CRS, or no way leads from it to the layer's.
            LabelError: areas are unknown, and the name for them is that of a class.
        """
        assert scene.label is not None
        crs, grid = scene_crs(scene), scene.image.grid
        if isinstance(scene.label, ShapesLabel):
            pixels, classes = scene.label.read_outlines()
        else:
            pixels, classes = _traced(scene.label, grid.shape)
        if IGNORED in classes and IGNORE_NAME in self._names.values():
            raise LabelError(
                f"{scene.id} has areas of which nothing is known, which are written as "
                f"{IGNORE_NAME!r}, but that is a class here.",
                remedy="Call the class by another name.",
            )
        geometry = reprojected(_placed(pixels, grid), crs, self.crs, self._tolerance(scene))
        if within is not None:
            geometry = shapely.intersection(mended(geometry), within)
        geometry, owner = areal_parts(geometry)
        self._geometry.append(geometry)
        self._classes += [self._names.get(index, IGNORE_NAME) for index in classes[owner].tolist()]
        self._scenes += [scene_id] * len(geometry)

    def layer(self) -> tuple[Polygons, dict[str, NDArray[np.object_] | NDArray[np.int64]]]:
        """(n,) polygons, and (n,) of each attribute."""
        geometry = np.concatenate(self._geometry)
        values = (
            np.arange(1, len(geometry) + 1, dtype=np.int64),
            np.array(self._classes, np.object_),
            np.array(self._scenes, np.object_),
        )
        return geometry, dict(zip(OWN_FIELDS, values))

    def _tolerance(self, scene: Scene) -> float:
        grid = scene.image.grid
        if not self.crs.is_geographic or (grid.crs is not None and grid.crs.is_geographic):
            return _BEND_PX * float(np.sqrt(abs(grid.transform.determinant)))
        # Metres in the scene, degrees in the layer.
        return _BEND_PX * (grid.gsd_m or 1.0) / _METRES_PER_DEGREE


def _traced(label: LabelReader, shape: tuple[int, int]) -> tuple[Polygons, NDArray[np.int16]]:
    """The regions of each class, block by block."""
    windows: list[Window] = []
    tracers: dict[int, BlockPolygonizer] = {}
    for window in plan_blocks(shape, block_px=_BLOCK_PX):
        mask = label.read(window)
        values = np.where(mask.valid, mask.data.astype(np.int16), np.int16(IGNORED))
        blank = np.zeros(window.shape_yx, np.uint8)
        for index in set(np.unique(values).tolist()) - {0} - set(tracers):
            tracers[index] = BlockPolygonizer(shape)
            for earlier in windows:
                nothing = np.zeros(earlier.shape_yx, np.uint8)
                tracers[index].feed(earlier, nothing, nothing)
        for index, tracer in tracers.items():
            tracer.feed(window, values == index, blank)
        windows.append(window)
    traced = {index: tracer.finish().polygons for index, tracer in sorted(tracers.items())}
    classes = [np.full(len(found), index, np.int16) for index, found in traced.items()]
    return (
        np.concatenate([np.empty(0, np.object_), *traced.values()]),
        np.concatenate([np.empty(0, np.int16), *classes]),
    )


def _placed(pixels: Polygons, grid: GeoGrid) -> Polygons:
    def place(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(grid.to_world(xy[:, 0], xy[:, 1]), axis=1)

    return np.asarray(shapely.transform(pixels, place), np.object_)
