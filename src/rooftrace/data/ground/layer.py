"""A layer of polygons as the label of every scene that it reaches into."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.config import nearest
from rooftrace.core.errors import ConfigError, GeoreferenceError
from rooftrace.core.types import GeoGrid
from rooftrace.data.config import LabelConfig
from rooftrace.data.labels import IGNORED, NameRule
from rooftrace.data.shapes import ShapesLabel
from rooftrace.io.reproject import outline_bounds, reprojected
from rooftrace.io.vector_read import VectorFile

__all__ = ["IGNORE_NAME", "OWN_FIELDS", "LayerFile", "ShapeLayer"]

OWN_FIELDS = ("id", "class", "scene")
"""What a layer that rooftrace wrote has: the order, the class's name, the one scene or null."""

IGNORE_NAME = "ignore"
"""The class of areas in such a layer of which nothing is known."""

_BEND_PX = 0.1
"""How far the middle of a reprojected edge may lie off."""


@dataclass(frozen=True)
class LayerFile:
    """A vector file and how its attribute is read: small to pickle, read once in a process.

    Args:
        path: of the file.
        building: the class index of every polygon, where no attribute tells.
        field: the attribute that names the class, or None.
        rule: what its names mean.
        own: whether the layer has `OWN_FIELDS` and is read by them.
        stamp: of the file, so that one that was written anew is read anew.
    """

    path: Path
    building: int
    field: str | None
    rule: NameRule
    own: bool
    stamp: tuple[int, int]

    @classmethod
    def of(cls, path: Path, labels: LabelConfig, field: str | None = None) -> LayerFile:
        """Look at the attributes of a file; `field` None reads all as the building class.

        Raises:
            ConfigError: there is no such attribute.
            DataError: the file cannot be read, or has no layer of polygons, or several.
        """
        file = VectorFile(path)
        own = field is None and set(OWN_FIELDS) <= set(file.fields)
        # A GeoJSON of no features has no attributes either.
        if field is not None and field not in file.fields and len(file.read()):
            raise ConfigError(
                f"{path} has no attribute {field!r}; it has "
                f"{', '.join(file.fields) or 'none'}. {nearest(field, file.fields)}".strip(),
                remedy="Correct field, or leave it out: then every polygon is a building.",
            )
        status = path.stat()
        return cls(
            path,
            labels.building_class,
            "class" if own else field if field in file.fields else None,
            labels.named(),
            own,
            (status.st_mtime_ns, status.st_size),
        )

    def load(self) -> ShapeLayer:
        """Its polygons; from memory, if this process has read them.

        Raises:
            LabelError: a name that is no class.
            DataError, GeoreferenceError: as `io.vector_read.VectorFile.read`.
        """
        return _load(self)

    def label(self, grid: GeoGrid, scene_id: str | None = None) -> ShapesLabel:
        """See `ShapeLayer.label`; that of a scene is made once for all its chips."""
        return _label(self, grid, scene_id)


class ShapeLayer:
    """The polygons of a layer.

    Args:
        geometry: (n,) valid shapely polygons and multipolygons in `crs`.
        classes: (n,) int16, the class index of each, or IGNORED.
        scenes: (n,) the id of the one scene that each belongs to, or "".
        crs: of the geometry.
        notes: what was mended or left out, for people to see.
    """

    def __init__(
        self,
        geometry: NDArray[np.object_],
        classes: NDArray[np.int16],
        scenes: NDArray[np.object_],
        crs: CRS,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.geometry = geometry
        self.classes = classes
        self.scenes = scenes
        self.crs = crs
        self.notes = notes

    def __len__(self) -> int:
        return len(self.geometry)

    @property
    def bounds_xy(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in the CRS; NaN where there is no polygon."""
        left, bottom, right, top = shapely.total_bounds(self.geometry)
        return float(left), float(bottom), float(right), float(top)

    def names_any(self, ids: Iterable[str]) -> bool:
        """Whether a polygon says that it belongs to one of these scenes."""
        return not frozenset(self.scenes.tolist()).isdisjoint(ids)

    def label(self, grid: GeoGrid, scene_id: str | None = None) -> ShapesLabel:
        """The polygons that reach into an image, in its pixels.

        Args:
            grid: of the image; has a CRS.
            scene_id: leaves out what belongs to another scene; None leaves nothing out.

        Raises:
            GeoreferenceError: no way leads from the layer's CRS to the image's.
        """
        assert grid.crs is not None
        bounds = outline_bounds(grid, self.crs)
        # Of an image without a place in the layer's system nothing is near.
        near = shapely.Point() if bounds is None else shapely.box(*bounds)
        chosen = np.sort(self.tree.query(near))
        if scene_id is not None:
            chosen = chosen[np.isin(self.scenes[chosen].astype(str), ["", scene_id])]
        pixel = float(np.sqrt(abs(grid.transform.determinant)))
        placed = reprojected(self.geometry[chosen], self.crs, grid.crs, _BEND_PX * pixel)
        inverse = ~grid.transform

        def to_pixels(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.stack(
                [
                    inverse.a * xy[:, 0] + inverse.b * xy[:, 1] + inverse.c,
                    inverse.d * xy[:, 0] + inverse.e * xy[:, 1] + inverse.f,
                ],
                axis=1,
            )

        pixels = np.asarray(shapely.transform(placed, to_pixels), np.object_)
        if not np.isfinite(shapely.get_coordinates(pixels)).all():
            raise GeoreferenceError(
                f"Footprints in {self.crs.name!r} have no place in {grid.crs.name!r}, the "
                "coordinate system of an image that they reach into.",
                remedy="Reproject the footprints with ogr2ogr -t_srs, or mend what lies far off.",
            )
        inside = shapely.intersects(pixels, shapely.box(0, 0, grid.width, grid.height))
        return ShapesLabel(pixels[inside], self.classes[chosen][inside].tolist(), grid)

    @cached_property
    def tree(self) -> shapely.STRtree:
        """Over `geometry`."""
        return shapely.STRtree(self.geometry)


# One layer serves a whole set; a training may have one for each of its places.
@lru_cache(maxsize=16)
def _load(file: LayerFile) -> ShapeLayer:
    fields = OWN_FIELDS if file.own else () if file.field is None else (file.field,)
    layer = VectorFile(file.path).read(fields)
    count = len(layer)
    classes: NDArray[np.int16] = np.full(count, file.building, np.int16)
    drawn = np.ones(count, np.bool_)
    if file.field is not None:
        names = layer.values[file.field]
        for name in sorted(set(names.tolist())):
            index = _class_of(name, file)
            chosen = names == name
            if index is None:
                drawn[chosen] = False
            else:
                classes[chosen] = index
    order = np.flatnonzero(drawn)
    if file.own:
        # FlatGeobuf has an order of its own, and the later of two polygons wins.
        ids = [int(text) if text.isdecimal() else count for text in layer.values["id"].tolist()]
        order = order[np.argsort(np.array(ids)[order], kind="stable")]
    empty = np.full(count, "", np.object_)
    scenes = layer.values["scene"] if file.own else empty
    notes = []
    if layer.mended:
        notes.append(
            f"{layer.mended} of {count} outlines in {file.path} were invalid, and have been mended."
        )
    if layer.without_outline:
        notes.append(f"{layer.without_outline} features in {file.path} have no outline; left out.")
    return ShapeLayer(layer.geometry[order], classes[order], scenes[order], layer.crs, tuple(notes))


def _class_of(name: str, file: LayerFile) -> int | None:
    if file.own and name == IGNORE_NAME:
        return IGNORED
    return file.rule.index_of(name, f"{file.path}, attribute {file.field!r},")


# Chips of a scene follow one another; scenes are many and their labels may be large.
@lru_cache(maxsize=8)
def _label(file: LayerFile, grid: GeoGrid, scene_id: str | None) -> ShapesLabel:
    return file.load().label(grid, scene_id)
