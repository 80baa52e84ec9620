"""Predictions of other tools, read from files and matched to the labelled scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError
from rooftrace.core.machine import installed_versions
from rooftrace.core.types import GeoGrid, Mask, RasterSource, Scene, Window
from rooftrace.flows.evaluate.external.files import PredictionFiles, listed, match_scene_names
from rooftrace.flows.evaluate.external.layers import (
    PolygonPredictions,
    RasterPredictions,
    SceneMask,
    match_rasters_by_location,
)
from rooftrace.flows.evaluate.external.tables import CocoPredictions, RunTablePredictions
from rooftrace.flows.evaluate.predictions import ScenePrediction
from rooftrace.io.legend import Legend
from rooftrace.io.raster import open_raster
from rooftrace.io.sources import BlankSource
from rooftrace.labels.config import LabelConfig
from rooftrace.labels.ground_truth import building_instances, traced_outlines
from rooftrace.labels.rle.codec import Order
from rooftrace.labels.source import SceneSet

__all__ = ["ExternalPredictions", "ReadOptions", "open_predictions"]

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
                f"{name}: {len(self.resampled):,} scenes were predicted on another grid, and each "
                f"pixel takes the nearest value (probabilities: the mean): {scenes}."
            )
        if self.uncovered:
            worst = max(self.uncovered, key=self.uncovered.__getitem__)
            share = self.uncovered[worst]
            notes.append(
                f"{name}: {len(self.uncovered):,} scenes are only partly predicted (most is "
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
        polygons = PolygonPredictions(files, source.classes, source.building_class)
        if grids.are_georeferenced:
            polygons.check_reach(grids.all, str(found.path))
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
    return pairs, [
        f"{what}: {kind} were matched to {len(pairs):,} scenes by name ({name} is {scene_id})."
    ]


def _is_alone(files: tuple[Path, ...], source: SceneSet, grids: _Grids, *, shared: bool) -> bool:
    """Return True if there are one file and one scene, and no georeference to compare."""
    if len(files) != 1 or len(source) != 1:
        return False
    return shared or not grids.are_georeferenced or open_raster(files[0]).grid.crs is None


def _by_location(
    files: tuple[Path, ...], grids: _Grids, what: str
) -> tuple[Mapping[str, tuple[Path, ...]], list[str]]:
    pairs, unused = match_rasters_by_location(grids.all, files, what)
    notes = [f"{what}: {len(files):,} rasters were matched to scenes by the ground they show."]
    if unused:
        names = listed([path.name for path in unused])
        notes.append(f"{what}: {len(unused):,} rasters touch no labelled scene: {names}.")
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
