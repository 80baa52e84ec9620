"""What contests ask for: a table of run lengths with a row for each image, or COCO results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import shapely

from rooftrace.core.errors import ConfigError, LayoutError
from rooftrace.core.text import list_first, plural
from rooftrace.core.types import GeoGrid
from rooftrace.flows.predict.image_run import RunReport
from rooftrace.flows.predict.inputs import SceneInput
from rooftrace.io.files import check_outputs, write_json
from rooftrace.io.legend import BUILDING_NAMES
from rooftrace.io.reproject import in_pixels
from rooftrace.io.vector_read import VectorFile
from rooftrace.labels.coco import Id, read_ids
from rooftrace.labels.coco_label import outline_rle
from rooftrace.labels.label_files import ImageFinder
from rooftrace.labels.rle import NO_RUNS, Order, RleTable, TableColumns, TableRow
from rooftrace.models.spec import BundleSpec

RLE_TABLE = "submission.csv"
"""Name of the table in the folder of the results."""

COCO_RESULTS = "results.json"
"""Name of the file in the folder of the results."""

_COLUMNS = ("img_id", "mask_rle")


@dataclass(frozen=True)
class RleOutput:
    """Table of run lengths to write."""

    table: RleTable
    scenes: Sequence[SceneInput]
    order: Order

    @classmethod
    def of(
        cls,
        scenes: Sequence[SceneInput],
        out: Path,
        sample: Path | None = None,
        order: Order | None = None,
    ) -> RleOutput:
        """Return the table for some images, checked before the work.

        Args:
            scenes: Images with distinct names.
            sample: Table whose rows, columns, line ends and text of an empty mask are kept;
                default: one row for each image, sorted by name, with `img_id,mask_rle`.
            order: Pixel order of the runs; default: the usual order for the columns.

        Raises:
            LayoutError: The sample lists an image that does not exist, or lacks one that exists.
            ConfigError: The pixel order is unknown, or the sample would be overwritten.
        """
        path = out / RLE_TABLE
        check_outputs([path], [sample, *(scene.path for scene in scenes)])
        if sample is None:
            listed: Sequence[SceneInput] = sorted(scenes, key=lambda scene: scene.name)
            rows = tuple(TableRow(i, (scene.name, NO_RUNS)) for i, scene in enumerate(listed, 2))
            table = RleTable(TableColumns.of(_COLUMNS, str(path)), rows, name=str(path))
        else:
            table = RleTable.read(sample)
            listed = _listed(table, scenes)
        order = order or table.columns.custom
        if order is None:
            raise ConfigError(
                f"The columns of {sample} do not determine the pixel order of its runs.",
                remedy="Give the order with --order row or --order column.",
            )
        return cls(table, listed, order)

    def write(self, out: Path, runs: Iterable[str], spec: BundleSpec) -> tuple[list[str], str]:
        """Write the table, and return notes on it, and its path.

        Raises:
            ExportError: The file cannot be written.
        """
        empty, no_runs = 0, self.table.no_runs

        def counted() -> Iterable[str]:
            nonlocal empty
            for one in runs:
                empty += one == NO_RUNS
                yield no_runs if one == NO_RUNS else one

        path = out / RLE_TABLE
        self.table.write(path, counted())
        count = plural(len(self.scenes), "image")
        notes = [f"{RLE_TABLE}: {count}, {empty:,} without a building, order: {self.order}"]
        if len(spec.classes) > 2:
            building = spec.classes[spec.building_class]
            notes.append(
                f"Only the class {building} is written: a table holds the masks of one class."
            )
        return notes, str(path)


def _listed(table: RleTable, scenes: Sequence[SceneInput]) -> list[SceneInput]:
    """Return the image of each row of a sample."""
    by_path = {scene.path: scene for scene in scenes}
    finder = ImageFinder((), list(by_path))
    rows: dict[Path, TableRow] = {}
    missing: list[str] = []
    for row in table.rows:
        name = table.image_id(row)
        image = finder.look(name, f"{table.name}, row {row.line},")
        if image is None:
            missing.append(f"{name} (row {row.line})")
            continue
        other = rows.setdefault(image, row)
        if other is not row:
            raise LayoutError(
                f"{table.name} lists {image} twice, in row {other.line} and row {row.line}.",
                remedy="Remove one of the rows.",
            )
    surplus = [str(path) for path in by_path if path not in rows]
    if not (missing or surplus):
        return [by_path[path] for path in rows]
    differences = []
    if missing:
        count = plural(len(table.rows), "image")
        listed = list_first(missing)
        differences.append(f"{len(missing)} of its {count} cannot be found: {listed}")
    if surplus:
        count = plural(len(surplus), "image is", "images are")
        differences.append(f"{count} not in it: {list_first(surplus)}")
    raise LayoutError(
        f"{table.name} does not fit the images: {'; '.join(differences)}.",
        remedy="Give the folder that holds exactly the images of the sample.",
    )


@dataclass(frozen=True)
class CocoOutput:
    """COCO results to write (https://cocodataset.org/#format-results).

    Args:
        ids: Each image, and its `image_id`.
        category: `category_id` of buildings.
    """

    path: Path
    ids: Sequence[tuple[SceneInput, Id]]
    category: Id = 1

    @classmethod
    def of(cls, scenes: Sequence[SceneInput], out: Path, sample: Path | None = None) -> CocoOutput:
        """Return the results for some images, checked before the work.

        Args:
            scenes: Images with distinct names.
            sample: COCO file that numbers images and categories; default: an image's number in its
                name, or its name, and category 1.
        """
        path = out / COCO_RESULTS
        check_outputs([path], [sample, *(scene.path for scene in scenes)])
        outline_rle(shapely.box(0, 0, 1, 1), (1, 1))
        if sample is None:
            names = [(scene, scene.name) for scene in scenes]
            return cls(path, [(scene, int(n) if n.isdecimal() else n) for scene, n in names])
        images, categories = read_ids(sample)
        finder = ImageFinder((), [scene.path for scene in scenes])
        ids = {finder.look(name, str(sample)): number for name, number in images.items()}
        missing = [str(scene.path) for scene in scenes if scene.path not in ids]
        if missing:
            raise LayoutError(
                f"{sample} lacks {plural(len(missing), 'image')} of {len(scenes)}: "
                f"{list_first(missing)}.",
                remedy="Give the folder that holds the images of the sample.",
            )
        named = [one for name, one in categories.items() if name.casefold() in BUILDING_NAMES]
        buildings = named or [*categories.values()]
        if len(buildings) != 1:
            raise ConfigError(
                f"{sample} has the categories {', '.join(categories) or 'none'}; expected one "
                "that is called building.",
                remedy="Rename the category of buildings.",
            )
        return cls(path, [(scene, ids[scene.path]) for scene in scenes], buildings[0])

    def write(self, report: RunReport) -> RunReport:
        """Write the results of all images from their polygons."""
        files: Mapping[str, str | None] = {one.input: one.polygons for one in report.outputs}
        results = []
        for scene, image in self.ids:
            polygons, grid = files[scene.shown], scene.source.grid
            assert polygons is not None
            results += [
                {
                    "image_id": image,
                    "category_id": self.category,
                    "segmentation": outline_rle(outline, grid.shape),
                    "score": float(score),
                }
                for outline, score in _scored_outlines(Path(polygons), grid)
            ]
        write_json(self.path, results)
        count = plural(len(results), "building")
        note = f"{COCO_RESULTS}: {count} in {plural(len(self.ids), 'image')}"
        return replace(report, table=str(self.path), notes=(*report.notes, note))


def _scored_outlines(path: Path, grid: GeoGrid) -> Iterator[tuple[shapely.Geometry, Any]]:
    """Yield the buildings of an image in its pixels, with their scores; some are in memory."""
    file = VectorFile(path)
    if "score" not in file.fields:  # a GeoJSON without features has no attributes
        return
    if grid.crs is None:
        outlines, _, values, _ = file.columns(["score"], buildings=True)
        yield from zip(outlines, values["score"])
        return
    for layer in file.chunks(["score"], buildings=True):
        yield from zip(in_pixels(layer.geometry, layer.crs, grid), layer.values["score"])
