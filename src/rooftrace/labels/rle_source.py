"""Read labelled data from tables of run lengths, and write it as one.

`deduce_order` finds what a table does not state: whether its runs go along rows or down columns. If
an image is not square, the runs prove it by themselves. Buildings are compact, so a mask hardly
changes from one line of pixels to the next; cut into lines of the wrong length it shears.

If an image is square, they cannot: read in the other order, any mask is its own transpose. There
the image decides: a building's outline lies where the image changes; that of the transpose lies
anywhere. One image may mislead by chance, so a sign test over many images is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import comb
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, LabelError, LayoutError, RooftraceError
from rooftrace.core.text import plural, set_option
from rooftrace.core.types import BoolArray, GeoGrid, Mask, Progress, RasterSource, Scene, Window
from rooftrace.io.files import relative_name
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.image_files import LabelFileImages, SceneOpener, check_single_file, image_name
from rooftrace.labels.label_files import ImageFinder
from rooftrace.labels.rle import (
    ROW_TABLE,
    Bounds,
    Order,
    RleTable,
    TableColumns,
    TableRow,
    draw_runs,
    encode_runs,
    is_empty,
    is_table,
    parse_runs,
)
from rooftrace.labels.source import (
    SceneEntry,
    SceneSet,
    SourceKind,
    WriteOptions,
    WriteResult,
    place_of,
)


def _find_images(table: RleTable, path: Path, folder: Path | None) -> dict[str, Path]:
    """Find the image of each id of a table, without opening images.

    If the table has a column of paths, they are followed from `folder` or from the table's folder.
    Otherwise the names are looked for there and in subfolders, with any suffix.
    """
    if folder is not None and not folder.is_dir():
        raise LayoutError(
            f"{folder}, given as the folder of the images of {path}, is not a folder.",
            remedy="Correct images, or leave it out if they lie beside the table.",
        )
    column = table.columns.path
    finder = ImageFinder.beside(path, folder, path.parent if column is None else None)
    found: dict[str, Path] = {}
    names: dict[Path, str] = {}
    for row in table.rows:
        name = table.image_id(row)
        if name in found and column is None:
            continue
        where = f"{path}, row {row.line}"
        image = finder.find(name if column is None else row.cells[column].strip(), where)
        if found.setdefault(name, image) != image:
            raise LayoutError(
                f"{where}: the image {name!r} is {image}, but {found[name]} in an earlier row.",
                remedy="Give an image one path, and each image its own name.",
            )
        if names.setdefault(image, name) != name:
            raise LayoutError(
                f"{path} calls the image {image} both {names[image]!r} and {name!r}.",
                remedy="Use one name for an image in all of its rows.",
            )
    return found


def _write_rle(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> WriteResult:
    """Write one row for each scene, with the runs of its buildings; `-1` if it has none."""
    check_single_file(out, "A table of run lengths is", "masks.csv")
    columns = _columns(options.columns or ROW_TABLE)
    order = options.order or columns.custom or "row"
    files = LabelFileImages(out, options)
    unknown = 0
    rows = []
    for number, (entry, scene) in enumerate(source.opened(progress)):
        assert scene.label is not None
        mask = scene.label.read()
        unknown += not mask.valid.all()
        cells = [""] * len(columns.header)
        cells[columns.runs] = encode_runs((mask.data == source.building_class) & mask.valid, order)
        image = files.path_of(entry, scene)
        if columns.id is not None:
            copied = image != entry.image and columns.path is None
            cells[columns.id] = image_name(entry.id) if copied else entry.id
        if columns.path is not None:
            cells[columns.path] = relative_name(image, out.parent)
        rows.append(TableRow(number + 2, tuple(cells)))
    RleTable(columns, tuple(rows), name=str(out)).write(out)
    notes = []
    if unknown:
        notes.append(f"Unknown pixels become background in a table: {plural(unknown, 'mask')}.")
    notes += files.notes
    if options.images == "refer" and columns.path is None:
        notes.append("The table has no paths: when reading it, give the folder of its images.")
    if order != columns.custom:
        notes.append(
            f"Runs go {DIRECTION[order]}; read the table with {set_option('order', order)}."
        )
    if len(source.classes) > 2:
        building = source.classes[source.building_class]
        notes.append(f"Only the class {building} is written: a table holds the masks of one class.")
    return WriteResult(out, len(rows), tuple(notes))


def _columns(names: tuple[str, ...]) -> TableColumns:
    try:
        columns = TableColumns.of(names, "The table to write")
    except LabelError as error:
        raise ConfigError(error.message, remedy=error.remedy) from error
    if columns.extra:
        raise ConfigError(
            f"There is nothing to write into the columns {', '.join(columns.extra)}.",
            remedy="Leave them out.",
        )
    return columns


@dataclass(frozen=True, eq=False)
class RunsLabel:
    """The `LabelReader` of run lengths; the mask is the union of all rows of an image.

    Args:
        order: Pixel order of the runs.
    """

    cells: Cells
    order: Order
    class_index: int
    grid: GeoGrid

    def read(self, window: Window | None = None) -> Mask:
        window = window or Window.whole(self.grid.shape)
        drawn = np.zeros(window.shape_yx, dtype=np.bool_)
        for bounds in self._bounds:
            drawn |= draw_runs(bounds, self.grid.shape, self.order, window)
        data = drawn.view(np.uint8) * np.uint8(self.class_index)
        return Mask(data, np.ones_like(drawn), self.grid.crop(window))

    @cached_property
    def _bounds(self) -> list[Bounds]:
        return [parse_runs(text, self.grid.shape, where=where) for where, text in self.cells]


def _label_of(entry: SceneEntry, image: RasterSource, order: Order, class_index: int) -> RunsLabel:
    return RunsLabel(entry.key, order, class_index, image.grid)


def _read(path: Path, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Read a table, or a folder that holds one. Runs are decoded when their scene is read."""
    path = _one_table(path)
    table = RleTable.read(path)
    folder = None if config.images is None else Path(config.images)
    images = _find_images(table, path, folder)
    entries = _entries(table, images)
    notes = []
    if entries and all(is_empty(text) for entry in entries for _, text in entry.key):
        notes.append(f"Every mask of {path} is empty ({plural(len(entries), 'mask')}).")
    order: Order = config.order or "row"
    read_label = partial(_label_of, class_index=labels.building_class)
    if config.order is None:
        opener = SceneOpener(config, partial(read_label, order=order))
        order, note = deduce_order(table, {one.id: one.key for one in entries}, entries, opener)
        notes += [note] if note else []
    return SceneSet.of(
        RLE.name, path, config, labels, entries,
        SceneOpener(config, partial(read_label, order=order)),
        reading=f"{len(table.rows)} rows, runs {DIRECTION[order]}", notes=notes, label_file=path,
    )  # fmt: skip


def _one_table(path: Path) -> Path:
    if not path.is_dir():
        return path
    tables = _tables_in(path)
    if len(tables) == 1:
        return tables[0]
    found = ", ".join(table.name for table in tables) or "none"
    raise LayoutError(
        f"{path} is a folder; expected one table of run lengths in it, found {found}.",
        remedy="Name the table itself.",
    )


def _tables_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.csv") if is_table(path))


def _entries(table: RleTable, images: dict[str, Path]) -> tuple[SceneEntry, ...]:
    """Return one entry for each image, with all its rows; ids drop the suffix if still unique."""
    cells = table.cells()
    plain = _path_as_id if table.columns.id is None else str
    ids = [plain(name.removesuffix(images[name].suffix)) for name in cells]
    if len(set(ids)) < len(ids):
        ids = [plain(name) for name in cells]
    entries = (
        SceneEntry(scene_id, images[name], place_of(scene_id), cells[name])
        for scene_id, name in zip(ids, cells)
    )
    return tuple(sorted(entries, key=lambda entry: entry.id))


def _path_as_id(name: str) -> str:
    """Return a path as an id, without root and parent steps."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return "/".join(part for part in parts if part not in ("/", ".."))


RLE = SourceKind(
    "rle",
    "tables of run lengths (CSV)",
    lambda path: bool(_tables_in(path)) if path.is_dir() else is_table(path),
    _read,
    _write_rle,
    frozenset({"images", "order", "columns"}),
)


Cells = tuple[tuple[str, str], ...]
"""Pairs (location for error messages, text of runs), one for each row of an image."""

DIRECTION: dict[Order, str] = {"row": "along rows", "column": "down columns"}
"""Description of each order."""

_MOST_SCENES = 64
"""Maximum number of scenes with a mask that are examined, spread over the table."""

_LEAST_RUNS = 50
"""Minimum number of runs in a mask that votes; with fewer, a single building might decide."""

_LEAST_RUNS_IN_ALL = 200
"""Minimum number of runs in all masks for a proof of the order."""

_LEAST_RATIO = 2.0
"""Minimum ratio of changes from line to line, wrong order to right order.

The ratio is 8 to 120 on real towns whose images are not square.
"""

_LEAST_OUTLINE_PX = 50
"""Minimum length in pixels of the outlines in a mask that votes."""

_PROOF = 1e-6
_DOUBT = 0.01
"""Probabilities of votes this uneven if the images said nothing.

Below `_PROOF` the votes prove the order; below `_DOUBT` they only cast doubt on the other order.
"""

_LARGEST_PX = 1024
"""Maximum side in pixels of the part of an image that is examined."""


def deduce_order(
    table: RleTable,
    cells: Mapping[str, Cells],
    entries: Sequence[SceneEntry],
    open_scene: Callable[[SceneEntry], Scene],
    remedy: str = "Say which it is: --set order=row, or --set order=column.",
) -> tuple[Order, str]:
    """Deduce the order of a table's runs from its columns and some of its scenes.

    Returns:
        The order, and a note that explains it; empty if no mask has a pixel.
    """
    custom = table.columns.custom
    drawn = [one for one in entries if not all(is_empty(text) for _, text in cells[one.id])]
    if not drawn:
        return custom or "row", ""
    # With more scenes, chance findings would be likelier.
    spread = sorted({index * len(drawn) // _MOST_SCENES for index in range(_MOST_SCENES)})
    leaning, is_proven, reason = _evidence([drawn[i] for i in spread], cells, open_scene)
    if leaning is not None and is_proven:
        note = f"{table.name}: runs go {DIRECTION[leaning]}: {reason}."
        if custom not in (None, leaning):
            note += f" In tables with these columns they usually go {DIRECTION[custom]}."
        return leaning, note
    if custom is not None and leaning in (None, custom):
        return custom, (
            f"{table.name}: runs are assumed to go {DIRECTION[custom]}, as in most tables with the "
            f"column {table.columns.header[table.columns.runs]}; the data does not prove it "
            f"({reason})."
        )
    against = f", although {reason}" if leaning else f": {reason}"
    expected = f"are expected to go {DIRECTION[custom]}" if custom else "may go either way"
    raise LabelError(f"The runs of {table.name} {expected}{against}.", remedy=remedy)


def _evidence(
    entries: Sequence[SceneEntry],
    cells: Mapping[str, Cells],
    open_scene: Callable[[SceneEntry], Scene],
) -> tuple[Order | None, bool, str]:
    """Return the order that fits better than by chance or None, whether that is proof, and why."""
    by_shape: list[int] = []
    by_image: list[int] = []
    runs = 0
    failed: RooftraceError | None = None
    for entry in entries:
        # A scene that cannot be read is skipped, unless none can be.
        try:
            scene = open_scene(entry)
            height, width = scene.image.grid.shape
            where, text = next(cell for cell in cells[entry.id] if not is_empty(cell[1]))
            bounds = parse_runs(text, (height, width), where=where)
            if height == width:
                by_image.append(_image_vote(bounds, scene))
                continue
            by_shape.append(_shape_vote(bounds, (height, width)))
            runs += len(bounds) if by_shape[-1] else 0
        except RooftraceError as error:
            failed = error
    if failed is not None and not (by_shape or by_image):
        raise failed
    votes = by_shape if any(by_shape) else by_image
    row, column = votes.count(1), votes.count(-1)
    count, most = row + column, max(row, column)
    fits: Order = "row" if row > column else "column"
    if any(by_shape):
        reason = f"{most} of {count} masks on images that are not square are compact only in {fits}"
        unanimous = most == count
        return fits if unanimous else None, runs >= _LEAST_RUNS_IN_ALL, f"{reason} order"
    if not count:
        return None, False, "no mask gives evidence of the order"
    reason = f"the outlines of {most} of {count} masks fit their images better in {fits} order"
    chance = 2 * sum(comb(count, k) for k in range(most, count + 1)) / 2**count
    return fits if chance < _DOUBT else None, chance < _PROOF, reason


def _shape_vote(bounds: Bounds, shape_yx: tuple[int, int]) -> int:
    """Return 1 if the mask is compact along rows, -1 if down columns, 0 if undecided."""
    if len(bounds) < _LEAST_RUNS:
        return 0
    height, width = shape_yx
    flat = draw_runs(bounds, shape_yx, "row").ravel()
    by_row = _share(flat[width:] != flat[:-width])
    by_column = _share(flat[height:] != flat[:-height])
    if by_column >= _LEAST_RATIO * by_row:
        return 1
    return -1 if by_row >= _LEAST_RATIO * by_column else 0


def _share(changes: BoolArray) -> float:
    return float(np.count_nonzero(changes) / max(changes.size, 1))


def _image_vote(bounds: Bounds, scene: Scene) -> int:
    """Return 1 if the outlines fit the image better along rows, -1 if down columns, else 0."""
    shape_yx = scene.image.grid.shape
    side = min(shape_yx[0], _LARGEST_PX)
    # The window lies on the diagonal, so the transpose shows the same part.
    first = (shape_yx[0] - side) // 2
    window = Window(first, first, side, side)
    by_row = draw_runs(bounds, shape_yx, "row", window)
    edges = [(mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]) for mask in (by_row, by_row.T)]
    if sum(map(np.count_nonzero, edges[0])) < _LEAST_OUTLINE_PX or np.array_equal(by_row, by_row.T):
        return 0
    raster = scene.image.read(window)
    known = raster.valid & raster.valid.T
    grey = raster.data[:3].astype(np.float32).mean(axis=0)
    grey = cv2.GaussianBlur(np.where(raster.valid, grey, np.float32(0)), (0, 0), 1.0)
    slopes = (
        np.abs(np.diff(grey, axis=0)) * (known[1:] & known[:-1]),
        np.abs(np.diff(grey, axis=1)) * (known[:, 1:] & known[:, :-1]),
    )
    row, column = (_mean_slope(slopes, outline) for outline in edges)
    return int(np.sign(row - column))


def _mean_slope(
    slopes: tuple[NDArray[np.float32], NDArray[np.float32]], edges: tuple[BoolArray, BoolArray]
) -> float:
    """Return the mean change of the image across the outline."""
    total = sum(float(slope[edge].sum(dtype=np.float64)) for slope, edge in zip(slopes, edges))
    return total / sum(int(np.count_nonzero(edge)) for edge in edges)
