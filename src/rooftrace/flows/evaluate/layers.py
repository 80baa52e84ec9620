"""Predictions in rasters, masks or probabilities, and in polygons, brought to the scenes' grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ConfigError, GeoreferenceError, LabelError, LayoutError
from rooftrace.core.text import plural
from rooftrace.core.types import BoolArray, GeoGrid, Ints, Polygons, Raster, Window
from rooftrace.flows.evaluate.prediction_names import listed
from rooftrace.io.legend import NODATA
from rooftrace.io.raster import RasterFile, open_raster
from rooftrace.io.reproject import (
    bounds_meet,
    degrees_text,
    outline_bounds,
    outline_boxes,
    pixels_apart,
)
from rooftrace.io.resample import warped
from rooftrace.io.vector_read import VectorFile
from rooftrace.labels.mask_values import LabelRule
from rooftrace.labels.shapes import ShapeLayer, ShapesLabel, clip_outlines

_LONLAT = CRS.from_epsg(4326)

_SAME_PX = 0.01
"""Maximum distance in pixels between the corners of two equal grids."""

_ROWS = 2048
_LISTED_VALUES = 6
_DEFAULT_THRESHOLD = 0.5

_SEVERAL_KINDS = "Write all predictions in one form: masks of whole numbers, or probabilities."

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
        values: Values besides 0 of each file of buildings; without files of classes or colours.
    """

    files: Mapping[str, tuple[Path, ...]]
    classes: tuple[str, ...]
    colours: LabelRule | None
    building_class: int
    threshold: float | None
    values: Mapping[Path, tuple[int, ...]]

    @classmethod
    def of(
        cls,
        files: Mapping[str, tuple[Path, ...]],
        classes: tuple[str, ...],
        rule: LabelRule,
        building_class: int,
        threshold: float | None,
    ) -> RasterPredictions:
        """Find out what the files hold.

        Fractions are probabilities, and so are shades of grey where a threshold is given.

        Raises:
            ConfigError: Probabilities are given for more than two classes.
            LabelError: Some files are masks and others probabilities.
            DataError: A file cannot be read.
        """
        paths = list(dict.fromkeys(path for each in files.values() for path in each))
        colours = rule if rule.palette is not None else None
        sources = {path: open_raster(path, palette="indices") for path in paths}
        fractions = [path for path in paths if sources[path].dtype.kind == "f"]
        if fractions and len(classes) > 2:
            raise ConfigError(
                f"{fractions[0]} holds probabilities of one class, but the labels have the classes "
                f"{', '.join(classes)}.",
                remedy="Give masks of class indices, or labels of buildings alone.",
            )
        if 0 < len(fractions) < len(paths):
            mask = next(path for path in paths if path not in fractions)
            raise LabelError(
                f"{fractions[0]} holds fractions, but {mask} whole numbers.", remedy=_SEVERAL_KINDS
            )
        values = {
            path: _values_of(source)
            for path, source in sources.items()
            if len(classes) == 2 and not fractions and not _is_coloured(source, colours)
        }
        # Files without a building do not show which of both they are.
        shades = threshold is not None and any(len(_buildings(v)) > 1 for v in values.values())
        if not (shades or fractions):
            threshold = None
        elif threshold is None:
            threshold = _DEFAULT_THRESHOLD
        return cls(files, classes, colours, building_class, threshold, values)

    def on(self, scene_id: str, grid: GeoGrid) -> SceneMask:
        """Return the predictions for a scene on its grid.

        Raises:
            DataError: A file cannot be read.
            LayoutError: A file has another size, and no georeference by which it could be
                resampled.
            LabelError: The values are neither classes nor probabilities.
        """
        parts = [self._read(path, grid) for path in self.files[scene_id]]
        first = parts[0]
        for part in parts[1:]:
            first.classes[part.covered] = part.classes[part.covered]
            if first.probability is not None and part.probability is not None:
                first.probability[part.covered] = part.probability[part.covered]
        return SceneMask(
            first.classes,
            np.logical_or.reduce([part.covered for part in parts]),
            first.probability,
            any(part.resampled for part in parts),
            next((part.note for part in parts if part.note), ""),
        )

    def _read(self, path: Path, grid: GeoGrid) -> SceneMask:
        source = open_raster(path, palette="indices")
        if _is_coloured(source, self.colours):
            source = open_raster(path)
        resampled = not _lies_on(source, grid)
        if not resampled:
            raster = source.read()
        else:
            _check_near(source, grid)
            raster = warped(source, grid, nearest=self.threshold is None)
        if self.threshold is not None:
            return _probable(raster, source.name, self.threshold, self.building_class, resampled)
        if self.colours is not None and len(raster.data) == 3:
            return self._decoded(raster, source.name, self.colours, resampled)
        if len(self.classes) > 2:
            rule = LabelRule(self.classes, None, (NODATA,) if len(self.classes) <= NODATA else ())
            return self._decoded(raster, source.name, rule, resampled)
        return self._buildings_of(raster, source, resampled)

    def _decoded(self, raster: Raster, name: str, rule: LabelRule, resampled: bool) -> SceneMask:
        classes, known = rule.decode(raster.data, name, raster.valid)
        return SceneMask(classes, raster.valid if known is None else known, None, resampled)

    def _buildings_of(self, raster: Raster, source: RasterFile, resampled: bool) -> SceneMask:
        data = _one_band(raster, source.name)
        values = self.values[source.path]
        buildings, note = _buildings(values), ""
        if values == (NODATA,):
            # Another value than 0 and 255 in any file: 255 is then unknown in all of them.
            if any(set(each) - {NODATA} for each in self.values.values()):
                buildings = []
            else:
                note = (
                    f"{source.path.parent}: masks hold only 0 and 255, and 255 is taken for "
                    "building. If it marks unknown pixels, declare it as nodata."
                )
        if len(buildings) > 1:
            raise LabelError(
                f"{source.name} holds the values {', '.join(map(str, values[:_LISTED_VALUES]))}"
                f"{'…' if len(values) > _LISTED_VALUES else ''} besides 0; a mask of buildings has "
                "one such value, and perhaps 255 for unknown pixels.",
                remedy="If they are probabilities, add --threshold 0.5; if they are classes, make "
                "a mask of the buildings.",
            )
        covered = raster.valid if NODATA in buildings else raster.valid & (data != NODATA)
        drawn = np.isin(data, buildings) & covered
        return SceneMask(drawn * np.uint8(self.building_class), covered, None, resampled, note)


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
    empty = [scene_id for scene_id, paths in files.items() if not paths]
    if empty:
        raise GeoreferenceError(
            f"{what} does not cover {len(empty):,} of {len(grids):,} labelled scenes: "
            f"{listed(empty)}; nor does it have their names.",
            remedy="Give predictions of these scenes, or choose scenes with --part or --split.",
        )
    used = {path for paths in files.values() for path in paths}
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
    if raster.is_coloured:
        raise LabelError(
            f"{name} is coloured: {len(raster.data)} bands that differ. A prediction has one band, "
            "or equal bands.",
            remedy="If its colours are classes, give them with --set labels.palette.NAME=#RRGGBB.",
        )
    return np.asarray(raster.data[0])


def _is_coloured(source: RasterFile, colours: LabelRule | None) -> bool:
    """Return True if a palette is known, and the file has bands or a palette of its own."""
    return colours is not None and (source.bands > 1 or open_raster(source.path).bands == 3)


def _values_of(source: RasterFile) -> tuple[int, ...]:
    """Return the whole numbers besides 0 in a file, ascending."""
    values: set[int] = set()
    for window in Window.whole(source.grid.shape).strips(_ROWS):
        raster = source.read(window)
        values.update(np.unique(_one_band(raster, source.name)[raster.valid]).tolist())
    return tuple(sorted(values - {0}))


def _buildings(values: tuple[int, ...]) -> list[int]:
    """Return the values of one file that are buildings: 255 is unknown beside other values."""
    return [value for value in values if value != NODATA or len(values) == 1]


_SCORES = ("score", "confidence", "probability", "prob", "conf")
"""Names of attributes that hold the score of a polygon, in upper or lower case."""

_CLASS = "class"

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
        layers = self._layers(scene_id, grid)
        parts = [layer.on(grid) for layer in layers]
        outlines = np.concatenate([geometry for geometry, _ in parts])
        index = np.concatenate(
            [one.shapes.classes[chosen] for one, (_, chosen) in zip(layers, parts)]
        )
        scores = [
            one.score[chosen] for one, (_, chosen) in zip(layers, parts) if one.score is not None
        ]
        is_building = index == self.building_class
        return ScenePolygons(
            outlines[is_building],
            np.concatenate(scores)[is_building] if len(scores) == len(layers) else None,
            ShapesLabel(outlines, index.tolist(), grid).read().data,
            tuple(note for layer in layers for note in layer.shapes.notes),
        )

    def count_outside(self, grids: Mapping[str, GeoGrid], what: str) -> tuple[int, int]:
        """Return the numbers of polygons that lie in no scene, and of all.

        Raises:
            GeoreferenceError: No polygon lies in a scene, or a scene has no georeference.
        """
        near: dict[Path, set[int]] = {}
        count: dict[Path, int] = {}
        for scene_id, grid in grids.items():
            for layer in self._layers(scene_id, grid):
                near.setdefault(layer.path, set()).update(layer.near(grid).tolist())
                count[layer.path] = len(layer.shapes)
        every, inside = sum(count.values()), sum(map(len, near.values()))
        if every and not inside:
            raise GeoreferenceError(
                f"None of the polygons of {what} touches a labelled scene.",
                remedy="Check the CRS of the file, and that the polygons belong to these scenes. "
                "An empty file stands for predictions without a building.",
            )
        return every - inside, every

    def _layers(self, scene_id: str, grid: GeoGrid) -> list[_Layer]:
        """Return the files of a scene, with coordinates on the ground or in pixels.

        Raises:
            GeoreferenceError: Coordinates of the first scene are on the ground, but this scene has
                no georeference.
        """
        if self.on_ground and grid.crs is None:
            raise GeoreferenceError(
                f"The labelled scene {scene_id} has no georeference, but others have, and the "
                "polygons belong to places on the ground.",
                remedy="Give it one, or evaluate it separately, with polygons in its pixels.",
            )
        return [
            _load(
                path,
                path.stat().st_mtime_ns,
                grid.crs is not None,
                self.classes,
                self.building_class,
            )
            for path in self.files[scene_id]
        ]


@dataclass(frozen=True)
class _Layer:
    """Polygons of a file.

    Args:
        path: The file.
        shapes: The polygons, in the CRS of the file or in pixels, and their classes.
        score: (n,) score in 0..1, or None.
        on_ground: False where coordinates are pixels.
    """

    path: Path
    shapes: ShapeLayer
    score: NDArray[np.float32] | None
    on_ground: bool

    def near(self, grid: GeoGrid) -> Ints:
        """Return the indices, ascending, of polygons that may overlap a grid."""
        return self.shapes.near(grid) if self.on_ground else np.arange(len(self.shapes))

    def on(self, grid: GeoGrid) -> tuple[Polygons, Ints]:
        """Return the (m,) parts in a grid, in its pixels and cut at its edges, and the index of
        each.
        """
        geometry, chosen = self.shapes.geometry, self.near(grid)
        if self.on_ground:
            geometry, chosen = self.shapes.on(grid)
        parts, owner = clip_outlines(geometry, chosen, shapely.box(0, 0, grid.width, grid.height))
        solid = shapely.area(parts) > _SLIVER_PX2
        return parts[solid], owner[solid]


# Files of single scenes are read once each; a file that all scenes share stays in the cache.
@lru_cache(maxsize=4)
def _load(
    path: Path, stamp: int, on_ground: bool, classes: tuple[str, ...], building_class: int
) -> _Layer:
    file = VectorFile(path)
    by_name = {name.casefold(): name for name in file.fields}
    score_field = next((by_name[name] for name in _SCORES if name in by_name), None)
    class_field = by_name.get(_CLASS)
    fields = [name for name in (score_field, class_field) if name is not None]
    notes = []
    if on_ground:
        layer = file.read(fields)
        geometry, crs, values = layer.geometry, layer.crs, dict(layer.values)
        if layer.repaired:
            repaired = plural(layer.repaired, "invalid outline")
            notes.append(f"Repaired: {repaired} in {path}.")
    else:
        geometry, file_crs, values = file.columns(fields)
        crs = _LONLAT
        if file_crs is not None and not file_crs.is_geographic:
            raise GeoreferenceError(
                f"{path} is in {file_crs.name!r}, but the labelled scenes have no georeference.",
                remedy="Give polygons in pixels of the scenes (GeoJSON, x right and y down), or "
                "scenes with a georeference.",
            )
    score = None
    if score_field is not None and len(geometry):
        score, note = _scores(values[score_field], f"{path}: {score_field}")
        notes += [note] if note else []
    index: NDArray[np.int16] = np.full(len(geometry), building_class, np.int16)
    if class_field is not None:
        index = _indices(values[class_field], classes, building_class, f"{path}: {class_field}")
    nobody = np.full(len(geometry), "", np.object_)
    return _Layer(path, ShapeLayer(geometry, index, nobody, crs, tuple(notes)), score, on_ground)


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
) -> NDArray[np.int16]:
    """Return the (n,) class of each polygon; the background for one that is none of the classes.

    With two classes, the attribute is ignored if no polygon has the name of the building class. It
    then holds something else (a kind of house, a grade), and all polygons are buildings.
    """
    by_name = {name.casefold(): index for index, name in enumerate(classes)}
    index_of = {name: by_name.get(name.casefold()) for name in set(names.tolist())}
    if building_class not in index_of.values() and len(classes) == 2:
        return np.full(len(names), building_class, np.int16)
    strange = sorted(name for name, index in index_of.items() if index is None)
    if strange and len(classes) > 2:
        raise LabelError(
            f"{what} holds the unknown classes {', '.join(map(repr, strange[:4]))}; expected "
            f"{', '.join(classes)}.",
            remedy="Name the classes of polygons as in the labels.",
        )
    return np.array([index_of[name] or 0 for name in names.tolist()], np.int16)
