"""Predictions of other tools, read from files and matched to the labelled scenes.

The files are rasters and polygons (see `layers`), tables of run lengths, and COCO results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, LabelError
from rooftrace.core.machine import installed_versions
from rooftrace.core.text import plural, reason_of
from rooftrace.core.types import GeoGrid, Mask, RasterSource, Scene, Window
from rooftrace.flows.evaluate.external.files import PredictionFiles, listed, match_scene_names
from rooftrace.flows.evaluate.external.labels_without_images import has_imagery
from rooftrace.flows.evaluate.external.layers import (
    PolygonPredictions,
    RasterPredictions,
    SceneMask,
    match_rasters_by_location,
)
from rooftrace.flows.evaluate.predictions import ScenePrediction
from rooftrace.io.legend import Legend
from rooftrace.io.raster import open_raster
from rooftrace.io.sources import BlankSource
from rooftrace.labels.coco_label import CocoAnnotation, CocoLabel
from rooftrace.labels.config import LabelConfig
from rooftrace.labels.ground_truth import building_instances, traced_outlines
from rooftrace.labels.rle.codec import Order, is_empty
from rooftrace.labels.rle.order import MOST_SCENES, deduce_order, scenes_with_runs
from rooftrace.labels.rle.source import Cells, RunsLabel
from rooftrace.labels.rle.table import RleTable
from rooftrace.labels.source import SceneSet

_ROWS = 1024
_LISTED = 5
_RECORDED = ("rooftrace", "numpy", "rasterio", "shapely")


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading predictions.

    Args:
        threshold: Threshold on probabilities and on the scores of COCO results; None where not
            given.
        order: Order of run lengths; None to deduce it.
        is_selection: True if the scenes are a selection, so that there may be predictions of other
            scenes.
        with_objects: True to read single buildings; False to read only their pixels.
    """

    threshold: float | None = None
    order: Order | None = None
    is_selection: bool = False
    with_objects: bool = True


@dataclass
class _NoteCollector:
    """Observations on scenes, collected for the notes."""

    resampled: dict[str, None] = field(default_factory=dict)
    uncovered: dict[str, float] = field(default_factory=dict)
    of_files: dict[str, None] = field(default_factory=dict)

    def notes(self, name: str) -> list[str]:
        notes = list(self.of_files)[:_LISTED]
        if len(self.of_files) > _LISTED:
            notes.append(f"{name}: … and {len(self.of_files) - _LISTED} more notes on its files.")
        if self.resampled:
            scenes = listed(list(self.resampled))
            notes.append(
                f"{name}: {plural(len(self.resampled), 'scene')} predicted on another grid, where "
                f"each pixel takes the nearest value (probabilities: the mean): {scenes}."
            )
        if self.uncovered:
            worst = max(self.uncovered, key=self.uncovered.__getitem__)
            share = self.uncovered[worst]
            notes.append(
                f"{name}: {plural(len(self.uncovered), 'scene')} only partly predicted (most is "
                f"missing in {worst}: {share:.1%}); missing pixels count as background."
            )
        return notes


@dataclass(frozen=True)
class ExternalPredictions:
    """Predictions of one tool for all scenes.

    Pixels that the image does not know are left out. Pixels without a prediction count as
    background, so that no tool gains by leaving out difficult places.

    Args:
        name: Name in reports.
        found: The files.
        labels: Classes and palette.
        reading: Options for reading the files.
        masks, polygons, table, results: Opened files of each kind; None where there are none.
        assumed: Assumptions made before the first scene was read.
    """

    name: str
    found: PredictionFiles
    labels: LabelConfig
    reading: ReadOptions
    masks: RasterPredictions | None = None
    polygons: PolygonPredictions | None = None
    table: RunTablePredictions | None = None
    results: CocoPredictions | None = None
    assumed: tuple[str, ...] = ()
    _collected: _NoteCollector = field(default_factory=_NoteCollector, repr=False, compare=False)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.labels.classes

    @property
    def building_class(self) -> int:
        return self.labels.building_class

    @cached_property
    def legend(self) -> Legend:
        return Legend(self.labels.classes, self.labels.class_colours())

    @property
    def threshold(self) -> float | None:
        if self.results is not None:
            return self.reading.threshold
        return None if self.masks is None else self.masks.threshold

    @property
    def threshold_from(self) -> str:
        if self.threshold is None:
            return "none: what the files show is taken"
        if self.reading.threshold is None:
            return "none was given: half"
        return "given on the command line"

    @property
    def context(self) -> dict[str, Any]:
        return {
            "predictions": {"path": str(self.found.path), "kind": self.found.kind},
            "threshold": self.threshold,
            "threshold_from": self.threshold_from,
            "versions": installed_versions(_RECORDED),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.assumed, *self._collected.notes(self.name))

    def predict(self, scene: Scene) -> ScenePrediction:
        """Return the predictions for a scene.

        Raises:
            DataError and its kinds: A file cannot be read, or does not fit the scene.
        """
        grid = scene.image.grid
        valid = _valid(scene.image)
        if self.results is not None:
            said = self.results.on(scene.id, grid)
            outlines = traced_outlines(said.numbers) if self.reading.with_objects else _none()
            mask = Mask(said.classes, valid, grid)
            return ScenePrediction(mask, outlines, said.score, instances=said.numbers)
        painted = None if self.masks is None else self._painted(self.masks, scene, valid)
        drawn = None if self.polygons is None else self.polygons.on(scene.id, grid)
        if painted is not None:
            classes = painted.classes
        elif drawn is not None:
            classes = drawn.classes
        else:
            assert self.table is not None
            classes = self.table.on(scene.id, grid)
        mask = Mask(classes, valid, grid)
        probability = None if painted is None else painted.probability
        if drawn is not None:
            self._collected.of_files.update(dict.fromkeys(drawn.notes))
            return ScenePrediction(mask, drawn.outlines, drawn.score, probability)
        if not self.reading.with_objects:
            return ScenePrediction(mask, _none(), None, probability)
        numbers = building_instances(classes == self.building_class, None)
        return ScenePrediction(mask, traced_outlines(numbers), None, probability, numbers)

    def _painted(
        self, masks: RasterPredictions, scene: Scene, valid: NDArray[np.bool_]
    ) -> SceneMask:
        painted = masks.on(scene.id, scene.image.grid)
        missing = np.count_nonzero(valid & ~painted.covered)
        if missing:
            self._collected.uncovered[scene.id] = missing / np.count_nonzero(valid)
        if painted.note:
            self._collected.of_files[painted.note] = None
        if painted.resampled:
            self._collected.resampled[scene.id] = None
        return painted


def open_predictions(
    found: Sequence[PredictionFiles],
    source: SceneSet,
    labels: LabelConfig,
    data: Path,
    reading: ReadOptions,
) -> list[ExternalPredictions]:
    """Open files of predictions and match each to all scenes.

    Args:
        found: Files of each tool.
        source: The labelled scenes.
        labels: Meaning of labels, and of masks in colours.
        data: Location of the labels.
        reading: Options for reading the files.

    Raises:
        ConfigError: An order was given, but nothing has run lengths.
        DataError and its kinds: Files cannot be read, or do not fit the scenes.
    """
    if reading.order is not None and all(one.table is None for one in found):
        raise ConfigError(
            "--order was given, but no prediction is a table of run lengths.",
            remedy="Leave it out.",
        )
    if labels.classes != source.classes:
        # A card of the data has classes of its own.
        building = source.classes[source.building_class]
        labels = LabelConfig(classes=source.classes, building=building)
    grids = _Grids(source)
    names = _names(found)
    return [
        _opened(one, name, source, labels, data, reading, grids) for one, name in zip(found, names)
    ]


class _Grids:
    """Grids of the scenes, read on first use."""

    def __init__(self, source: SceneSet) -> None:
        self._source = source

    @cached_property
    def all(self) -> dict[str, GeoGrid]:
        return {scene.id: scene.image.grid for scene in self._source}

    @cached_property
    def are_georeferenced(self) -> bool:
        """True if the first scene is georeferenced; the others, possibly many, are not read."""
        first = next(iter(self._source), None)
        return first is not None and first.image.grid.crs is not None


def _opened(
    found: PredictionFiles,
    name: str,
    source: SceneSet,
    labels: LabelConfig,
    data: Path,
    reading: ReadOptions,
    grids: _Grids,
) -> ExternalPredictions:
    made = _read(ExternalPredictions(name, found, labels, reading), source, data, grids)
    if reading.threshold is None or made.threshold is not None:
        return made
    note = f"{name}: {found.kind}, for which --threshold {reading.threshold:g} has no effect."
    return replace(made, assumed=(*made.assumed, note))


def _read(
    made: ExternalPredictions, source: SceneSet, data: Path, grids: _Grids
) -> ExternalPredictions:
    """Match the files to the scenes."""
    name, found, labels, reading = made.name, made.found, made.labels, made.reading
    if found.table is not None:
        table = RunTablePredictions.of(
            found.table, source, reading.order, chosen=reading.is_selection
        )
        return replace(made, table=table, assumed=(table.note,) if table.note else ())
    if found.results is not None:
        least = 0.0 if reading.threshold is None else reading.threshold
        return replace(made, results=CocoPredictions.of(found.results, source, data, least))
    notes: list[str] = []
    if found.rasters:
        files, note = _files_of(found, found.rasters, source, grids, reading, shared=False)
        masks = RasterPredictions.of(
            files, source.classes, labels.rule(), source.building_class, reading.threshold
        )
        notes += note
        if masks.threshold is not None and reading.threshold is None:
            notes.append(f"{name}: probabilities; buildings are where they reach 0.5.")
        made = replace(made, masks=masks)
    if found.vectors:
        files, note = _files_of(found, found.vectors, source, grids, reading, shared=True)
        polygons = PolygonPredictions(
            files, source.classes, source.building_class, grids.are_georeferenced
        )
        if grids.are_georeferenced:
            polygons.check_reach(grids.all, str(found.path))
            # Images may show a part of what was predicted; labels without images are all there is.
            outside, every = (0, 0) if has_imagery(source) else polygons.count_outside(grids.all)
            if outside:
                notes.append(
                    f"{name}: {outside:,} of {every:,} polygons lie outside of the labels' bounds "
                    "and are left out."
                )
        notes += note
        made = replace(made, polygons=polygons)
    return replace(made, assumed=tuple(dict.fromkeys(notes)))


def _files_of(
    found: PredictionFiles,
    files: tuple[Path, ...],
    source: SceneSet,
    grids: _Grids,
    reading: ReadOptions,
    *,
    shared: bool,
) -> tuple[Mapping[str, tuple[Path, ...]], list[str]]:
    """Return the files of each scene, by name or by place, and notes on the matching.

    Args:
        found: All files of the tool.
        files: The files to match.
        source: The labelled scenes.
        grids: Grids of the scenes.
        reading: Options for reading the files.
        shared: True if every file may hold predictions of every scene.
    """
    what, names = str(found.path), found.names(files)
    matched = match_scene_names(source.ids, names, what)
    if not matched.number and len(source):
        if _is_alone(files, source, grids, shared=shared):
            return {source.ids[0]: files}, [f"{files[0]} is taken for {source.ids[0]}."]
        if grids.are_georeferenced and shared:
            return dict.fromkeys(source.ids, files), []
        if grids.are_georeferenced:
            return _by_location(files, grids, what)
    matched.check(what, len(files), chosen=reading.is_selection)
    pairs = {scene_id: (files[at],) for scene_id, at in matched.number.items()}
    changed = [(one, names[at]) for one, at in matched.number.items() if names[at] != one]
    if not changed:
        return pairs, []
    scene_id, name = changed[0]
    kind = "polygons" if shared else "rasters"
    scenes = plural(len(pairs), "scene")
    return pairs, [f"{what}: {kind} were matched to {scenes} by name ({name} is {scene_id})."]


def _is_alone(files: tuple[Path, ...], source: SceneSet, grids: _Grids, *, shared: bool) -> bool:
    """Return True if there are one file and one scene, and no georeference to compare."""
    if len(files) != 1 or len(source) != 1:
        return False
    return shared or not grids.are_georeferenced or open_raster(files[0]).grid.crs is None


def _by_location(
    files: tuple[Path, ...], grids: _Grids, what: str
) -> tuple[Mapping[str, tuple[Path, ...]], list[str]]:
    pairs, unused = match_rasters_by_location(grids.all, files, what)
    matched = plural(len(files), "raster was", "rasters were")
    notes = [f"{what}: {matched} matched to scenes by the ground they show."]
    if unused:
        names = listed([path.name for path in unused])
        outside = plural(len(unused), "raster touches", "rasters touch")
        notes.append(f"{what}: {outside} no labelled scene: {names}.")
    return pairs, notes


def _names(found: Sequence[PredictionFiles]) -> list[str]:
    """Return short and unique names."""
    short = [one.path.resolve().name for one in found]
    return [
        name if short.count(name) == 1 else str(one.path) if _counted(found, one) == 1
        else f"{one.path} ({number})"
        for number, (name, one) in enumerate(zip(short, found), start=1)
    ]  # fmt: skip


def _counted(found: Sequence[PredictionFiles], one: PredictionFiles) -> int:
    return sum(other.path == one.path for other in found)


def _valid(image: RasterSource) -> NDArray[np.bool_]:
    """Return the (y, x) valid pixels of an image, read a few rows at a time."""
    valid = np.ones(image.grid.shape, np.bool_)
    if isinstance(image, BlankSource):
        return valid
    for window in Window.whole(image.grid.shape).strips(_ROWS):
        valid[window.slices()] = image.read(window).valid
    return valid


def _none() -> NDArray[np.object_]:
    return np.zeros(0, np.object_)


_REMEDY_ORDER = "Give the order with --order row or --order column."
_REMEDY = "Write a list of {image_id, category_id, segmentation, score} in the COCO results format."


@dataclass(frozen=True)
class RunTablePredictions:
    """Masks of a table, decoded one at a time.

    Args:
        cells: Run lengths of each scene, by its id; several rows are joined.
        order: Order of the runs.
        building_class: Class index of the pixels in a run.
        note: Way in which the order was deduced; "" if it was given.
    """

    cells: Mapping[str, Cells]
    order: Order
    building_class: int
    note: str

    @classmethod
    def of(
        cls, path: Path, source: SceneSet, order: Order | None, *, chosen: bool
    ) -> RunTablePredictions:
        """Read a table and match its rows to the scenes.

        Args:
            path: The table.
            source: The labelled scenes.
            order: Order of the runs; None to deduce it.
            chosen: See `NameMatches.check`.

        Raises:
            LabelError: The file is no such table, or the order cannot be deduced.
            LayoutError: Rows and scenes do not fit.
        """
        table = RleTable.read(path)
        rows = table.cells()
        names = list(rows)
        matched = match_scene_names(source.ids, names, str(path))
        matched.check(str(path), len(names), chosen=chosen)
        cells = {scene_id: rows[names[number]] for scene_id, number in matched.number.items()}
        note = ""
        if order is None:
            order, note = _order_of(table, cells, source)
        return cls(cells, order, source.building_class, note)

    def on(self, scene_id: str, grid: GeoGrid) -> NDArray[np.uint8]:
        """Return the (y, x) classes of a scene.

        Raises:
            LabelError: The runs do not fit the scene; names their row.
        """
        label = RunsLabel(self.cells[scene_id], self.order, self.building_class, grid)
        return label.read().data


def _order_of(table: RleTable, cells: Mapping[str, Cells], source: SceneSet) -> tuple[Order, str]:
    drawn = [name for name, each in cells.items() if not all(is_empty(text) for _, text in each)]
    if not drawn:
        return table.columns.custom or "row", ""
    spread = {drawn[index * len(drawn) // MOST_SCENES] for index in range(MOST_SCENES)}
    some = source.subset(list(spread))
    scenes = scenes_with_runs(some.entries, some.open_scene, lambda entry: cells[entry.id])
    return deduce_order(table, list(scenes), _REMEDY_ORDER)


@dataclass(frozen=True)
class SceneDetections:
    """Detections of a scene in COCO results.

    Args:
        classes: (y, x) uint8 class indices.
        numbers: (y, x) int32 number of the detection at each pixel, from 1; a later one covers an
            earlier one.
        score: (n,) float32 score of each detection.
    """

    classes: NDArray[np.uint8]
    numbers: NDArray[np.int32]
    score: NDArray[np.float32]


@dataclass(frozen=True)
class CocoPredictions:
    """Detections by scene (https://cocodataset.org/#format-results).

    Args:
        path: The file.
        found: Detections of each scene, by its id; the highest score comes last, so that it is on
            top where two overlap.
        building_class: Class index of all detections.
    """

    path: Path
    found: Mapping[str, tuple[tuple[CocoAnnotation, float], ...]]
    building_class: int

    @classmethod
    def of(cls, path: Path, source: SceneSet, labels: Path, least: float) -> CocoPredictions:
        """Read results and match them to the scenes.

        A scene without a detection has no building, because the format has no other way to express
        that.

        Args:
            path: The file.
            source: The labelled scenes.
            labels: Path of the labels; a COCO file there gives the names of numbered images, and
                the category of buildings.
            least: Minimum score of a detection.

        Raises:
            LabelError: The file is no list of results, or none belongs to a labelled image; names
                the record.
        """
        records = _load(path)
        names, building = _known(labels, source)
        by_name: dict[str, list[tuple[CocoAnnotation, float]]] = {}
        for number, record in enumerate(records):
            where = f"{path}: [{number}]"
            drawn, score, image = _detection(record, where, source.building_class)
            if building is not None and repr(record.get("category_id")) not in building:
                continue
            if score >= least:
                by_name.setdefault(names.get(image, str(image)), []).append((drawn, score))
        matched = match_scene_names(source.ids, list(by_name), str(path))
        if by_name and not matched.number:
            raise LabelError(
                f"{path}: none of its images ({', '.join(list(by_name)[:3])}, …) is a labelled "
                f"scene ({', '.join(source.ids[:3])}, …).",
                remedy="Name images as the scenes, or give as --truth the COCO file that has these "
                "image ids.",
            )
        each = list(by_name.values())
        found = {
            scene_id: tuple(sorted(each[number], key=lambda one: one[1]))
            for scene_id, number in matched.number.items()
        }
        return cls(path, found, source.building_class)

    def on(self, scene_id: str, grid: GeoGrid) -> SceneDetections:
        """Return the detections of a scene on its grid.

        Raises:
            LabelError: A segmentation does not fit the scene.
            MissingExtraError: pycocotools is not installed.
        """
        found = self.found.get(scene_id, ())
        drawn = tuple(one for one, _ in found)
        label = CocoLabel(drawn, grid.shape, grid, str(self.path), scene_id)
        return SceneDetections(
            label.read().data, label.read_instances(), np.array([s for _, s in found], np.float32)
        )


def _load(path: Path) -> list[Any]:
    try:
        records = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LabelError(f"{path} is not JSON: {reason_of(error)}.", remedy=_REMEDY) from error
    if not isinstance(records, list):
        raise LabelError(f"{path} is not a list of COCO results.", remedy=_REMEDY)
    return records


def _detection(
    record: object, where: str, building_class: int
) -> tuple[CocoAnnotation, float, int | str]:
    if not isinstance(record, dict):
        raise LabelError(f"{where} is {record!r:.40}; expected an object.", remedy=_REMEDY)
    image, score = record.get("image_id"), record.get("score")
    if not isinstance(image, (int, str)) or isinstance(image, bool):
        raise LabelError(f"{where} needs image_id; it has {image!r:.40}.", remedy=_REMEDY)
    if not isinstance(score, (int, float)) or isinstance(score, bool) or not 0 <= score <= 1:
        raise LabelError(f"{where} needs score, from 0 to 1; it has {score!r:.40}.", remedy=_REMEDY)
    given = record.get("segmentation")
    if isinstance(given, list) and given:
        given = [one for one in given if not (isinstance(one, list) and len(one) < 6)]
    elif not isinstance(given, dict) or not isinstance(given.get("counts"), (str, list)):
        raise LabelError(
            f"{where} has the segmentation {given!r:.40}; expected polygons or run lengths.",
            remedy="Give outlines or masks instead of boxes.",
        )
    return CocoAnnotation(where, building_class, given), float(score), image


def _known(labels: Path, source: SceneSet) -> tuple[dict[int | str, str], set[str] | None]:
    """Return image names by id and the ids of the building categories, from labels in a COCO file.

    The ids are None where all categories are buildings.
    """
    if source.kind != "coco" or not labels.is_file():
        return {}, None
    raw = json.loads(labels.read_bytes())
    names = {one["id"]: str(one.get("scene_id") or one["file_name"]) for one in raw["images"]}
    wanted = source.classes[source.building_class].casefold()
    categories: Sequence[dict[str, Any]] = raw.get("categories", [])
    building = {repr(one["id"]) for one in categories if str(one.get("name")).casefold() == wanted}
    return names, building or None
