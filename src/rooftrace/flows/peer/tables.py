"""Tables of run lengths, and COCO results, as predictions of scenes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import LabelError, RooftraceError
from rooftrace.core.types import GeoGrid, Scene
from rooftrace.data.coco.label import CocoLabel, Drawn
from rooftrace.data.rle.order import LOOKED_AT
from rooftrace.data.rle.read import RunsLabel, told_order
from rooftrace.data.rle.table import RleTable
from rooftrace.data.runs import Bounds, Order, is_empty, parse_runs
from rooftrace.data.source import SceneSet
from rooftrace.flows.peer.names import match_names

__all__ = ["CocoResults", "Detected", "RunsTable"]

Cells = tuple[tuple[str, str], ...]

_REMEDY_ORDER = "Say which it is: --order row, or --order column."
_REMEDY = "Write a list of {image_id, category_id, segmentation, score}, as COCO's results are."


@dataclass(frozen=True)
class RunsTable:
    """The masks of a table, decoded one at a time.

    Args:
        cells: of each scene, by its id; several rows add up.
        order: of the runs.
        building_class: of what is in a run.
        note: how the order was found; "" where it was said.
    """

    cells: Mapping[str, Cells]
    order: Order
    building_class: int
    note: str

    @classmethod
    def of(cls, path: Path, source: SceneSet, order: Order | None, *, chosen: bool) -> RunsTable:
        """Read a table, and find its rows' scenes.

        Args:
            source: the labelled scenes.
            order: of the runs, where it was said.
            chosen: see `Matched.check`.

        Raises:
            LabelError: what is no table; or the order is not to be told.
            LayoutError: rows and scenes do not fit.
        """
        table = RleTable.read(path)
        rows: dict[str, list[tuple[str, str]]] = {}
        for row in table.rows:
            rows.setdefault(table.image_id(row), []).append((table.where(row), table.runs(row)))
        names = list(rows)
        matched = match_names(source.ids, names, str(path))
        matched.check(str(path), len(names), chosen=chosen)
        cells = {
            scene_id: tuple(rows[names[number]]) for scene_id, number in matched.number.items()
        }
        note = ""
        if order is None:
            order, note = _order_of(table, cells, source)
        return cls(cells, order, source.building_class, note)

    def on(self, scene_id: str, grid: GeoGrid) -> NDArray[np.uint8]:
        """(y, x) the classes of a scene.

        Raises:
            LabelError: runs that the scene cannot have, with their row.
        """
        label = RunsLabel(self.cells[scene_id], self.order, self.building_class, grid)
        return label.read().data


def _order_of(table: RleTable, cells: Mapping[str, Cells], source: SceneSet) -> tuple[Order, str]:
    drawn = [name for name, each in cells.items() if not all(is_empty(text) for _, text in each)]
    if not drawn:
        return table.columns.custom or "row", ""
    spread = {drawn[index * len(drawn) // LOOKED_AT] for index in range(LOOKED_AT)}
    return told_order(table, list(_readable(source.subset(list(spread)), cells)), _REMEDY_ORDER)


def _readable(scenes: SceneSet, cells: Mapping[str, Cells]) -> Iterator[tuple[Scene, Bounds]]:
    """Scenes with the runs of their first row that has any; what is broken is told elsewhere."""
    for entry in scenes.entries:
        try:
            scene = scenes.open_scene(entry)
            where, text = next(cell for cell in cells[entry.id] if not is_empty(cell[1]))
            yield scene, parse_runs(text, scene.image.grid.shape, where=where)
        except RooftraceError:
            continue


@dataclass(frozen=True)
class Detected:
    """What COCO results say of a scene.

    Args:
        classes: (y, x) uint8.
        numbers: (y, x) int32, from 1, which detection a pixel is of; the later one wins.
        score: (n,) float32 of the detections.
    """

    classes: NDArray[np.uint8]
    numbers: NDArray[np.int32]
    score: NDArray[np.float32]


@dataclass(frozen=True)
class CocoResults:
    """Detections by scene (https://cocodataset.org/#format-results).

    Args:
        path: of the file.
        found: of each scene, by its id; the surest last, so that it is seen where two overlap.
        building_class: of all of them.
    """

    path: Path
    found: Mapping[str, tuple[tuple[Drawn, float], ...]]
    building_class: int

    @classmethod
    def of(cls, path: Path, source: SceneSet, labels: Path, least: float) -> CocoResults:
        """Read results, and find their scenes.

        A scene without a detection is one without a building, as the format has no other way to
        say so.

        Args:
            source: the labelled scenes.
            labels: where they come from: a COCO file tells the names of numbered images, and which
                category is the building's.
            least: score below which a detection is left out.

        Raises:
            LabelError: what is no list of results, or of no labelled image; names the record.
        """
        records = _load(path)
        names, building = _known(labels, source)
        by_name: dict[str, list[tuple[Drawn, float]]] = {}
        for number, record in enumerate(records):
            where = f"{path}: [{number}]"
            drawn, score, image = _detection(record, where, source.building_class)
            if building is not None and repr(record.get("category_id")) not in building:
                continue
            if score >= least:
                by_name.setdefault(names.get(image, str(image)), []).append((drawn, score))
        matched = match_names(source.ids, list(by_name), str(path))
        if by_name and not matched.number:
            raise LabelError(
                f"{path}: none of its images ({', '.join(list(by_name)[:3])}, …) is a labelled "
                f"scene ({', '.join(source.ids[:3])}, …).",
                remedy="Call images as the scenes are, or give as --truth the COCO file whose "
                "image ids they are.",
            )
        each = list(by_name.values())
        found = {
            scene_id: tuple(sorted(each[number], key=lambda one: one[1]))
            for scene_id, number in matched.number.items()
        }
        return cls(path, found, source.building_class)

    def on(self, scene_id: str, grid: GeoGrid) -> Detected:
        """The detections of a scene on its grid.

        Raises:
            LabelError: a segmentation that the scene cannot have.
            MissingExtraError: pycocotools is not installed.
        """
        found = self.found.get(scene_id, ())
        drawn = tuple(one for one, _ in found)
        label = CocoLabel(drawn, grid.shape, grid, str(self.path), scene_id)
        return Detected(
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


def _detection(record: object, where: str, building_class: int) -> tuple[Drawn, float, int | str]:
    if not isinstance(record, dict):
        raise LabelError(f"{where} is no object, but {record!r:.40}.", remedy=_REMEDY)
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
            f"{where} has no segmentation of polygons or run lengths, but {given!r:.40}.",
            remedy="Give outlines or masks, and not boxes alone.",
        )
    return Drawn(where, building_class, given), float(score), image


def _known(labels: Path, source: SceneSet) -> tuple[dict[int | str, str], set[str] | None]:
    """Of labels that are a COCO file the names of images by id, and the ids of the categories that
    are the building; None where all categories are.
    """
    if source.kind != "coco" or not labels.is_file():
        return {}, None
    raw = json.loads(labels.read_bytes())
    names = {one["id"]: str(one.get("scene_id") or one["file_name"]) for one in raw["images"]}
    wanted = source.classes[source.building_class].casefold()
    categories: Sequence[dict[str, Any]] = raw.get("categories", [])
    building = {repr(one["id"]) for one in categories if str(one.get("name")).casefold() == wanted}
    return names, building or None
