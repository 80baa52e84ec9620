"""Predictions of other tools, read from files and matched to the labelled scenes.

The files are rasters and polygons (see `layers`), tables of run lengths, and COCO results.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, LabelError
from rooftrace.core.machine import installed_versions
from rooftrace.core.text import plural, reason_of
from rooftrace.core.types import (
    GeoGrid,
    InstanceReader,
    LabelReader,
    Mask,
    RasterSource,
    Scene,
    Window,
)
from rooftrace.flows.evaluate.layers import (
    PolygonPredictions,
    RasterPredictions,
    SceneMask,
    match_rasters_by_location,
)
from rooftrace.flows.evaluate.prediction_names import PredictionFiles, listed, match_scene_names
from rooftrace.flows.evaluate.predictions import Predictions, ScenePrediction
from rooftrace.flows.evaluate.truth import has_imagery, order_of_runs
from rooftrace.io.legend import Legend
from rooftrace.io.raster import open_raster
from rooftrace.io.sources import BlankSource
from rooftrace.labels.coco_label import CocoAnnotation, CocoLabel
from rooftrace.labels.config import LabelConfig
from rooftrace.labels.ground_truth import building_instances, traced_outlines
from rooftrace.labels.rle.codec import Order
from rooftrace.labels.rle.source import RunsLabel
from rooftrace.labels.rle.table import RleTable
from rooftrace.labels.source import SceneSet

_ROWS = 1024
_LISTED = 5
_RECORDED = ("rooftrace", "numpy", "rasterio", "shapely")


LabelsOf = Callable[[str, GeoGrid], LabelReader]
"""Function that returns what is drawn in a scene, by its id, on its grid."""


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
class _FilePredictions:
    """Predictions of one tool for all scenes.

    Pixels that the image does not know are left out. Pixels without a prediction count as
    background, so that no tool gains by leaving out difficult places.

    Args:
        building_class: Class index of buildings.
        with_objects: True to read single buildings; False to read only their pixels.
        masks, polygons: Opened rasters and vector files; None where there are none.
        label_of: Function that returns the buildings of a scene from a table or COCO results.
        scores: Scores of the buildings in COCO results by scene.
        collected: Observations on the scenes so far.
    """

    building_class: int
    with_objects: bool
    masks: RasterPredictions | None
    polygons: PolygonPredictions | None
    label_of: LabelsOf | None
    scores: Mapping[str, NDArray[np.float32]]
    collected: _NoteCollector

    def predict(self, scene: Scene) -> ScenePrediction:
        """Return the predictions for a scene.

        Raises:
            DataError and its kinds: A file cannot be read, or does not fit the scene.
        """
        grid = scene.image.grid
        valid = _valid(scene.image)
        classes = probability = score = numbers = None
        if self.label_of is not None:
            label = self.label_of(scene.id, grid)
            classes = label.read(Window.whole(grid.shape)).data
            if isinstance(label, InstanceReader):
                numbers = label.read_instances()
                score = self.scores.get(scene.id, np.zeros(0, np.float32))
        if self.masks is not None:
            mask = self.masks.on(scene.id, grid)
            self._observe(scene.id, mask, valid)
            classes, probability = mask.classes, mask.probability
        if self.polygons is not None:
            drawn = self.polygons.on(scene.id, grid)
            self.collected.of_files.update(dict.fromkeys(drawn.notes))
            seen = Mask(drawn.classes if classes is None else classes, valid, grid)
            return ScenePrediction(seen, drawn.outlines, drawn.score, probability)
        assert classes is not None
        outlines = np.zeros(0, np.object_)
        if self.with_objects:
            if numbers is None:
                numbers = building_instances(classes == self.building_class, None)
            outlines = traced_outlines(numbers)
        return ScenePrediction(Mask(classes, valid, grid), outlines, score, probability, numbers)

    def _observe(self, scene_id: str, mask: SceneMask, valid: NDArray[np.bool_]) -> None:
        missing = np.count_nonzero(valid & ~mask.covered)
        if missing:
            self.collected.uncovered[scene_id] = missing / np.count_nonzero(valid)
        if mask.note:
            self.collected.of_files[mask.note] = None
        if mask.resampled:
            self.collected.resampled[scene_id] = None


def open_predictions(
    tools: Sequence[PredictionFiles],
    source: SceneSet,
    labels: LabelConfig,
    data: Path,
    reading: ReadOptions,
) -> list[Predictions]:
    """Open files of predictions and match each to all scenes.

    Args:
        tools: Files of each tool.
        source: The labelled scenes.
        labels: Meaning of labels, and of masks in colours.
        data: Location of the labels.
        reading: Options for reading the files.

    Raises:
        ConfigError: An order was given, but nothing has run lengths.
        DataError and its kinds: Files cannot be read, or do not fit the scenes.
    """
    if reading.order is not None and not any(files.table for files in tools):
        raise ConfigError(
            "--order was given, but no prediction is a table of run lengths.",
            remedy="Leave it out.",
        )
    if labels.classes != source.classes:
        # A card of the data has classes of its own.
        building = source.classes[source.building_class]
        labels = LabelConfig(classes=source.classes, building=building)
    scenes = _Scenes(source, labels, data)
    return [_open(files, name, scenes, reading) for files, name in zip(tools, _names(tools))]


class _Scenes:
    """The labelled scenes, and their grids, which are read on first use."""

    def __init__(self, source: SceneSet, labels: LabelConfig, data: Path) -> None:
        self.source, self.labels, self.data = source, labels, data

    @cached_property
    def grids(self) -> dict[str, GeoGrid]:
        return {scene.id: scene.image.grid for scene in self.source}

    @cached_property
    def are_georeferenced(self) -> bool:
        """True if the first scene is georeferenced; the others, possibly many, are not read."""
        first = next(iter(self.source), None)
        return first is not None and first.image.grid.crs is not None


def _open(files: PredictionFiles, name: str, scenes: _Scenes, reading: ReadOptions) -> Predictions:
    """Open the files of one tool, matched to the scenes."""
    source, labels = scenes.source, scenes.labels
    masks = polygons = label_of = None
    scores: Mapping[str, NDArray[np.float32]] = {}
    notes: list[str] = []
    if files.table is not None:
        label_of, note = _read_table(files.table, source, reading)
        notes += [note] if note else []
    if files.results is not None:
        least = reading.threshold or 0.0
        label_of, scores = _read_results(files.results, source, scenes.data, least)
    if files.rasters:
        paths, matched = _files_of(files, files.rasters, scenes, reading, shared=False)
        masks = RasterPredictions.of(
            paths, source.classes, labels.rule(), source.building_class, reading.threshold
        )
        notes += matched
        if masks.threshold is not None and reading.threshold is None:
            notes.append(f"{name}: probabilities; buildings are where they reach 0.5.")
    if files.vectors:
        paths, matched = _files_of(files, files.vectors, scenes, reading, shared=True)
        on_ground = scenes.are_georeferenced
        polygons = PolygonPredictions(paths, source.classes, source.building_class, on_ground)
        if on_ground:
            outside, every = polygons.count_outside(scenes.grids, str(files.path))
            # Images may show a part of what was predicted; labels without images are all there is.
            if outside and not has_imagery(source):
                notes.append(
                    f"{name}: {outside:,} of {every:,} polygons lie outside of the labels' bounds "
                    "and are left out."
                )
        notes += matched
    threshold = reading.threshold if files.results is not None else None
    if masks is not None:
        threshold = masks.threshold
    if reading.threshold is not None and files.results is None and threshold is None:
        notes.append(
            f"{name}: {files.kind}, for which --threshold {reading.threshold:g} has no effect."
        )
    origin = (
        "given on the command line" if reading.threshold is not None else "none was given: half"
    )
    if threshold is None:
        origin = "none: what the files show is taken"
    collected, assumed = _NoteCollector(), tuple(dict.fromkeys(notes))
    predicted = _FilePredictions(
        labels.building_class, reading.with_objects, masks, polygons, label_of, scores, collected
    )
    return Predictions(
        name=name, classes=labels.classes, building_class=labels.building_class,
        legend=Legend(labels.classes, labels.class_colours()),
        threshold=threshold, threshold_from=origin,
        context={
            "predictions": {"path": str(files.path), "kind": files.kind},
            "threshold": threshold,
            "threshold_from": origin,
            "versions": installed_versions(_RECORDED),
        },
        predict=predicted.predict,
        notes_so_far=lambda: (*assumed, *collected.notes(name)),
    )  # fmt: skip


def _files_of(
    tool: PredictionFiles,
    files: tuple[Path, ...],
    scenes: _Scenes,
    reading: ReadOptions,
    *,
    shared: bool,
) -> tuple[Mapping[str, tuple[Path, ...]], list[str]]:
    """Return the files of each scene, by name or by place, and notes on the matching.

    Args:
        tool: All files of the tool.
        files: The files to match.
        scenes: The labelled scenes.
        reading: Options for reading the files.
        shared: True if every file may hold predictions of every scene.
    """
    what, names, ids = str(tool.path), tool.names(files), scenes.source.ids
    matches = match_scene_names(ids, names, what)
    if not matches.number and len(ids):
        if len(files) == len(ids) == 1 and (
            shared or not scenes.are_georeferenced or open_raster(files[0]).grid.crs is None
        ):
            return {ids[0]: files}, [f"{files[0]} is taken for {ids[0]}."]
        if scenes.are_georeferenced and shared:
            return dict.fromkeys(ids, files), []
        if scenes.are_georeferenced:
            return _by_location(files, scenes.grids, what)
    matches.check(what, is_selection=reading.is_selection)
    pairs = {scene_id: (files[at],) for scene_id, at in matches.number.items()}
    changed = [(one, names[at]) for one, at in matches.number.items() if names[at] != one]
    if not changed:
        return pairs, []
    scene_id, name = changed[0]
    kind = "polygons" if shared else "rasters"
    count = plural(len(pairs), "scene")
    return pairs, [f"{what}: {kind} were matched to {count} by name ({name} is {scene_id})."]


def _by_location(
    files: tuple[Path, ...], grids: Mapping[str, GeoGrid], what: str
) -> tuple[Mapping[str, tuple[Path, ...]], list[str]]:
    pairs, unused = match_rasters_by_location(grids, files, what)
    matched = plural(len(files), "raster was", "rasters were")
    notes = [f"{what}: {matched} matched to scenes by the ground they show."]
    if unused:
        names = listed([path.name for path in unused])
        outside = plural(len(unused), "raster touches", "rasters touch")
        notes.append(f"{what}: {outside} no labelled scene: {names}.")
    return pairs, notes


def _names(tools: Sequence[PredictionFiles]) -> list[str]:
    """Return short and unique names."""
    paths = [files.path for files in tools]
    short = [path.resolve().name for path in paths]
    names = [name if short.count(name) == 1 else str(p) for name, p in zip(short, paths)]
    return [
        name if names.count(name) == 1 else f"{name} ({number})"
        for number, name in enumerate(names, start=1)
    ]


def _valid(image: RasterSource) -> NDArray[np.bool_]:
    """Return the (y, x) valid pixels of an image, read a few rows at a time."""
    valid = np.ones(image.grid.shape, np.bool_)
    if isinstance(image, BlankSource):
        return valid
    for window in Window.whole(image.grid.shape).strips(_ROWS):
        valid[window.slices()] = image.read(window).valid
    return valid


_REMEDY_ORDER = "Give the order with --order row or --order column."
_REMEDY = "Write a list of {image_id, category_id, segmentation, score} in the COCO results format."


def _read_table(path: Path, source: SceneSet, reading: ReadOptions) -> tuple[LabelsOf, str]:
    """Read a table of run lengths, and return a note on the order of its runs.

    Raises:
        LabelError: The file is no such table, or the order cannot be deduced.
        LayoutError: Rows and scenes do not fit.
    """
    table = RleTable.read(path)
    rows = table.cells()
    names = list(rows)
    matches = match_scene_names(source.ids, names, str(path))
    matches.check(str(path), is_selection=reading.is_selection)
    cells = {scene_id: rows[names[number]] for scene_id, number in matches.number.items()}
    order, note = reading.order, ""
    if order is None:
        order, note = order_of_runs(table, cells, source.entries, source.open_scene, _REMEDY_ORDER)

    def label_of(scene_id: str, grid: GeoGrid) -> RunsLabel:
        return RunsLabel(cells[scene_id], order, source.building_class, grid)

    return label_of, note


def _read_results(
    path: Path, source: SceneSet, labels: Path, least: float
) -> tuple[LabelsOf, dict[str, NDArray[np.float32]]]:
    """Read COCO results (https://cocodataset.org/#format-results), and return the scores by scene.

    The detection with the highest score is on top where two overlap. A scene without a detection
    has no building, because the format has no other way to express that.

    Args:
        path: The file.
        source: The labelled scenes.
        labels: Path of the labels; a COCO file there gives the names of numbered images, and the
            category of buildings.
        least: Minimum score of a detection.

    Raises:
        LabelError: The file is no list of results, or none belongs to a labelled image; names the
            record.
    """
    image_names, building = _image_names(labels, source)
    by_name: dict[str, list[tuple[float, CocoAnnotation]]] = {}
    for number, record in enumerate(_load(path)):
        drawn, score, image = _detection(record, f"{path}: [{number}]", source.building_class)
        is_building = building is None or repr(record.get("category_id")) in building
        if is_building and score >= least:
            by_name.setdefault(image_names.get(image, str(image)), []).append((score, drawn))
    matches = match_scene_names(source.ids, list(by_name), str(path))
    if by_name and not matches.number:
        raise LabelError(
            f"{path}: none of its images ({', '.join(list(by_name)[:3])}, …) is a labelled "
            f"scene ({', '.join(source.ids[:3])}, …).",
            remedy="Name images as the scenes, or give as --truth the COCO file that has these "
            "image ids.",
        )
    each = [sorted(detections, key=lambda one: one[0]) for detections in by_name.values()]
    scores = {
        scene_id: np.array([score for score, _ in each[number]], np.float32)
        for scene_id, number in matches.number.items()
    }

    def label_of(scene_id: str, grid: GeoGrid) -> CocoLabel:
        detections = each[matches.number[scene_id]] if scene_id in matches.number else []
        drawn = tuple(annotation for _, annotation in detections)
        return CocoLabel(drawn, grid.shape, grid, str(path), scene_id)

    return label_of, scores


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


def _image_names(labels: Path, source: SceneSet) -> tuple[dict[int | str, str], set[str] | None]:
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
