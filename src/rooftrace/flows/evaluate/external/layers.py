"""Predictions in rasters, masks or probabilities, and in polygons, brought to the scenes' grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import (
    ConfigError,
    DataError,
    GeoreferenceError,
    LabelError,
    LayoutError,
)
from rooftrace.core.text import plural
from rooftrace.core.types import BoolArray, Footprints, GeoGrid, Polygons, Raster, Window
from rooftrace.flows.evaluate.external.files import listed
from rooftrace.flows.evaluate.predictions import in_pixels
from rooftrace.io.gdal import rasterize
from rooftrace.io.legend import NODATA
from rooftrace.io.make_valid import polygon_parts, valid_geometry
from rooftrace.io.raster import RasterFile, open_raster
from rooftrace.io.reproject import (
    bounds_meet,
    degrees_text,
    outline_bounds,
    outline_boxes,
    pixels_apart,
    reprojected,
)
from rooftrace.io.resample import warped
from rooftrace.io.vector_read import VectorFile
from rooftrace.labels.mask_values import LabelRule

_LONLAT = CRS.from_epsg(4326)
_LOOKED_AT = 8
"""Number of files whose type is looked at to distinguish masks from probabilities."""

_SAME_PX = 0.01
"""Maximum distance in pixels between the corners of two equal grids."""

_ROWS = 2048
_SHOWN = 6
_DEFAULT_THRESHOLD = 0.5

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class SceneMask:
    """Predicted classes and probabilities of a scene.

    Args:
        classes: (y, x) uint8 class indices, the background where there is no prediction.
        covered: (y, x) pixels with a prediction.
        probability: (y, x) uint8 probability of the building in 255ths; None for masks.
        resampled: True if they were resampled from another grid.
        note: Assumption about the values, for the user; "" if there is none.
    """

    classes: Bytes
    covered: BoolArray
    probability: Bytes | None
    resampled: bool
    note: str = ""


@dataclass(frozen=True)
class RasterPredictions:
    """Rasters by scene, all of the same kind.

    Args:
        files: Files of each scene, by its id; a later file covers an earlier one where it has
            values.
        classes: Names by index, the background first.
        colours: Rule for reading masks in colours; None where there is no palette.
        building_class: Class index of the probabilities.
        threshold: Threshold on probabilities; None for masks.
        values: Values besides 0 of all files; None if not all have been read.
    """

    files: Mapping[str, tuple[Path, ...]]
    classes: tuple[str, ...]
    colours: LabelRule | None
    building_class: int
    threshold: float | None
    values: frozenset[int] | None = None

    @classmethod
    def of(
        cls,
        files: Mapping[str, tuple[Path, ...]],
        classes: tuple[str, ...],
        rule: LabelRule,
        building_class: int,
        threshold: float | None,
    ) -> RasterPredictions:
        """Read some of the files to find out their kind.

        Fractions are probabilities, and so are shades of grey where a threshold is given.

        Raises:
            ConfigError: Probabilities are given for more than two classes.
            DataError: A file cannot be read.
        """
        paths = list(dict.fromkeys(path for each in files.values() for path in each))
        count = min(_LOOKED_AT, len(paths))
        looked_at = [paths[i * len(paths) // count] for i in range(count)]
        shades = any(open_raster(path, palette="indices").dtype.kind == "f" for path in looked_at)
        values = None
        if not shades and threshold is not None and len(classes) == 2:
            # Files without a building do not show which of both they are, so that all may be read.
            every: set[int] = set()
            for path in dict.fromkeys([*looked_at, *paths]):
                found = _values(open_raster(path, palette="indices"))
                every.update(found)
                shades |= len(_buildings(found)) > 1
                if shades:
                    break
            else:
                values = frozenset(every)
        if shades and len(classes) > 2:
            raise ConfigError(
                f"{paths[0]} holds probabilities of one class, but the labels have the classes "
                f"{', '.join(classes)}.",
                remedy="Give masks of class indices, or labels of buildings alone.",
            )
        least = (_DEFAULT_THRESHOLD if threshold is None else threshold) if shades else None
        colours = rule if rule.palette is not None else None
        return cls(files, classes, colours, building_class, least, values)

    def on(self, scene_id: str, grid: GeoGrid) -> SceneMask:
        """Return the predictions for a scene on its grid.

        Raises:
            DataError: A file cannot be read.
            LayoutError: A file has another size, and no georeference by which it could be
                resampled.
            LabelError: The values are neither classes nor probabilities.
        """
        paths = self.files[scene_id]
        parts = [self._read(path, grid) for path in paths]
        first = parts[0]
        note = next((part.note for part in parts if part.note), "")
        for part in parts[1:]:
            first.classes[part.covered] = part.classes[part.covered]
            if first.probability is not None and part.probability is not None:
                first.probability[part.covered] = part.probability[part.covered]
        covered = np.logical_or.reduce([part.covered for part in parts])
        resampled = any(part.resampled for part in parts)
        return SceneMask(first.classes, covered, first.probability, resampled, note)

    def _read(self, path: Path, grid: GeoGrid) -> SceneMask:
        source = open_raster(path, palette="indices")
        if self.colours is not None and (source.bands > 1 or _has_palette(path)):
            source = open_raster(path)
        resampled = not _lies_on(source, grid)
        if not resampled:
            raster = source.read()
        else:
            _check_near(source, grid)
            raster = warped(source, grid, nearest=self.threshold is None)
        if self.threshold is not None:
            return _probable(raster, source.name, self.threshold, self.building_class, resampled)
        classes, covered, note = self._classes(raster, source, resampled)
        return SceneMask(classes, covered, None, resampled, note)

    @cached_property
    def _has_other_values(self) -> bool:
        """True if a file holds another value than 0 and 255: 255 is then unknown in all files."""
        if self.values is not None:
            return not self.values <= {NODATA}
        for path in dict.fromkeys(path for each in self.files.values() for path in each):
            # A file that cannot be read, or is no mask, is reported with its scene.
            with suppress(DataError):
                if {*_values(open_raster(path, palette="indices"))} - {NODATA}:
                    return True
        return False

    def _classes(
        self, raster: Raster, source: RasterFile, resampled: bool
    ) -> tuple[Bytes, BoolArray, str]:
        """Return class indices, the pixels with a prediction, and a note on the values."""
        valid = raster.valid
        if self.colours is not None and len(raster.data) == 3:
            classes, known = self.colours.decode(raster.data, source.name, valid)
            return classes, valid if known is None else known, ""
        if len(self.classes) > 2:
            rule = LabelRule(self.classes, None, (NODATA,) if len(self.classes) <= NODATA else ())
            classes, known = rule.decode(raster.data, source.name, valid)
            return classes, valid if known is None else known, ""
        data = _one_band(raster, source.name)
        # A part of a file may lack the values that decide on the meaning of the others.
        found = _values(source) if resampled else _occurring(data[valid], source.name)
        buildings, note = _buildings(found), ""
        if found == (NODATA,):
            if self._has_other_values:
                buildings = []
            else:
                note = (
                    f"{source.path.parent}: masks hold only 0 and 255, and 255 is taken for "
                    "building. If it marks unknown pixels, declare it as nodata."
                )
        if len(buildings) > 1:
            raise LabelError(
                f"{source.name} holds the values {', '.join(map(str, found[:_SHOWN]))}"
                f"{'…' if len(found) > _SHOWN else ''} besides 0; a mask of buildings has one such "
                "value, and perhaps 255 for unknown pixels.",
                remedy="If they are probabilities, add --threshold 0.5; if they are classes, make "
                "a mask of the buildings.",
            )
        covered = valid if NODATA in buildings else valid & (data != NODATA)
        drawn = np.isin(data, buildings) & covered
        return drawn * np.uint8(self.building_class), covered, note


def match_rasters_by_location(
    grids: Mapping[str, GeoGrid], rasters: Sequence[Path], what: str
) -> tuple[dict[str, tuple[Path, ...]], tuple[Path, ...]]:
    """Match rasters to scenes by place, from their headers; return those without a scene, too.

    Args:
        grids: Grids of the scenes, by id; all with a CRS.
        rasters: The files.
        what: Name of the predictions, for errors.

    Raises:
        GeoreferenceError: A raster has no georeference, or a scene has no raster; the message lists
            them.
    """
    boxes = []
    for path in rasters:
        grid = open_raster(path).grid
        bounds = None if grid.crs is None else outline_bounds(grid, _LONLAT)
        if bounds is None:
            raise GeoreferenceError(
                f"{path} has the name of no labelled scene ({listed(list(grids))}), and no "
                "georeference.",
                remedy="Name predictions as their scenes.",
            )
        boxes.append(shapely.box(*bounds))
    tree = shapely.STRtree(boxes)
    files: dict[str, tuple[Path, ...]] = {}
    for scene_id, grid in grids.items():
        near = np.unique(tree.query(outline_boxes(grid, _LONLAT), "intersects")[1])
        files[scene_id] = tuple(rasters[index] for index in near)
    empty = [scene_id for scene_id, found in files.items() if not found]
    if empty:
        raise GeoreferenceError(
            f"{what} does not cover {len(empty):,} of {len(grids):,} labelled scenes: "
            f"{listed(empty)}; nor does it have their names.",
            remedy="Give predictions of these scenes, or choose scenes with --part or --split.",
        )
    used = {path for found in files.values() for path in found}
    return files, tuple(path for path in rasters if path not in used)


def _lies_on(source: RasterFile, grid: GeoGrid) -> bool:
    """Return True if a raster has a scene's own pixels; False if it covers the same ground
    otherwise.
    """
    own = source.grid
    if own.crs is not None and grid.crs is not None:
        return own.shape == grid.shape and pixels_apart(own, grid) < _SAME_PX
    if own.shape == grid.shape:
        return True
    raise LayoutError(
        f"{source.name} has {own.height} rows × {own.width} columns, but its scene has "
        f"{grid.height} × {grid.width}, and "
        f"{'it' if own.crs is None else 'the scene'} has no georeference to align them.",
        remedy="Give the prediction at the size of its scene.",
    )


def _check_near(source: RasterFile, grid: GeoGrid) -> None:
    """Raise an error for a raster that has the name of a scene and shows other ground."""
    own, other = outline_bounds(source.grid, _LONLAT), outline_bounds(grid, _LONLAT)
    if own is None or other is None or not bounds_meet(own, other, _LONLAT):
        places = ["nowhere" if one is None else degrees_text(one, _LONLAT) for one in (own, other)]
        raise GeoreferenceError(
            f"{source.name} lies at {places[0]}, but its scene at {places[1]}.",
            remedy="Correct its georeference, or name it as the scene that it shows.",
        )


def _probable(
    raster: Raster, name: str, threshold: float, building_class: int, resampled: bool
) -> SceneMask:
    data = _one_band(raster, name)
    if data.dtype == np.uint8:
        share, is_building = np.asarray(data, np.uint8), data >= threshold * 255
    elif data.dtype.kind == "f":
        known = data[raster.valid]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        if low < 0 or high > 1:
            raise LabelError(
                f"{name} holds values from {low:g} to {high:g}; probabilities are fractions from "
                "0 to 1.",
                remedy="Divide it by its largest value, or give a mask of whole numbers.",
            )
        clean = np.where(raster.valid, data, 0)
        share, is_building = np.rint(clean * 255).astype(np.uint8), clean >= threshold
    else:
        raise LabelError(
            f"{name} holds {data.dtype} values; probabilities are fractions from 0 to 1, or bytes "
            "from 0 to 255.",
            remedy="Write all predictions in one of these forms.",
        )
    drawn = (is_building & raster.valid) * np.uint8(building_class)
    return SceneMask(drawn, raster.valid, np.where(raster.valid, share, np.uint8(0)), resampled)


def _one_band(raster: Raster, name: str) -> NDArray[Any]:
    """Return the (y, x) values of a raster with one band, or with equal bands."""
    data = raster.data
    if raster.is_coloured:
        raise LabelError(
            f"{name} is coloured: {len(data)} bands that differ. A prediction has one band, or "
            "equal bands.",
            remedy="If its colours are classes, give them with --set labels.palette.NAME=#RRGGBB.",
        )
    return np.asarray(data[0])


@lru_cache(maxsize=64)
def _values_of(path: Path, stamp: int) -> tuple[int, ...]:
    source = open_raster(path, palette="indices")
    found: set[int] = set()
    for window in Window.whole(source.grid.shape).strips(_ROWS):
        raster = source.read(window)
        found.update(_occurring(_one_band(raster, source.name)[raster.valid], source.name))
    return tuple(sorted(found))


def _values(source: RasterFile) -> tuple[int, ...]:
    """Return the values of a file besides 0, as `_occurring`."""
    return _values_of(source.path, source.path.stat().st_mtime_ns)


def _buildings(found: tuple[int, ...]) -> list[int]:
    """Return the values of one file that are buildings: 255 is unknown beside other values."""
    return [value for value in found if value != NODATA or len(found) == 1]


def _occurring(values: NDArray[Any], name: str) -> tuple[int, ...]:
    """Return the values besides 0, ascending.

    Raises:
        LabelError: The values are fractions.
    """
    if values.dtype == np.uint8:
        found = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    elif values.dtype.kind in "iub":
        found = np.unique(values)
    else:
        raise LabelError(
            f"{name} holds fractions, but other predictions beside it are masks of whole numbers.",
            remedy="Write all predictions in one form.",
        )
    return tuple(int(value) for value in found.tolist() if value != 0)


def _has_palette(path: Path) -> bool:
    """Return True if a file gives colours where they are asked for."""
    return open_raster(path).bands == 3


_SCORES = ("score", "confidence", "probability", "prob", "conf")
"""Names of attributes that hold the score of a polygon, in upper or lower case."""

_CLASS = "class"
_BEND_PX = 0.1
"""Maximum deviation in pixels of the middle of a reprojected edge."""

_SLIVER_PX2 = 0.01
"""Area in square pixels up to which parts are dropped; repairs of self-crossing rings
leave them."""


@dataclass(frozen=True)
class ScenePolygons:
    """Polygons of a scene.

    Args:
        outlines: (n,) polygons of the building class in pixels, x right and y down, cut at the
            edges of the scene.
        score: (n,) float32 score in 0..1; None where there are no scores.
        classes: (y, x) uint8 class index that the polygons draw; a later polygon covers an earlier
            one.
        notes: Repairs and ignored values, for the user.
    """

    outlines: Polygons
    score: NDArray[np.float32] | None
    classes: NDArray[np.uint8]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PolygonPredictions:
    """Files of polygons by scene.

    Args:
        files: Files of each scene, by its id.
        classes: Names by index, the background first.
        building_class: Class index of polygons without a class.
        on_ground: Whether the files were matched to the scenes by their places on the ground.
    """

    files: Mapping[str, tuple[Path, ...]]
    classes: tuple[str, ...]
    building_class: int
    on_ground: bool

    def on(self, scene_id: str, grid: GeoGrid) -> ScenePolygons:
        """Return the polygons of a scene on its grid.

        Raises:
            DataError: A file cannot be read.
            GeoreferenceError: Only one of the file and the scene has a georeference.
            LabelError: A class is not one of the labels'.
        """
        placed = self._is_placed(scene_id, grid)
        layers = [self._layer(path, placed=placed) for path in self.files[scene_id]]
        parts = [layer.on(grid) for layer in layers]
        geometry, owner = polygon_parts(np.concatenate([shapes for shapes, _ in parts]))
        index = np.concatenate(
            [layer.classes[chosen] for layer, (_, chosen) in zip(layers, parts)]
        )[owner]
        scores = [
            None if layer.score is None else layer.score[chosen]
            for layer, (_, chosen) in zip(layers, parts)
        ]
        known = [score for score in scores if score is not None]
        is_building = index == self.building_class
        return ScenePolygons(
            geometry[is_building],
            np.concatenate(known)[owner][is_building] if len(known) == len(scores) else None,
            _painted(geometry, index, grid),
            tuple(note for layer in layers for note in layer.notes),
        )

    def check_reach(self, grids: Mapping[str, GeoGrid], what: str) -> None:
        """Check that at least one polygon lies in a scene.

        Raises:
            GeoreferenceError: None does, or a scene has no georeference.
        """
        empty = True
        for scene_id, grid in grids.items():
            for path in self.files[scene_id]:
                layer = self._layer(path, placed=self._is_placed(scene_id, grid))
                empty &= not len(layer.geometry)
                if len(layer.near(grid)):
                    return
        if not empty:
            raise GeoreferenceError(
                f"None of the polygons of {what} touches a labelled scene.",
                remedy="Check the coordinate system of the file, and that the polygons belong to "
                "these scenes. An empty file stands for predictions without a building.",
            )

    def count_outside(self, grids: Mapping[str, GeoGrid]) -> tuple[int, int]:
        """Return the numbers of polygons that lie in no scene, and of all.

        Raises:
            GeoreferenceError: A scene has no georeference.
        """
        near: dict[Path, set[int]] = {}
        count: dict[Path, int] = {}
        for scene_id, grid in grids.items():
            for path in self.files[scene_id]:
                layer = self._layer(path, placed=self._is_placed(scene_id, grid))
                near.setdefault(path, set()).update(layer.near(grid).tolist())
                count[path] = len(layer.geometry)
        every = sum(count.values())
        return every - sum(map(len, near.values())), every

    def _is_placed(self, scene_id: str, grid: GeoGrid) -> bool:
        """Return whether polygons of a scene have coordinates on the ground, not in pixels.

        Raises:
            GeoreferenceError: They have, as those of the first scene do, but this scene has not.
        """
        if self.on_ground and grid.crs is None:
            raise GeoreferenceError(
                f"The labelled scene {scene_id} has no georeference, but others have, and the "
                "polygons belong to places on the ground.",
                remedy="Give it one, or evaluate it separately, with polygons in its pixels.",
            )
        return grid.crs is not None

    def _layer(self, path: Path, *, placed: bool) -> _Layer:
        stamp = path.stat().st_mtime_ns
        return _load(path, stamp, placed, self.classes, self.building_class)


@dataclass(frozen=True)
class _Layer:
    """Polygons of a file.

    Args:
        path: The file.
        geometry: (n,) valid polygons and multipolygons.
        classes: (n,) class index of each polygon.
        score: (n,) score in 0..1, or None.
        crs: CRS of the geometry; None where it is in pixels.
        notes: Notes for the user.
        tree: Spatial index of the geometry.
    """

    path: Path
    geometry: Polygons
    classes: NDArray[np.int64]
    score: NDArray[np.float32] | None
    crs: CRS | None
    notes: tuple[str, ...]
    tree: shapely.STRtree

    def near(self, grid: GeoGrid) -> NDArray[np.int64]:
        """Return the indices, ascending, of polygons that may overlap a grid."""
        if self.crs is None:
            return np.arange(len(self.geometry))
        return np.unique(self.tree.query(outline_boxes(grid, self.crs), "intersects")[1])

    def on(self, grid: GeoGrid) -> tuple[Polygons, NDArray[np.int64]]:
        """Return the (m,) parts in a grid, in its pixels and cut at its edges, and the index of
        each.
        """
        chosen = self.near(grid)
        shapes = self.geometry[chosen]
        if self.crs is not None:
            assert grid.crs is not None
            pixel = float(np.sqrt(abs(grid.transform.determinant)))
            shapes = reprojected(shapes, self.crs, grid.crs, _BEND_PX * pixel)
            shapes = _on_pixels(shapes, grid)
            if not np.isfinite(shapely.get_coordinates(shapes)).all():
                raise GeoreferenceError(
                    f"Polygons of {self.path} in {self.crs.name!r} cannot be converted to "
                    f"{grid.crs.name!r}, the coordinate system of a scene that they overlap.",
                    remedy="Reproject them with ogr2ogr -t_srs, or correct coordinates far off.",
                )
        frame = shapely.box(0, 0, grid.width, grid.height)
        shapes = valid_geometry(shapes)
        outside = ~shapely.covered_by(shapes, frame)
        shapes[outside] = shapely.intersection(shapes[outside], frame)
        parts, owner = polygon_parts(shapes)
        kept = shapely.area(parts) > _SLIVER_PX2
        return parts[kept], chosen[owner[kept]]


def _on_pixels(shapes: Polygons, grid: GeoGrid) -> Polygons:
    """Convert (n,) shapes from a grid's CRS to its pixels, in the same way as those of a model."""
    parts, owner = polygon_parts(shapes)
    unknown = np.full(len(parts), np.nan)
    found = Footprints(parts, unknown.astype(np.float32), unknown, grid.crs)
    shifted = in_pixels(found, grid)
    if len(parts) == len(shapes):
        return shifted
    made = np.empty(len(shapes), np.object_)
    for index in range(len(shapes)):
        made[index] = shapely.MultiPolygon(list(shifted[owner == index]))
    return made


# Files of single scenes are read once each; a file that all scenes share stays in the cache.
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
        if layer.repaired:
            repaired = plural(layer.repaired, "invalid outline")
            notes.append(f"Repaired: {repaired} in {path}.")
    else:
        geometry, said, values = file.columns(fields)
        crs = None
        if said is not None and not said.is_geographic:
            raise GeoreferenceError(
                f"{path} is in {said.name!r}, but the labelled scenes have no georeference.",
                remedy="Give polygons in pixels of the scenes (GeoJSON, x right and y down), or "
                "scenes with a georeference.",
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
        return None, f"{what} holds values that are no numbers, and is not read as a score."
    if not ((values >= 0) & (values <= 1)).all():
        return None, (
            f"{what} ranges from {values.min():g} to {values.max():g}, and is not read as a score: "
            "expected 0 to 1."
        )
    return values.astype(np.float32), ""


def _indices(
    names: NDArray[np.object_], classes: tuple[str, ...], building_class: int, what: str
) -> NDArray[np.int64]:
    """Return the (n,) class of each polygon; the background for one that is none of the classes.

    With two classes, the attribute is ignored if no polygon has the name of the building class. It
    then holds something else (a kind of house, a grade), and all polygons are buildings.
    """
    known = {name.casefold(): index for index, name in enumerate(classes)}
    found = {name: known.get(name.casefold()) for name in set(names.tolist())}
    if building_class not in found.values() and len(classes) == 2:
        return np.full(len(names), building_class, np.int64)
    strange = sorted(name for name, index in found.items() if index is None)
    if strange and len(classes) > 2:
        raise LabelError(
            f"{what} holds the unknown classes {', '.join(map(repr, strange[:4]))}; expected "
            f"{', '.join(classes)}.",
            remedy="Name the classes of polygons as in the labels.",
        )
    table = {name: index or 0 for name, index in found.items()}
    return np.array([table[name] for name in names.tolist()], np.int64)


def _painted(geometry: Polygons, classes: NDArray[np.int64], grid: GeoGrid) -> NDArray[np.uint8]:
    drawn = np.zeros(grid.shape, np.uint8)
    if len(geometry):
        rasterize(zip(geometry, classes.tolist()), out=drawn)
    return drawn
