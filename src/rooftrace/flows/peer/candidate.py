"""Files of predictions as a candidate: judged as a model is, on the same scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError
from rooftrace.core.types import GeoGrid, Mask, RasterSource, Scene, Window
from rooftrace.core.versions import installed
from rooftrace.data.config import LabelConfig
from rooftrace.data.runs import Order
from rooftrace.data.separation import building_instances
from rooftrace.data.source import SceneSet
from rooftrace.data.truth import traced_outlines
from rooftrace.flows.candidates import Answer
from rooftrace.flows.peer.found import Found
from rooftrace.flows.peer.masks import MaskFiles, Painted, place_rasters
from rooftrace.flows.peer.names import listed, match_names
from rooftrace.flows.peer.shapes import PolygonFiles
from rooftrace.flows.peer.tables import CocoResults, RunsTable
from rooftrace.io.blank import BlankSource
from rooftrace.io.legend import Legend
from rooftrace.io.raster import open_raster

__all__ = ["FilesCandidate", "Reading", "open_predictions"]

_ROWS = 1024
_LISTED = 5
_RECORDED = ("rooftrace", "numpy", "rasterio", "shapely")


@dataclass(frozen=True)
class Reading:
    """How predictions are read.

    Args:
        threshold: on probabilities, and on the scores of COCO results; None where none was given.
        order: of run lengths; None: found by looking.
        chosen: whether the scenes are a choice of more, so that others may be predicted too.
        objects: whether buildings are wanted one by one, or their pixels alone.
    """

    threshold: float | None = None
    order: Order | None = None
    chosen: bool = False
    objects: bool = True


@dataclass
class _Told:
    """What is gathered while scenes are answered."""

    moved: dict[str, None] = field(default_factory=dict)
    uncovered: dict[str, float] = field(default_factory=dict)
    of_files: dict[str, None] = field(default_factory=dict)

    def notes(self, name: str) -> list[str]:
        notes = list(self.of_files)[:_LISTED]
        if len(self.of_files) > _LISTED:
            notes.append(f"{name}: … and {len(self.of_files) - _LISTED} notes more of its files.")
        if self.moved:
            scenes = listed(list(self.moved))
            notes.append(
                f"{name}: {len(self.moved):,} scenes were predicted on another grid, and each "
                f"pixel takes the nearest value (probabilities: the mean): {scenes}."
            )
        if self.uncovered:
            worst = max(self.uncovered, key=self.uncovered.__getitem__)
            share = self.uncovered[worst]
            notes.append(
                f"{name}: {len(self.uncovered):,} scenes are not wholly predicted (most is missing "
                f"of {worst}: {share:.1%}); what is missing counts as background."
            )
        return notes


@dataclass(frozen=True)
class FilesCandidate:
    """What some tool has made of scenes.

    A pixel that the image says nothing of is not judged. One that the prediction says nothing of
    is: it counts as background, so that nobody gains by leaving out what is difficult.

    Args:
        name: what reports call it.
        found: its files.
        labels: classes and palette.
        reading: how they are read.
        masks, polygons, table, results: those of them that there are.
        assumed: what was assumed before a scene was read.
    """

    name: str
    found: Found
    labels: LabelConfig
    reading: Reading
    masks: MaskFiles | None = None
    polygons: PolygonFiles | None = None
    table: RunsTable | None = None
    results: CocoResults | None = None
    assumed: tuple[str, ...] = ()
    _told: _Told = field(default_factory=_Told, repr=False, compare=False)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.labels.classes

    @property
    def building_class(self) -> int:
        return self.labels.building_class

    @cached_property
    def legend(self) -> Legend:
        return Legend(self.labels.classes, self.labels.drawn_in())

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
            "versions": installed(_RECORDED),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.assumed, *self._told.notes(self.name))

    def answer(self, scene: Scene) -> Answer:
        """What the files say of a scene.

        Raises:
            DataError and its kinds: a file cannot be read, or does not fit the scene.
        """
        grid = scene.image.grid
        valid = _valid(scene.image)
        if self.results is not None:
            said = self.results.on(scene.id, grid)
            outlines = traced_outlines(said.numbers) if self.reading.objects else _none()
            mask = Mask(said.classes, valid, grid)
            return Answer(mask, outlines, said.score, instances=said.numbers)
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
            self._told.of_files.update(dict.fromkeys(drawn.notes))
            return Answer(mask, drawn.outlines, drawn.score, probability)
        if not self.reading.objects:
            return Answer(mask, _none(), None, probability)
        numbers = building_instances(classes == self.building_class, None)
        return Answer(mask, traced_outlines(numbers), None, probability, numbers)

    def _painted(self, masks: MaskFiles, scene: Scene, valid: NDArray[np.bool_]) -> Painted:
        painted = masks.on(scene.id, scene.image.grid)
        missing = np.count_nonzero(valid & ~painted.covered)
        if missing:
            self._told.uncovered[scene.id] = missing / np.count_nonzero(valid)
        if painted.moved:
            self._told.moved[scene.id] = None
        return painted


def open_predictions(
    found: Sequence[Found], source: SceneSet, labels: LabelConfig, data: Path, reading: Reading
) -> list[FilesCandidate]:
    """Files as candidates, each matched to all scenes.

    Args:
        found: of each candidate.
        source: the labelled scenes.
        labels: what labels, and so masks in colours, mean.
        data: where the labels lie.
        reading: how the files are read.

    Raises:
        ConfigError: an order where nothing has run lengths.
        DataError and its kinds: files cannot be read, or do not fit the scenes.
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
    """The grids of scenes, read when they are first needed."""

    def __init__(self, source: SceneSet) -> None:
        self._source = source

    @cached_property
    def all(self) -> dict[str, GeoGrid]:
        return {scene.id: scene.image.grid for scene in self._source}

    @cached_property
    def are_placed(self) -> bool:
        """Whether the first scene lies somewhere: looked at in place of all, which may be many."""
        first = next(iter(self._source), None)
        return first is not None and first.image.grid.crs is not None


def _opened(
    found: Found,
    name: str,
    source: SceneSet,
    labels: LabelConfig,
    data: Path,
    reading: Reading,
    grids: _Grids,
) -> FilesCandidate:
    made = _read(FilesCandidate(name, found, labels, reading), source, data, grids)
    if reading.threshold is None or made.threshold is not None:
        return made
    note = f"{name}: {found.kind}, to which --threshold {reading.threshold:g} does nothing."
    return replace(made, assumed=(*made.assumed, note))


def _read(made: FilesCandidate, source: SceneSet, data: Path, grids: _Grids) -> FilesCandidate:
    """With its files matched to the scenes."""
    name, found, labels, reading = made.name, made.found, made.labels, made.reading
    if found.table is not None:
        table = RunsTable.of(found.table, source, reading.order, chosen=reading.chosen)
        return replace(made, table=table, assumed=(table.note,) if table.note else ())
    if found.results is not None:
        least = 0.0 if reading.threshold is None else reading.threshold
        return replace(made, results=CocoResults.of(found.results, source, data, least))
    notes: list[str] = []
    if found.rasters:
        files, note = _files_of(found, found.rasters, source, grids, reading, shared=False)
        masks = MaskFiles.of(
            files, source.classes, labels.rule(), source.building_class, reading.threshold
        )
        notes += note
        if masks.threshold is not None and reading.threshold is None:
            notes.append(f"{name}: probabilities; buildings are where they reach 0.5.")
        made = replace(made, masks=masks)
    if found.vectors:
        files, note = _files_of(found, found.vectors, source, grids, reading, shared=True)
        polygons = PolygonFiles(files, source.classes, source.building_class)
        if grids.are_placed:
            polygons.check_reach(grids.all, str(found.path))
        notes += note
        made = replace(made, polygons=polygons)
    return replace(made, assumed=tuple(dict.fromkeys(notes)))


def _files_of(
    found: Found,
    files: tuple[Path, ...],
    source: SceneSet,
    grids: _Grids,
    reading: Reading,
    *,
    shared: bool,
) -> tuple[Mapping[str, tuple[Path, ...]], list[str]]:
    """The files of each scene, by name, or else by place; and how they were found.

    Args:
        shared: whether each file is looked at for each scene, if not by name.
    """
    what, names = str(found.path), found.names(files)
    matched = match_names(source.ids, names, what)
    if not matched.number and len(source):
        if _is_alone(files, source, grids, shared=shared):
            return {source.ids[0]: files}, [f"{files[0]} is taken for {source.ids[0]}."]
        if grids.are_placed and shared:
            return dict.fromkeys(source.ids, files), []
        if grids.are_placed:
            return _by_place(files, grids, what)
    matched.check(what, len(files), chosen=reading.chosen)
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
    """Whether there is one file and one scene, and no place that would tell more."""
    if len(files) != 1 or len(source) != 1:
        return False
    return shared or not grids.are_placed or open_raster(files[0]).grid.crs is None


def _by_place(
    files: tuple[Path, ...], grids: _Grids, what: str
) -> tuple[Mapping[str, tuple[Path, ...]], list[str]]:
    pairs, unused = place_rasters(grids.all, files, what)
    notes = [f"{what}: {len(files):,} rasters were matched to scenes by the ground they show."]
    if unused:
        told = listed([path.name for path in unused])
        notes.append(f"{what}: {len(unused):,} rasters touch no labelled scene: {told}.")
    return pairs, notes


def _names(found: Sequence[Found]) -> list[str]:
    """Short ones that tell them apart."""
    short = [one.path.resolve().name for one in found]
    return [
        name if short.count(name) == 1 else str(one.path) if _counted(found, one) == 1
        else f"{one.path} ({number})"
        for number, (name, one) in enumerate(zip(short, found), start=1)
    ]  # fmt: skip


def _counted(found: Sequence[Found], one: Found) -> int:
    return sum(other.path == one.path for other in found)


def _valid(image: RasterSource) -> NDArray[np.bool_]:
    """(y, x) what an image says anything of; some rows are read at a time."""
    valid = np.ones(image.grid.shape, np.bool_)
    if isinstance(image, BlankSource):
        return valid
    for window in Window.whole(image.grid.shape).strips(_ROWS):
        valid[window.slices()] = image.read(window).valid
    return valid


def _none() -> NDArray[np.object_]:
    return np.zeros(0, np.object_)
