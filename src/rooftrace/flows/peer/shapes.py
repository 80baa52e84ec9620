"""Polygons that some tool has made, brought to the pixels of the scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.features import rasterize

from rooftrace.core.errors import GeoreferenceError, LabelError
from rooftrace.core.types import Footprints, GeoGrid
from rooftrace.data.shapes import areal_parts, mended
from rooftrace.flows.candidates import in_pixels
from rooftrace.io.reproject import outline_bounds, reprojected
from rooftrace.io.vector_read import VectorFile

__all__ = ["Outlined", "PolygonFiles"]

_SCORES = ("score", "confidence", "probability", "prob", "conf")
"""What an attribute is called that tells how sure a polygon is, in whatever case."""

_CLASS = "class"
_BEND_PX = 0.1
"""How far the middle of a reprojected edge may lie off."""

_SLIVER_PX2 = 0.01
"""Smaller parts are what mending leaves of rings that rounding has crossed."""

Polygons = NDArray[np.object_]


@dataclass(frozen=True)
class Outlined:
    """What files of polygons say of a scene.

    Args:
        outlines: (n,) polygons of the building class in pixels, x right and y down, cut at the
            edges of the scene.
        score: (n,) float32 in 0..1; None where they have none.
        classes: (y, x) uint8, what the polygons of all classes cover; the later one wins.
        notes: what was mended or left aside of the files.
    """

    outlines: Polygons
    score: NDArray[np.float32] | None
    classes: NDArray[np.uint8]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PolygonFiles:
    """Files of polygons by scene.

    Args:
        files: of each scene, by its id.
        classes: names by index, the background first.
        building_class: of polygons whose class is not told.
    """

    files: Mapping[str, tuple[Path, ...]]
    classes: tuple[str, ...]
    building_class: int

    def on(self, scene_id: str, grid: GeoGrid) -> Outlined:
        """The polygons of a scene on its grid.

        Raises:
            DataError: a file cannot be read.
            GeoreferenceError: it does not say where its coordinates lie, and the scene does, or the
                other way round.
            LabelError: a class that is none of the labels'.
        """
        layers = [self._layer(path, placed=grid.crs is not None) for path in self.files[scene_id]]
        parts = [layer.on(grid) for layer in layers]
        geometry, owner = areal_parts(np.concatenate([shapes for shapes, _ in parts]))
        index = np.concatenate(
            [layer.classes[chosen] for layer, (_, chosen) in zip(layers, parts)]
        )[owner]
        scores = [
            None if layer.score is None else layer.score[chosen]
            for layer, (_, chosen) in zip(layers, parts)
        ]
        known = [score for score in scores if score is not None]
        is_building = index == self.building_class
        return Outlined(
            geometry[is_building],
            np.concatenate(known)[owner][is_building] if len(known) == len(scores) else None,
            _painted(geometry, index, grid),
            tuple(note for layer in layers for note in layer.notes),
        )

    def check_reach(self, grids: Mapping[str, GeoGrid], what: str) -> None:
        """Refuse polygons on the ground of which none lies in a scene.

        Raises:
            GeoreferenceError: says where they lie.
        """
        empty = True
        for scene_id, grid in grids.items():
            for path in self.files[scene_id]:
                layer = self._layer(path, placed=True)
                empty &= not len(layer.geometry)
                if len(layer.near(grid)):
                    return
        if not empty:
            raise GeoreferenceError(
                f"None of the polygons of {what} touches a labelled scene.",
                remedy="See whether their coordinate system is what the file says, and whether "
                "they are of these scenes. Predictions without a building are an empty file.",
            )

    def _layer(self, path: Path, *, placed: bool) -> _Layer:
        stamp = path.stat().st_mtime_ns
        return _load(path, stamp, placed, self.classes, self.building_class)


@dataclass(frozen=True)
class _Layer:
    """The polygons of a file.

    Args:
        geometry: (n,) valid polygons and multipolygons.
        classes: (n,) index of each one's class.
        score: (n,) in 0..1, or None.
        crs: of the geometry; None where it is in pixels.
        notes: for the person to see.
    """

    path: Path
    geometry: Polygons
    classes: NDArray[np.int64]
    score: NDArray[np.float32] | None
    crs: CRS | None
    notes: tuple[str, ...]
    tree: shapely.STRtree

    def near(self, grid: GeoGrid) -> NDArray[np.int64]:
        """Indices, ascending, of what may reach into a grid."""
        if self.crs is None:
            return np.arange(len(self.geometry))
        bounds = outline_bounds(grid, self.crs)
        if bounds is None:
            return np.zeros(0, np.int64)
        return np.sort(self.tree.query(shapely.box(*bounds), "intersects"))

    def on(self, grid: GeoGrid) -> tuple[Polygons, NDArray[np.int64]]:
        """(m,) what lies in a grid, in its pixels and cut at its edges; and which each is."""
        chosen = self.near(grid)
        shapes = self.geometry[chosen]
        if self.crs is not None:
            assert grid.crs is not None
            pixel = float(np.sqrt(abs(grid.transform.determinant)))
            shapes = reprojected(shapes, self.crs, grid.crs, _BEND_PX * pixel)
            shapes = _on_pixels(shapes, grid)
            if not np.isfinite(shapely.get_coordinates(shapes)).all():
                raise GeoreferenceError(
                    f"Polygons of {self.path} in {self.crs.name!r} have no place in "
                    f"{grid.crs.name!r}, the coordinate system of a scene that they reach into.",
                    remedy="Reproject them with ogr2ogr -t_srs, or mend what lies far off.",
                )
        frame = shapely.box(0, 0, grid.width, grid.height)
        shapes = mended(shapes)
        outside = ~shapely.covered_by(shapes, frame)
        shapes[outside] = shapely.intersection(shapes[outside], frame)
        parts, owner = areal_parts(shapes)
        kept = shapely.area(parts) > _SLIVER_PX2
        return parts[kept], chosen[owner[kept]]


def _on_pixels(shapes: Polygons, grid: GeoGrid) -> Polygons:
    """(n,) shapes in a grid's CRS, on its pixels, by the same way as a model's own."""
    parts, owner = areal_parts(shapes)
    unknown = np.full(len(parts), np.nan)
    found = Footprints(parts, unknown.astype(np.float32), unknown, grid.crs)
    moved = in_pixels(found, grid)
    if len(parts) == len(shapes):
        return moved
    made = np.empty(len(shapes), np.object_)
    for index in range(len(shapes)):
        made[index] = shapely.MultiPolygon(list(moved[owner == index]))
    return made


# Files by scene are read once each; one that all scenes share stays.
@lru_cache(maxsize=4)
def _load(
    path: Path, stamp: int, placed: bool, classes: tuple[str, ...], building_class: int
) -> _Layer:
    file = VectorFile(path)
    by_name = {name.casefold(): name for name in file.fields}
    score_field = next((by_name[name] for name in _SCORES if name in by_name), None)
    class_field = by_name.get(_CLASS)
    fields = [name for name in (score_field, class_field) if name is not None]
    notes = []
    if placed:
        layer = file.read(fields)
        geometry, crs, values = layer.geometry, layer.crs, dict(layer.values)
        if layer.mended:
            notes.append(f"{layer.mended} outlines in {path} were invalid, and have been mended.")
    else:
        geometry, said, values = file.columns(fields)
        crs = None
        if said is not None and not said.is_geographic:
            raise GeoreferenceError(
                f"{path} is in {said.name!r}, but the labelled scenes have no georeference.",
                remedy="Give polygons in pixels of the scenes (GeoJSON, x right and y down), or "
                "scenes that say where they lie.",
            )
    score = None
    if score_field is not None and len(geometry):
        score, note = _scores(values[score_field], f"{path}: {score_field}")
        notes += [note] if note else []
    index: NDArray[np.int64] = np.full(len(geometry), building_class, np.int64)
    if class_field is not None:
        index = _indices(values[class_field], classes, building_class, f"{path}: {class_field}")
    tree = shapely.STRtree(geometry)
    return _Layer(path, geometry, index, score, crs, tuple(notes), tree)


def _scores(texts: NDArray[np.object_], what: str) -> tuple[NDArray[np.float32] | None, str]:
    try:
        values = np.array([float(text) for text in texts.tolist()])
    except ValueError:
        return None, f"{what} holds what is no number, and is not read as a score."
    if not ((values >= 0) & (values <= 1)).all():
        return None, (
            f"{what} goes from {values.min():g} to {values.max():g}, and is not read as a score: "
            "0 to 1 was expected."
        )
    return values.astype(np.float32), ""


def _indices(
    names: NDArray[np.object_], classes: tuple[str, ...], building_class: int, what: str
) -> NDArray[np.int64]:
    """(n,) the class of each polygon, the background for one that is none of them.

    Where no polygon is called as the building class is, the attribute says something else (a kind
    of house, a grade), and all of two classes are buildings.
    """
    known = {name.casefold(): index for index, name in enumerate(classes)}
    found = {name: known.get(name.casefold()) for name in set(names.tolist())}
    if building_class not in found.values() and len(classes) == 2:
        return np.full(len(names), building_class, np.int64)
    strange = sorted(name for name, index in found.items() if index is None)
    if strange and len(classes) > 2:
        raise LabelError(
            f"{what} holds {', '.join(map(repr, strange[:4]))}, which are no classes; expected "
            f"{', '.join(classes)}.",
            remedy="Call the classes of polygons as the labels do.",
        )
    table = {name: index or 0 for name, index in found.items()}
    return np.array([table[name] for name in names.tolist()], np.int64)


def _painted(geometry: Polygons, classes: NDArray[np.int64], grid: GeoGrid) -> NDArray[np.uint8]:
    drawn = np.zeros(grid.shape, np.uint8)
    if len(geometry):
        rasterize(zip(geometry, classes.tolist()), out=drawn)
    return drawn
