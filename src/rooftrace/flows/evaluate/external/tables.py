"""Predictions in tables of run lengths, and in COCO results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import LabelError
from rooftrace.core.types import GeoGrid
from rooftrace.flows.evaluate.external.files import match_scene_names
from rooftrace.labels.coco_label import CocoAnnotation, CocoLabel
from rooftrace.labels.rle.codec import Order, is_empty
from rooftrace.labels.rle.order import MOST_SCENES, deduce_order, scenes_with_runs
from rooftrace.labels.rle.source import RunsLabel
from rooftrace.labels.rle.table import RleTable
from rooftrace.labels.source import SceneSet

__all__ = ["CocoPredictions", "RunTablePredictions", "SceneDetections"]

Cells = tuple[tuple[str, str], ...]

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
    except (OSError, ValueError, RecursionError) as error:
        raise LabelError(f"{path} is not JSON: {error}.", remedy=_REMEDY) from error
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
