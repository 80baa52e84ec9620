"""Tables of run lengths with their images, as labelled data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from rooftrace.core.config import expand_path
from rooftrace.core.errors import LabelError, LayoutError, RooftraceError
from rooftrace.core.types import GeoGrid, Mask, Scene, Window
from rooftrace.data.config import LabelConfig, SourceConfig, nodata_rule
from rooftrace.data.images import open_image
from rooftrace.data.rle.images import find_images
from rooftrace.data.rle.order import LOOKED_AT, gather
from rooftrace.data.rle.pictures import write_pictures
from rooftrace.data.rle.table import RleTable, is_table
from rooftrace.data.rle.write import write_rle
from rooftrace.data.runs import Bounds, Order, draw_runs, is_empty, parse_runs
from rooftrace.data.source import Entry, SceneSet, SourceKind
from rooftrace.io.raster import NodataRule

__all__ = ["RLE", "RunsLabel", "told_order"]

_ADVERB = {"row": "along rows", "column": "down columns"}

Cells = tuple[tuple[str, str], ...]
"""Of each row of an image: what errors call it, and the text of its runs."""


class RunsLabel:
    """The `LabelReader` of run lengths; several rows add up.

    Args:
        cells: of the image.
        order: of the runs.
        class_index: of what is in a run.
        grid: of the image.
    """

    def __init__(self, cells: Cells, order: Order, class_index: int, grid: GeoGrid) -> None:
        self.cells = cells
        self.order = order
        self.class_index = class_index
        self.grid = grid

    def read(self, window: Window | None = None) -> Mask:
        """The classes inside `window` (default all).

        Raises:
            LabelError: see `data.runs.parse_runs`.
        """
        window = window or Window.whole(self.grid.shape)
        drawn = np.zeros(window.shape_yx, dtype=np.bool_)
        for bounds in self._bounds:
            drawn |= draw_runs(bounds, self.grid.shape, self.order, window)
        data = drawn.view(np.uint8) * np.uint8(self.class_index)
        return Mask(data, np.ones_like(drawn), self.grid.crop(window))

    @cached_property
    def _bounds(self) -> list[Bounds]:
        return [parse_runs(text, self.grid.shape, where=where) for where, text in self.cells]


@dataclass(frozen=True)
class _OpenRow:
    """From an entry whose key is its cells to its scene."""

    order: Order
    class_index: int
    nodata: NodataRule
    gsd_m: float | None

    def __call__(self, entry: Entry) -> Scene:
        assert entry.image is not None
        image = open_image(entry.image, nodata=self.nodata)
        label = RunsLabel(entry.key, self.order, self.class_index, image.grid)
        return Scene(entry.id, image, label, entry.group, self.gsd_m or image.grid.gsd_m)


def _recognises(path: Path) -> bool:
    return bool(_tables_in(path)) if path.is_dir() else is_table(path)


def _read(path: Path, config: SourceConfig, labels: LabelConfig, base: Path) -> SceneSet:
    """A table, or a folder that holds one. Runs are decoded when their scene is read.

    Raises:
        LabelError: what is no table; or the order of the runs is neither said nor to be told.
        DataError, LayoutError: see `data.rle.images.find_images`.
    """
    path = _one_table(path)
    table = RleTable.read(path)
    folder = None if config.images is None else expand_path(config.images, base, key="images")
    images = find_images(table, path, folder)
    entries = _entries(table, images)
    opener = _OpenRow(
        config.order or "row", labels.building_class, nodata_rule(config.nodata), config.gsd_m
    )
    notes = []
    if table.columns.extra:
        notes.append(f"{path}: not read: the columns {', '.join(table.columns.extra)}.")
    drawn = [entry for entry in entries if not all(is_empty(text) for _, text in entry.key)]
    if entries and not drawn:
        notes.append(f"All {len(entries)} masks of {path} are empty.")
    if config.order is None and drawn:
        order, note = _deduce(table, drawn, opener)
        opener = _OpenRow(order, opener.class_index, opener.nodata, opener.gsd_m)
        notes.append(note)
    return SceneSet(
        name=config.name or path.stem,
        kind=RLE.name,
        classes=labels.classes,
        building_class=labels.building_class,
        entries=entries,
        open_scene=opener,
        share=config.share,
        reading=f"{len(table.rows)} rows, runs {_ADVERB[opener.order]}",
        notes=tuple(notes),
    )


def _one_table(path: Path) -> Path:
    if not path.is_dir():
        return path
    tables = _tables_in(path)
    if len(tables) == 1:
        return tables[0]
    found = ", ".join(table.name for table in tables) or "none"
    raise LayoutError(
        f"{path} is a folder; one table of run lengths was expected in it, and there is {found}.",
        remedy="Name the table itself.",
    )


def _tables_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.csv") if is_table(path))


def _entries(table: RleTable, images: dict[str, Path]) -> tuple[Entry, ...]:
    """One for each image, all of its rows together; ids lose the ending where that will do."""
    cells: dict[str, list[tuple[str, str]]] = {}
    for row in table.rows:
        cells.setdefault(table.image_id(row), []).append((table.where(row), table.runs(row)))
    plain = _below if table.columns.id is None else str
    ids = [plain(name.removesuffix(images[name].suffix)) for name in cells]
    if len(set(ids)) < len(ids):
        ids = list(cells)
    entries = (
        Entry(scene_id, images[name], scene_id.rpartition("/")[0], tuple(cells[name]))
        for scene_id, name in zip(ids, cells)
    )
    return tuple(sorted(entries, key=lambda entry: entry.id))


def _below(name: str) -> str:
    """A path as an id: without what leads to its place."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return "/".join(part for part in parts if part not in ("/", ".."))


def _deduce(table: RleTable, drawn: Sequence[Entry], opener: _OpenRow) -> tuple[Order, str]:
    """The order of a table that does not say it, and a note of where it was taken from."""
    spread = sorted({i * len(drawn) // LOOKED_AT for i in range(LOOKED_AT)})
    return told_order(table, list(_readable([drawn[index] for index in spread], opener)))


def told_order(
    table: RleTable,
    scenes: Sequence[tuple[Scene, Bounds]],
    remedy: str = "Say which it is: order = row, or order = column.",
) -> tuple[Order, str]:
    """The order of a table's runs by its columns and by scenes of it, and a note of which it was.

    Args:
        scenes: with their runs; see `data.rle.order.gather`.
        remedy: how the person says it.

    Raises:
        LabelError: it is not to be told.
    """
    evidence = gather(scenes)
    custom = table.columns.custom
    if evidence.proven is not None:
        note = f"{table.name}: runs go {_ADVERB[evidence.proven]}: {evidence.reason}."
        if custom not in (None, evidence.proven):
            note += f" With such columns they mostly go {_ADVERB[custom]}."
        return evidence.proven, note
    if custom is not None and evidence.leaning in (None, custom):
        return custom, (
            f"{table.name}: runs are taken to go {_ADVERB[custom]}, as in most tables with the "
            f"column {table.columns.header[table.columns.runs]}; the data does not prove it "
            f"({evidence.reason})."
        )
    against = f", although {evidence.reason}" if evidence.leaning else f": {evidence.reason}"
    expected = f"are expected to go {_ADVERB[custom]}" if custom else "may go either way"
    told = f"The runs of {table.name} {expected}{against}."
    if not scenes:
        raise LabelError(told, remedy=remedy)
    pictures = write_pictures(scenes)
    raise LabelError(
        f"{told} The masks read along rows: {pictures['row']}; down columns: {pictures['column']}.",
        remedy=f"Look at both. {remedy}",
    )


def _readable(entries: Sequence[Entry], opener: _OpenRow) -> Iterator[tuple[Scene, Bounds]]:
    """Scenes with the runs of their first row that has any; what is broken is told elsewhere."""
    for entry in entries:
        try:
            scene = opener(entry)
            where, text = next(cell for cell in entry.key if not is_empty(cell[1]))
            yield scene, parse_runs(text, scene.image.grid.shape, where=where)
        except RooftraceError:
            continue


RLE = SourceKind(
    "rle",
    "tables of run lengths (CSV)",
    _recognises,
    _read,
    write_rle,
    frozenset({"images", "order", "columns"}),
)
