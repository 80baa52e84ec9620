"""Labelled data as a table of run lengths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rooftrace.core.errors import ConfigError, LabelError
from rooftrace.core.types import Scene
from rooftrace.data.images import image_name, relative_name, write_image
from rooftrace.data.rle.table import ROW_TABLE, Columns, RleTable, Row
from rooftrace.data.runs import encode_runs
from rooftrace.data.source import Entry, Progress, SceneSet, WriteOptions, Written
from rooftrace.io.raster import RasterFile

__all__ = ["write_rle"]


def write_rle(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> Written:
    """One row for each scene, with the runs of its buildings; `-1` where it has none.

    Raises:
        ConfigError: `out` does not end in `.csv`, or the columns are not those of such a table.
        DataError, ExportError: a scene cannot be read, or a file not be written.
    """
    if out.suffix.lower() != ".csv":
        raise ConfigError(
            f"A table of run lengths is one file, but {out} does not end in .csv.",
            remedy=f"Write -o {out / 'masks.csv'}.",
        )
    columns = _columns(options.columns or ROW_TABLE)
    order = options.order or columns.custom or "row"
    told = _Told(options, columns)
    rows = []
    for number, (entry, scene) in enumerate(zip(source.entries, source)):
        assert scene.label is not None
        mask = scene.label.read()
        told.see(entry, scene, bool(mask.valid.all()))
        cells = [""] * len(columns.header)
        cells[columns.runs] = encode_runs((mask.data == source.building_class) & mask.valid, order)
        image = entry.image
        if image is None or options.images == "copy":
            folder = out.with_name(f"{out.stem}_images")
            image = write_image(scene.image, entry.image, folder, image_name(entry.id))
        if columns.id is not None:
            copied = image != entry.image and columns.path is None
            cells[columns.id] = image_name(entry.id) if copied else entry.id
        if columns.path is not None:
            cells[columns.path] = relative_name(image, out.parent)
        rows.append(Row(number + 2, tuple(cells)))
        if progress is not None:
            progress(number + 1, len(source))
    RleTable(columns, tuple(rows), name=str(out)).write(out)
    notes = list(told.notes())
    if order != columns.custom:
        notes.append(f"Runs go by {order}; say so when it is read: order = {order}.")
    if len(source.classes) > 2:
        building = source.classes[source.building_class]
        notes.append(f"Only {building} is written: a table holds the masks of one class.")
    return Written(out, len(rows), tuple(notes))


def _columns(names: tuple[str, ...]) -> Columns:
    try:
        columns = Columns.of(names, "The table to write")
    except LabelError as error:
        raise ConfigError(error.message, remedy=error.remedy) from error
    if columns.extra:
        raise ConfigError(
            f"Nothing is known to write into the columns {', '.join(columns.extra)}.",
            remedy="Leave them out.",
        )
    return columns


class _Told:
    """What a table cannot hold, gathered from the scenes."""

    def __init__(self, options: WriteOptions, columns: Columns) -> None:
        self._by_name = options.images == "refer" and columns.path is None
        self._refer = options.images == "refer"
        self._unknown = 0
        self._gsds_m: set[float] = set()
        self._by_rule = False

    def see(self, entry: Entry, scene: Scene, all_known: bool) -> None:
        self._unknown += not all_known
        if scene.gsd_m is not None and scene.image.grid.crs is None:
            self._gsds_m.add(scene.gsd_m)
        if self._refer and entry.image is not None and isinstance(scene.image, RasterFile):
            self._by_rule |= not scene.image.says_all

    def notes(self) -> Iterator[str]:
        if self._unknown:
            yield f"{self._unknown} masks have unknown pixels, which a table calls background."
        if self._gsds_m:
            told = ", ".join(f"{gsd_m:g}" for gsd_m in sorted(self._gsds_m))
            yield f"Metres per pixel ({told}) must be said again: --gsd."
        if self._by_rule:
            yield "What is nodata in the images by rule must be said again: --nodata."
        if self._by_name:
            yield "The table has no paths: say where its images lie when it is read, with images."
