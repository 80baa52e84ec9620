"""Predictions in rasters, masks or probabilities, and in polygons, brought to the scenes' grids."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, GeoreferenceError, LabelError, LayoutError
from rooftrace.core.text import list_first, size_text
from rooftrace.core.types import BoolArray, GeoGrid, Mask, Raster, RasterSource, Window
from rooftrace.flows.evaluate.predictions import ScenePrediction
from rooftrace.io.legend import NODATA
from rooftrace.io.reproject import (
    CRS84,
    bounds_meet,
    crs_text,
    degrees_text,
    outline_bounds,
    outline_boxes,
    pixels_apart,
)
from rooftrace.io.resample import warped
from rooftrace.io.vector_read import SCORE_FIELDS, VectorFile
from rooftrace.labels.mask_source import open_mask
from rooftrace.labels.mask_values import LabelRule
from rooftrace.labels.shapes import ShapeLayer, ShapesLabel, clip_outlines

_SAME_PX = 0.01
"""Maximum distance in pixels between the corners of two equal grids."""

_ROWS = 2048
_DEFAULT_THRESHOLD = 0.5

_LEAST_INSTANCES = 5
"""Minimum number of values of a mask in which each is one building; classes are fewer."""

_MOST_PIECES = 1.5
"""Maximum number of pieces for each building: trees and the edges of tiles cut some apart."""

_LEAST_PX = 4
"""Minimum mean number of pixels of a building; shades of 16 bits have about one for each value."""

_SAMPLES = 3
"""Number of masks whose pieces are counted."""

_ONE_FORM = "Write all predictions in one form: masks of whole numbers, or probabilities."

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class SceneMask:
    """Predicted classes and probabilities of a scene.

    Args:
        classes: (y, x) uint8 class indices, the background where there is no prediction.
        covered: (y, x) pixels with a prediction.
        probability: (y, x) uint8 probability of the building in 255ths; None for masks.
        instances: (y, x) int32 number of the building at each pixel, from 1; None for other masks.
        resampled: True if they were resampled from another grid.
        note: Assumption about the values, for the user; "" if there is none.
    """

    classes: Bytes
    covered: BoolArray
    probability: Bytes | None = None
    instances: NDArray[np.int32] | None = None
    resampled: bool = False
    note: str = ""


@dataclass(frozen=True)
class RasterPredictions:
    """Rasters by scene, all of the same kind.

    Args:
        files: Files of each scene, by its id; a later file covers an earlier one where it has
            values.
        rule: Rule for reading masks; its palette is that of the labels.
        threshold: Threshold on probabilities; None for masks.
        values: Values besides 0 of each file of buildings; without files of classes or colours.
    """

    files: Mapping[str, tuple[Path, ...]]
    rule: LabelRule
    building_class: int
    threshold: float | None
    values: Mapping[Path, tuple[int, ...]]
    instances: bool = False

    @classmethod
    def of(
        cls,
        files: Mapping[str, tuple[Path, ...]],
        rule: LabelRule,
        building_class: int,
        threshold: float | None,
    ) -> RasterPredictions:
        """Find out what the files hold.

        Fractions are probabilities, and so are shades of grey where a threshold is given. Without
        one, many values of one piece each are single buildings.
        """
        paths = dict.fromkeys(path for each in files.values() for path in each)
        fractions = [path for path in paths if open_mask(path, sharp=False).dtype.kind == "f"]
        if fractions and len(rule.classes) > 2:
            raise ConfigError(
                f"{fractions[0]} holds probabilities of one class, but the labels have the classes "
                f"{', '.join(rule.classes)}.",
                remedy="Give masks of class indices, or labels of buildings alone.",
            )
        if 0 < len(fractions) < len(paths):
            mask = next(path for path in paths if path not in fractions)
            raise LabelError(
                f"{fractions[0]} holds fractions, but {mask} whole numbers.", remedy=_ONE_FORM
            )
        # An opened JPEG is a decoded one, so that only one of the files is open at a time.
        values = {
            path: _values_of(source)
            for path in paths
            if len(rule.classes) == 2
            and not fractions
            and not _is_coloured(source := open_mask(path, sharp=threshold is None), rule)
        }
        # Files without a building do not show which of both they are.
        shades = threshold is not None and any(len(_buildings(v)) > 1 for v in values.values())
        used = (threshold or _DEFAULT_THRESHOLD) if shades or fractions else None
        instances = used is None and _are_instances(values)
        return cls(files, rule, building_class, used, values, instances)

    @cached_property
    def all_values(self) -> tuple[int, ...]:
        """Values besides 0 of all files: the value of the buildings is the same in each."""
        return tuple(sorted(set().union(*self.values.values())))

    def on(self, scene_id: str, grid: GeoGrid) -> SceneMask:
        """Return the predictions for a scene on its grid.

        Raises:
            LayoutError: A file has another size, and no georeference by which it could be
                resampled.
            LabelError: The values are neither classes nor probabilities.
        """
        first, *others = [self._read(path, grid) for path in self.files[scene_id]]
        covered, resampled, note = first.covered, first.resampled, first.note
        for part in others:
            first.classes[part.covered] = part.classes[part.covered]
            if first.probability is not None and part.probability is not None:
                first.probability[part.covered] = part.probability[part.covered]
            if first.instances is not None and part.instances is not None:
                above = part.instances + first.instances.max() * (part.instances > 0)
                first.instances[part.covered] = above[part.covered]
            covered = covered | part.covered
            resampled, note = resampled or part.resampled, note or part.note
        return replace(first, covered=covered, resampled=resampled, note=note)

    def _read(self, path: Path, grid: GeoGrid) -> SceneMask:
        source = open_mask(path, sharp=self.threshold is None)
        if is_coloured := _is_coloured(source, self.rule):
            source = open_mask(path, colours=True, sharp=False)
        resampled = not _lies_on(source, grid)
        if resampled:
            _check_near(source, grid)
            raster = warped(source, grid, nearest=self.threshold is None)
        else:
            raster = source.read()
        if self.threshold is not None:
            read = self._probable(raster, source.name, self.threshold)
        elif is_coloured or len(self.rule.classes) > 2:
            rule = self.rule
            if not is_coloured:
                unknown = (NODATA,) if len(rule.classes) <= NODATA else ()
                rule = LabelRule(rule.classes, None, unknown)
            classes, known = rule.decode(raster.data, source.name, raster.valid)
            read = SceneMask(classes, raster.valid if known is None else known)
        else:
            read = self._buildings_of(raster, path)
        return replace(read, resampled=resampled)

    def _buildings_of(self, raster: Raster, path: Path) -> SceneMask:
        data = _one_band(raster, str(path))
        buildings, note = _buildings(self.all_values), ""
        if self.instances:
            values = self.values[path]
            numbers = np.where(raster.valid & (data > 0), np.searchsorted(values, data) + 1, 0)
            drawn = (numbers > 0) * np.uint8(self.building_class)
            note = "each value of the masks is read as one building."
            return SceneMask(drawn, raster.valid, None, numbers.astype(np.int32), note=note)
        if self.all_values == (NODATA,):
            note = (
                "masks hold only 0 and 255, and 255 is taken for building. If it marks unknown "
                "pixels, declare it as nodata."
            )
        if len(buildings) > 1:
            others = " and the masks beside it" if len(self.values) > 1 else ""
            raise LabelError(
                f"The values besides 0 of {path}{others} are {list_first(buildings, 6)}; masks of "
                "buildings have one such value, and perhaps 255 for unknown pixels.",
                remedy="If they are probabilities, "
                f"{'add --threshold 0.5' if data.dtype == np.uint8 else 'give them as fractions'}. "
                "Otherwise give polygons of the buildings: "
                f"rooftrace vectorize {shlex.quote(str(path))} "
                f"--class {buildings[-1]} --outline pixel -o OUT.gpkg; or --instances in place of "
                "--class, if each value is one building.",
            )
        covered = raster.valid if NODATA in buildings else raster.valid & (data != NODATA)
        drawn = np.isin(data, buildings) & covered
        return SceneMask(drawn * np.uint8(self.building_class), covered, note=note)

    def _probable(self, raster: Raster, name: str, threshold: float) -> SceneMask:
        data = _one_band(raster, name)
        values = data[raster.valid]
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        is_byte = data.dtype == np.uint8
        if not is_byte and (data.dtype.kind != "f" or low < 0 or high > 1):
            raise LabelError(
                f"{name} holds {data.dtype} values from {low:g} to {high:g}; probabilities are "
                "fractions from 0 to 1, or bytes from 0 to 255.",
                remedy="Apply the sigmoid to logits, divide by the largest value, or give a "
                "mask of whole numbers.",
            )
        clean = np.where(raster.valid, data, 0)
        share = clean if is_byte else np.rint(clean * 255).astype(np.uint8)
        is_building = (clean >= threshold * 255 if is_byte else clean >= threshold) & raster.valid
        return SceneMask(is_building * np.uint8(self.building_class), raster.valid, share)


def match_rasters_by_location(
    grids: Mapping[str, GeoGrid], rasters: Sequence[Path], what: str
) -> tuple[dict[str, tuple[Path, ...]], tuple[Path, ...]]:
    """Match rasters to scenes by place, from their headers; return those without a scene, too.

    Args:
        grids: Grids of the scenes, by id; all with a CRS.
        what: Name of the predictions, for errors.
    """
    boxes = []
    for path in rasters:
        grid = open_mask(path, sharp=False).grid
        bounds = None if grid.crs is None else outline_bounds(grid, CRS84)
        if bounds is None:
            raise GeoreferenceError(
                f"{path} has the name of no labelled scene ({list_first(list(grids))}), and no "
                "georeference.",
                remedy="Name predictions as their scenes.",
            )
        boxes.append(shapely.box(*bounds))
    tree = shapely.STRtree(boxes)
    files: dict[str, tuple[Path, ...]] = {}
    for scene_id, grid in grids.items():
        near = np.unique(tree.query(outline_boxes(grid, CRS84), "intersects")[1])
        files[scene_id] = tuple(rasters[index] for index in near)
    empty = [scene_id for scene_id, paths in files.items() if not paths]
    if empty:
        raise GeoreferenceError(
            f"{what} does not cover {len(empty):,} of {len(grids):,} labelled scenes: "
            f"{list_first(empty)}; nor does it have their names.",
            remedy="Give predictions of these scenes, or choose scenes with --part or --split.",
        )
    used = {path for paths in files.values() for path in paths}
    return files, tuple(path for path in rasters if path not in used)


def _lies_on(source: RasterSource, grid: GeoGrid) -> bool:
    """Return True if a raster has a scene's own pixels; False if it covers the same ground
    otherwise.
    """
    source_grid = source.grid
    if source_grid.crs is not None and grid.crs is not None:
        return source_grid.shape == grid.shape and pixels_apart(source_grid, grid) < _SAME_PX
    if source_grid.shape == grid.shape:
        return True
    raise LayoutError(
        f"{source.name} has {size_text(source_grid.shape)}, but its scene has "
        f"{size_text(grid.shape)}, and {'it' if source_grid.crs is None else 'the scene'} has no "
        "georeference to align them.",
        remedy="Give the prediction at the size of its scene.",
    )


def _check_near(source: RasterSource, grid: GeoGrid) -> None:
    """Raise an error for a raster that has the name of a scene and shows other ground."""
    bounds, scene_bounds = outline_bounds(source.grid, CRS84), outline_bounds(grid, CRS84)
    if bounds is None or scene_bounds is None or not bounds_meet(bounds, scene_bounds, CRS84):
        places = [
            "nowhere" if one is None else degrees_text(one, CRS84) for one in (bounds, scene_bounds)
        ]
        raise GeoreferenceError(
            f"{source.name} lies at {places[0]}, but its scene at {places[1]}.",
            remedy="Correct its georeference, or name it as the scene that it shows.",
        )


def _one_band(raster: Raster, name: str) -> NDArray[Any]:
    """Return the (y, x) values of a raster with one band, or with equal bands."""
    if raster.is_coloured:
        raise LabelError(
            f"{name} is coloured: {len(raster.data)} bands that differ. A prediction has one band, "
            "or equal bands.",
            remedy="If its colours are classes, give them with --set labels.palette.NAME=#RRGGBB; "
            "of probabilities by class, write that of the building alone.",
        )
    return np.asarray(raster.data[0])


def _is_coloured(source: RasterSource, rule: LabelRule) -> bool:
    """Return True if a palette is known, and the file has bands or a palette of its own."""
    if rule.palette is None:
        return False
    return source.bands > 1 or open_mask(Path(source.name), colours=True, sharp=False).bands == 3


def _values_of(source: RasterSource) -> tuple[int, ...]:
    """Return the whole numbers besides 0 in a file, ascending."""
    values: set[int] = set()
    for window in Window.whole(source.grid.shape).strips(_ROWS):
        raster = source.read(window)
        values.update(np.unique(_one_band(raster, source.name)[raster.valid]).tolist())
    return tuple(sorted(values - {0}))


def _are_instances(values: Mapping[Path, tuple[int, ...]]) -> bool:
    """Return whether nearly every value of the fullest files is one piece, as of no class."""
    fullest = sorted(values, key=lambda path: -len(values[path]))[:_SAMPLES]
    if not fullest or len(values[fullest[0]]) < _LEAST_INSTANCES:
        return False
    left = int(_MOST_PIECES * sum(len(values[path]) for path in fullest))
    for path in fullest:
        data = open_mask(path).read().data[0]
        if np.count_nonzero(data) < _LEAST_PX * len(values[path]):
            return False
        for piece in _each_value(data):
            left -= cv2.connectedComponents(piece, connectivity=8)[0] - 1
            # Shades have a piece for nearly every pixel.
            if left < 0:
                return False
    return True


def _each_value(data: NDArray[Any]) -> Iterator[Bytes]:
    """Yield the pixels of each value above 0, inside of their bounds, as a mask of 1."""
    at = np.flatnonzero(data > 0)
    at = at[np.argsort(data.flat[at], kind="stable")]
    for own in np.split(at, np.flatnonzero(np.diff(data.flat[at])) + 1):
        row, col = np.divmod(own, data.shape[1])
        piece = np.zeros((np.ptp(row) + 1, np.ptp(col) + 1), np.uint8)
        piece[row - row.min(), col - col.min()] = 1
        yield piece


def _buildings(values: tuple[int, ...]) -> list[int]:
    """Return the values of one file that are buildings: 255 is unknown beside other values."""
    return [value for value in values if value != NODATA or len(values) == 1]


_SLIVER_PX2 = 0.01
"""Area in square pixels up to which parts are dropped; repairs of self-crossing rings
leave them."""


@dataclass(frozen=True)
class PolygonPredictions:
    """Files of polygons by scene.

    Args:
        classes: Names by index, the background first.
        building_class: Class index of polygons without a class.
        layer: Layer of files with several; `*` joins them.
    """

    files: Mapping[str, tuple[Path, ...]]
    classes: tuple[str, ...]
    building_class: int
    layer: str | None = None

    def on(
        self, scene_id: str, grid: GeoGrid, valid: BoolArray
    ) -> tuple[ScenePrediction, tuple[str, ...]]:
        """Return what the polygons predict for a scene with (y, x) `valid` pixels, and notes.

        A later polygon covers an earlier one.

        Raises:
            GeoreferenceError: Only one of the file and the scene has a georeference.
            LabelError: A class is not one of the labels'.
        """
        frame = shapely.box(0, 0, grid.width, grid.height)
        outlines, index, scores = [], [], []
        notes: list[str] = []
        for path in self.files[scene_id]:
            layer, score = self._load(path, grid)
            if grid.crs is None:
                geometry, chosen = layer.geometry, np.arange(len(layer))
            else:
                geometry, chosen = layer.on(grid)
            parts, owner = clip_outlines(geometry, chosen, frame)
            solid = shapely.area(parts) > _SLIVER_PX2
            owner = owner[solid]
            outlines.append(parts[solid])
            index.append(layer.classes[owner])
            scores.append(None if score is None else score[owner])
            notes += layer.notes
        drawn, classes = np.concatenate(outlines), np.concatenate(index)
        stated = [one for one in scores if one is not None]
        is_building = classes == self.building_class
        mask = Mask(ShapesLabel(drawn, classes.tolist(), grid).read().data, valid, grid)
        score = np.concatenate(stated)[is_building] if len(stated) == len(scores) else None
        return ScenePrediction(mask, drawn[is_building], score), tuple(notes)

    def check_places(self, grids: Iterable[tuple[str, GeoGrid]], what: str) -> None:
        """Check that polygons lie in the scenes; files are read until one does."""
        polygons, is_placed = 0, False
        for scene_id, grid in grids:
            is_placed = grid.crs is not None
            frame = shapely.box(0.5, 0.5, grid.width - 0.5, grid.height - 0.5)
            for path in self.files[scene_id]:
                layer, _ = self._load(path, grid)
                if (
                    len(layer.near(grid))
                    if is_placed
                    else shapely.intersects(layer.geometry, frame).any()
                ):
                    return
                polygons += len(layer)
        in_pixels = (
            "Give them in pixels of the scenes, x right and y down from the upper left corner. "
            "QGIS writes y below 0 there: change its sign."
        )
        on_ground = "Check the CRS of the file, and that the polygons belong to these scenes."
        if polygons:
            raise GeoreferenceError(
                f"None of the polygons of {what} touches a labelled scene.",
                remedy=f"{on_ground if is_placed else in_pixels} An empty file stands for "
                "predictions without a building.",
            )

    def _load(self, path: Path, grid: GeoGrid) -> _Scored:
        """Return the polygons of a file, on the ground or in pixels, and their scores."""
        stamp, on_ground = path.stat().st_mtime_ns, grid.crs is not None
        return _load(path, self.layer, stamp, on_ground, self.classes, self.building_class)


_Scored = tuple[ShapeLayer, NDArray[np.float32] | None]
"""Polygons of a file, and the (n,) score of each in 0..1, or None."""


# Files of single scenes are read once each; a file that all scenes share stays in the cache.
@lru_cache(maxsize=4)
def _load(
    path: Path, layer_name: str | None, stamp: int, on_ground: bool, classes: tuple[str, ...],
    building_class: int,
) -> _Scored:  # fmt: skip
    file = VectorFile(path, layer_name)
    by_name = {name.casefold(): name for name in file.fields}
    score_field = next((by_name[name] for name in SCORE_FIELDS if name in by_name), None)
    class_field = by_name.get("class")
    fields = [name for name in (score_field, class_field) if name is not None]
    # Of several classes, the names are those of the labels.
    buildings = len(classes) == 2
    if on_ground:
        layer = file.read(fields, buildings=buildings)
        geometry, crs, values, counts = layer.geometry, layer.crs, layer.values, layer.counts
    else:
        geometry, file_crs, columns, counts = file.columns(fields, buildings=buildings)
        values = columns
        crs = CRS84
        if file_crs is not None and not file_crs.is_geographic:
            raise GeoreferenceError(
                f"{path} is in {crs_text(file_crs)}, but the labelled scenes have no georeference.",
                remedy="Give polygons in pixels of the scenes (GeoJSON, x right and y down), or "
                "scenes with a georeference.",
            )
    score, notes = None, [*file.notes(counts)]
    # Polygons of a mask have the attribute, but no values.
    if score_field is not None and any(values[score_field].tolist()):
        score = _scores(values[score_field])
        if score is None:
            notes.append(
                f"{path}: {score_field} is not read as a score: expected numbers from 0 to 1, or "
                "per cent."
            )
        elif score.max() > 1:
            score = score / np.float32(100)
            notes.append(f"{path}: {score_field} is read as per cent.")
    index: NDArray[np.int16] = np.full(len(geometry), building_class, np.int16)
    if class_field is not None:
        index = _indices(values[class_field], classes, building_class, f"{path}: {class_field}")
    nobody = np.full(len(geometry), "", np.object_)
    return ShapeLayer(geometry, crs, index, nobody, tuple(notes)), score


def _scores(texts: NDArray[np.object_]) -> NDArray[np.float32] | None:
    """Return scores from 0 to 1, or in per cent, as ArcGIS writes them; None for other values."""
    try:
        values = np.array([float(text) for text in texts.tolist()], np.float32)
    except ValueError:
        return None
    if not ((values >= 0) & (values <= 100)).all():
        return None
    # Up to 10 they may also be ranks.
    return values if values.max() <= 1 or values.max() > 10 else None


def _indices(
    names: NDArray[np.object_], classes: tuple[str, ...], building_class: int, what: str
) -> NDArray[np.int16]:
    """Return the (n,) class of each polygon; the background for an unknown class.

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
