"""Predictions of other tools, read from files and matched to the labelled scenes.

The files are rasters and polygons (see `layers`), outlines in pixels, tables of run lengths, and
COCO results.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    Field,
    RootModel,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
)

from rooftrace.core.config import invalid_values
from rooftrace.core.errors import ConfigError, GeoreferenceError, LabelError
from rooftrace.core.system import installed_versions
from rooftrace.core.text import distinct, list_first, plural, reason_of
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
    match_rasters_by_location,
)
from rooftrace.flows.evaluate.prediction_names import (
    NameMatches,
    PredictionFiles,
    match_scene_names,
    names_of_images,
)
from rooftrace.flows.evaluate.predictions import Predictions, ScenePrediction
from rooftrace.io.georeferenced import BlankSource
from rooftrace.io.legend import Legend
from rooftrace.labels.coco import result_ids
from rooftrace.labels.coco_label import CocoAnnotation, CocoLabel
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.derived import building_instances, traced_outlines
from rooftrace.labels.label_files import ImageFinder
from rooftrace.labels.mask_source import open_mask
from rooftrace.labels.rle import RleTable
from rooftrace.labels.rle_source import RunsLabel, deduce_order
from rooftrace.labels.shape_exports import read_drawn
from rooftrace.labels.shape_files import drawn_label, iter_names
from rooftrace.labels.shapes import ShapesLabel
from rooftrace.labels.source import SceneSet

if TYPE_CHECKING:
    from rooftrace.flows.evaluate.run import EvalOptions

_ROWS = 1024
_LISTED = 5
_RECORDED = ("rooftrace", "numpy", "rasterio", "shapely")

LabelsOf = Callable[[str, GeoGrid], LabelReader]
"""Function that returns what is drawn in a scene, by its id, on its grid."""


def open_predictions(
    tools: Sequence[PredictionFiles],
    source: SceneSet,
    labels: LabelConfig,
    options: EvalOptions,
    data: SourceConfig,
) -> list[Predictions]:
    """Open files of predictions and match each to all scenes.

    Args:
        labels: Meaning of the labels, unless the scenes have other classes.
        data: Choice of the scenes, and layer of files of polygons with several.

    Raises:
        ConfigError: An order was given, but nothing has run lengths.
        DataError and its kinds: Files cannot be read, or do not fit the scenes.
    """
    if options.order is not None and not any(files.table for files in tools):
        raise ConfigError(
            "--order was given, but no prediction is a table of run lengths.",
            remedy="Leave it out.",
        )
    if labels.classes != source.classes:
        # A card of the data has classes of its own.
        building = source.classes[source.building_class]
        labels = LabelConfig(classes=source.classes, building=building)
    paths = [files.path for files in tools]
    short = [path.resolve().name for path in paths]
    names = [name if short.count(name) == 1 else str(p) for name, p in zip(short, paths)]
    return [
        _FilePredictions(files, name, source, labels, options, data).open()
        for files, name in zip(tools, distinct(names))
    ]


@dataclass
class _FilePredictions:
    """Predictions of one tool for all scenes.

    Pixels that the image does not know are left out. Pixels without a prediction count as
    background, so that no tool gains by leaving out difficult places.
    """

    files: PredictionFiles
    name: str
    source: SceneSet
    labels: LabelConfig
    options: EvalOptions
    data: SourceConfig
    masks: RasterPredictions | None = None
    polygons: PolygonPredictions | None = None
    label_of: LabelsOf | None = None
    scores: Mapping[str, NDArray[np.float32]] | None = field(default_factory=dict)
    # Observations on files and scenes, collected for the notes.
    assumed: dict[str, None] = field(default_factory=dict)
    of_scenes: dict[str, None] = field(default_factory=dict)
    resampled: dict[str, None] = field(default_factory=dict)
    uncovered: dict[str, float] = field(default_factory=dict)

    @property
    def is_selection(self) -> bool:
        """True if the scenes are a selection, so that there may be predictions of others."""
        return bool(self.options.split or self.data.part or self.data.glob)

    @cached_property
    def grids(self) -> dict[str, GeoGrid]:
        return {scene.id: scene.image.grid for scene in self.source}

    @cached_property
    def are_georeferenced(self) -> bool:
        """True if the first scene is georeferenced; the others, possibly many, are not read."""
        first = next(iter(self.source), None)
        return first is not None and first.image.grid.crs is not None

    def open(self) -> Predictions:
        """Open the files and match them to the scenes."""
        files, source, given = self.files, self.source, self.options.threshold
        threshold = None
        if files.table is not None:
            self._read_table(files.table)
        if files.drawn:
            self._read_drawn(files.drawn, given or 0.0)
            threshold = given if self.scores else None
        if files.results is not None:
            self._read_results(files.results, given or 0.0)
            threshold = given
        if files.rasters:
            paths = self._match(files.rasters, shared=False)
            self.masks = RasterPredictions.of(
                paths, self.labels.rule(), source.building_class, given
            )
            threshold = self.masks.threshold
            if threshold is not None and given is None:
                self._assume(f"{self.name}: probabilities; buildings are where they reach 0.5.")
        if files.vectors:
            self._open_polygons(files.vectors)
        if given is not None and threshold is None:
            self._assume(
                f"{self.name}: {files.kind}, for which --threshold {given:g} has no effect."
            )
        origin = "given on the command line" if given is not None else "none was given: half"
        if threshold is None:
            origin = "none: what the files show is taken"
        return Predictions(
            name=self.name, classes=self.labels.classes, building_class=self.labels.building_class,
            legend=Legend(self.labels.classes, self.labels.class_colours()),
            context={
                "predictions": {"path": str(files.path), "kind": files.kind},
                "threshold": threshold,
                "threshold_from": origin,
                "versions": installed_versions(_RECORDED),
            },
            predict=self.predict,
            notes_so_far=self._notes,
        )  # fmt: skip

    def predict(self, scene: Scene) -> ScenePrediction:
        """Return the predictions for a scene."""
        grid = scene.image.grid
        valid = _valid(scene.image)
        classes = probability = score = numbers = None
        if self.label_of is not None:
            label = self.label_of(scene.id, grid)
            classes = label.read(Window.whole(grid.shape)).data
            if isinstance(label, InstanceReader):
                numbers = label.read_instances()
                if self.scores is not None:
                    score = self.scores.get(scene.id, np.zeros(0, np.float32))
        if self.masks is not None:
            mask = self.masks.on(scene.id, grid)
            classes, probability, numbers = mask.classes, mask.probability, mask.instances
            if missing := np.count_nonzero(valid & ~mask.covered):
                self.uncovered[scene.id] = missing / np.count_nonzero(valid)
            if mask.note:
                self.of_scenes[f"{self.name}: {mask.note}"] = None
            if mask.resampled:
                self.resampled[scene.id] = None
        if self.polygons is not None:
            drawn, notes = self.polygons.on(scene.id, grid, valid)
            self.of_scenes |= dict.fromkeys(notes)
            seen = drawn.mask if classes is None else Mask(classes, valid, grid)
            return replace(drawn, mask=seen, probability=probability)
        assert classes is not None
        outlines = np.zeros(0, np.object_)
        if not self.options.pixels_only:
            if numbers is None:
                numbers = building_instances(classes == self.labels.building_class, None)
            if probability is not None:
                # The score of a building is the mean probability of its pixels, as of a model.
                pixels = np.bincount(numbers.ravel())[1:]
                total = np.bincount(numbers.ravel(), probability.ravel())[1:]
                score = (total / (255 * np.maximum(pixels, 1))).astype(np.float32)
            outlines = traced_outlines(numbers)
        return ScenePrediction(Mask(classes, valid, grid), outlines, score, probability, numbers)

    def _assume(self, note: str) -> None:
        self.assumed[note] = None

    def _notes(self) -> tuple[str, ...]:
        """Return the notes on what was read so far."""
        notes = [*self.assumed, *list(self.of_scenes)[:_LISTED]]
        if len(self.of_scenes) > _LISTED:
            more = plural(len(self.of_scenes) - _LISTED, "more note")
            notes.append(f"{self.name}: … and {more} on its files.")
        if self.resampled:
            notes.append(
                f"{self.name}: {plural(len(self.resampled), 'scene')} predicted on another grid, "
                "where each pixel takes the nearest value (probabilities: the mean): "
                f"{list_first(list(self.resampled))}."
            )
        if self.uncovered:
            worst = max(self.uncovered, key=self.uncovered.__getitem__)
            notes.append(
                f"{self.name}: {plural(len(self.uncovered), 'scene')} only partly predicted (most "
                f"is missing in {worst}: {self.uncovered[worst]:.1%}); missing pixels count as "
                "background."
            )
        return tuple(notes)

    def _match(self, files: tuple[Path, ...], *, shared: bool) -> Mapping[str, tuple[Path, ...]]:
        """Return the files of each scene, by name or by place."""
        what, names, ids = str(self.files.path), self.files.names(files), self.source.ids
        matches = match_scene_names(ids, names, what, names_of_images(self.source.entries))
        if not matches.number and len(ids):
            if len(files) == len(ids) == 1 and (
                shared
                or not self.are_georeferenced
                or open_mask(files[0], sharp=False).grid.crs is None
            ):
                self._assume(f"{files[0]} is taken for {ids[0]}.")
                return {ids[0]: files}
            if self.are_georeferenced and shared:
                return dict.fromkeys(ids, files)
            if self.are_georeferenced:
                pairs, unused = match_rasters_by_location(self.grids, files, what)
                matched = plural(len(files), "raster was", "rasters were")
                self._assume(f"{what}: {matched} matched to scenes by the ground they show.")
                if unused:
                    outside = plural(len(unused), "raster touches", "rasters touch")
                    few = list_first([path.name for path in unused])
                    self._assume(f"{what}: {outside} no labelled scene: {few}.")
                return pairs
        matches.check(what, is_selection=self.is_selection)
        renamed = [(one, names[at]) for one, at in matches.number.items() if names[at] != one]
        if renamed:
            scene_id, name = renamed[0]
            kind, count = "polygons" if shared else "rasters", plural(len(matches.number), "scene")
            self._assume(f"{what}: {kind} were matched to {count} by name ({name} is {scene_id}).")
        return {scene_id: (files[at],) for scene_id, at in matches.number.items()}

    def _check_surplus(self, matches: NameMatches) -> None:
        """Refuse predictions of other images; a scene without a prediction has no building."""
        matches = replace(matches, missing=())
        matches.check(str(self.files.path), is_selection=self.is_selection)

    def _open_polygons(self, files: tuple[Path, ...]) -> None:
        paths = self._match(files, shared=True)
        self.polygons = PolygonPredictions(
            paths, self.source.classes, self.source.building_class, self.data.layer
        )
        grids: Iterable[tuple[str, GeoGrid]] = ((one.id, one.image.grid) for one in self.source)
        if self.are_georeferenced:
            grids = self.grids.items()
            if (
                nowhere := next((one for one, grid in grids if grid.crs is None), None)
            ) is not None:
                raise GeoreferenceError(
                    f"The labelled scene {nowhere} has no georeference, but others have, and the "
                    "polygons belong to places on the ground.",
                    remedy="Give it one, or evaluate it separately, with polygons in its pixels.",
                )
        self.polygons.check_places(grids, str(self.files.path))

    def _read_table(self, path: Path) -> None:
        """Read a table of run lengths."""
        source = self.source
        table = RleTable.read(path)
        rows = table.cells()
        names = list(rows)
        matches = match_scene_names(source.ids, names, str(path), names_of_images(source.entries))
        matches.check(str(path), is_selection=self.is_selection)
        cells = {scene_id: rows[names[number]] for scene_id, number in matches.number.items()}
        remedy = "Give the order with --order row or --order column."
        order, note = self.options.order, ""
        if order is None:
            order, note = deduce_order(table, cells, source.entries, source.open_scene, remedy)
        if note:
            self._assume(note)
        self.label_of = lambda scene_id, grid: RunsLabel(
            cells[scene_id], order, source.building_class, grid
        )

    def _read_drawn(self, files: Sequence[Path], least: float) -> None:
        """Read outlines in pixels of images, in a format of a label tool.

        A scene without outlines has no building: YOLO writes no file then.
        """
        ids, what = self.source.ids, str(self.files.path)
        images = [image for file in files for image in read_drawn(file)]
        by_image = {one.image: one.id for one in self.source.entries if one.image is not None}
        finder = ImageFinder((), tuple(by_image))
        matched = [finder.look(image.name, image.where) for image in images]
        names = [by_image[path] if path else one.name for path, one in zip(matched, images)]
        matches = match_scene_names(ids, names, what)
        if not matches.number:
            raise LabelError(
                f"{what}: none of its images ({list_first(names)}) is a labelled scene "
                f"({list_first(ids)}).",
                remedy="Name images as the scenes.",
            )
        self._check_surplus(matches)
        if matches.missing:
            scenes = plural(len(matches.missing), "scene")
            self._assume(f"{what}: {scenes} without outlines: {list_first(matches.missing)}.")
        rule, notes = self.labels.name_rule().fitted(iter_names(images), what)
        for note in notes:
            self._assume(note)
        drawn = {
            scene_id: replace(images[at], shapes=tuple(
                shape for shape in images[at].shapes
                if (shape.score is None or shape.score >= least)
                and rule.index_of(shape.name, images[at].where) is not None
            ))
            for scene_id, at in matches.number.items()
        }  # fmt: skip
        scores = {
            scene_id: np.array([np.nan if one.score is None else one.score for one in image.shapes],
                               np.float32)
            for scene_id, image in drawn.items()
        }  # fmt: skip
        all_scores = np.concatenate([*scores.values()])
        self.scores = scores if ((all_scores >= 0) & (all_scores <= 1)).all() else None
        self.label_of = lambda scene_id, grid: (
            drawn_label(drawn[scene_id], rule, grid, scene_id)
            if scene_id in drawn
            else ShapesLabel(np.zeros(0, np.object_), [], grid)
        )

    def _read_results(self, path: Path, least: float) -> None:
        """Read COCO results (https://cocodataset.org/#format-results).

        The detection with the highest score is on top where two overlap. A scene without a
        detection has no building, because the format has no other way to express that. Labels in
        a COCO file give the names of numbered images, and the category of buildings.
        """
        source = self.source
        try:
            results = _CocoResults.model_validate_json(path.read_bytes()).root
        except (OSError, ValidationError) as error:
            why = f"{reason_of(error)}."
            if isinstance(error, ValidationError):
                why = invalid_values(error, _CocoResults, 3)
            raise LabelError(
                f"{path} is not a list of COCO results: {why}",
                remedy="Write a list of {image_id, category_id, segmentation, score} in the COCO "
                "results format, with outlines or masks instead of boxes.",
            ) from error
        labels, image_names, buildings = result_ids(source, (one.image_id for one in results))
        building_ids = {one.category_id for one in results} if not buildings else {*buildings, None}
        others = [one.category_id for one in results if one.category_id not in building_ids]
        if others:
            listed = ", ".join(sorted({repr(one) for one in others}))
            ids = ", ".join(map(repr, buildings))
            if len(others) == len(results):
                raise LabelError(
                    f"{path} has the category {listed}; buildings have {ids} in {labels}.",
                    remedy=f"Write the category_id {ids} in the results, or correct the labels. "
                    "Some programs count categories from 0.",
                )
            self._assume(
                f"{path}: {plural(len(others), 'detection')} of other categories ({listed}) left "
                f"out; buildings have {ids}."
            )
        by_name: dict[str, list[tuple[float, CocoAnnotation]]] = {}
        for number, one in enumerate(results):
            if one.category_id in building_ids and one.score >= least:
                drawn = CocoAnnotation(
                    f"{path}: [{number}]", source.building_class, one.segmentation
                )
                name = image_names.get(one.image_id, str(one.image_id))
                by_name.setdefault(name, []).append((one.score, drawn))
        images = names_of_images(source.entries)
        matches = match_scene_names(source.ids, list(by_name), str(path), images)
        if by_name and not matches.number:
            raise LabelError(
                f"{path}: none of its images ({', '.join(list(by_name)[:3])}, …) is a labelled "
                f"scene ({', '.join(source.ids[:3])}, …).",
                remedy="Name images as the scenes, or give the COCO file that has these image ids: "
                f"--truth {shlex.quote(labels or 'FILE')}",
            )
        self._check_surplus(matches)
        each = [sorted(detections, key=lambda one: one[0]) for detections in by_name.values()]
        of_scene = {scene_id: each[number] for scene_id, number in matches.number.items()}
        self.scores = {
            scene_id: np.array([score for score, _ in detections], np.float32)
            for scene_id, detections in of_scene.items()
        }
        self.label_of = lambda scene_id, grid: CocoLabel(
            tuple(drawn for _, drawn in of_scene.get(scene_id, ())), grid.shape, grid, str(path),
            scene_id,
        )  # fmt: skip


class _CocoResult(BaseModel):
    """One detection."""

    image_id: StrictInt | StrictStr
    score: Annotated[float, Field(strict=True, ge=0, le=1)]
    segmentation: list[Any] | dict[str, Any]
    category_id: StrictInt | StrictStr | None = None

    @field_validator("segmentation")
    @classmethod
    def _drawn(cls, value: list[Any] | dict[str, Any]) -> list[Any] | dict[str, Any]:
        if isinstance(value, list) and value:
            return [one for one in value if not (isinstance(one, list) and len(one) < 6)]
        if isinstance(value, dict) and isinstance(value.get("counts"), (str, list)):
            return value
        raise ValueError("it should be polygons or run lengths")


class _CocoResults(RootModel[list[_CocoResult]]):
    """Detections of all images."""


def _valid(image: RasterSource) -> NDArray[np.bool_]:
    """Return the (y, x) valid pixels of an image, read a few rows at a time."""
    valid = np.ones(image.grid.shape, np.bool_)
    if isinstance(image, BlankSource):
        return valid
    for window in Window.whole(image.grid.shape).strips(_ROWS):
        valid[window.slices()] = image.read(window).valid
    return valid
