"""Labels without imagery: masks or a table with which predictions are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pyproj import CRS

from rooftrace.core.config import expand_path
from rooftrace.core.errors import ConfigError, DataError, LayoutError
from rooftrace.core.types import GeoGrid, LabelReader, Scene
from rooftrace.flows.evaluate.prediction_names import plain_name
from rooftrace.io.georeferenced import BlankSource
from rooftrace.io.remote_raster import open_image
from rooftrace.io.vector_formats import is_vector_file
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.folders import IMAGES, select
from rooftrace.labels.kinds import open_source
from rooftrace.labels.mask_values import LabelFile
from rooftrace.labels.rle import Order, RleTable, is_table
from rooftrace.labels.rle_source import RunsLabel, deduce_order
from rooftrace.labels.source import SceneEntry, SceneSet

_LONLAT = CRS.from_epsg(4326)
_MAX_PX = 2**30
"""Maximum number of pixels of a grid made for polygons; a larger one would hardly fit into
memory."""

_MARGIN_PX = 8
"""Margin in pixels around polygons on such a grid; outlines cut by the edge of a grid do
not count."""

_NO_IMAGERY = (
    "glob", "chip_px", "label_shift_px", "nodata", "part", "order",
    "field", "layer", "layout", "annotator", "zoom",
)  # fmt: skip
"""Fields of `SourceConfig` that may have no meaning where there is no imagery."""


def open_truth(
    config: SourceConfig,
    labels: LabelConfig | None,
    *,
    accept_labels_alone: bool,
    size_yx: tuple[int, int] | None = None,
) -> SceneSet:
    """Open labels with their imagery as `open_source` does, or without imagery.

    Without imagery, a mask has its own size, and the masks of a table have `size_yx`.

    Args:
        config: Location of the labels, and how they are read.
        labels: Meaning of the labels, unless `config` gives it; None: buildings, unless a card of
            the data gives it.
        accept_labels_alone: False if labels need imagery.
        size_yx: Rows and columns of the images of a table of run lengths that has no images.

    Raises:
        ConfigError: An option has no use for such labels.
        DataError and its kinds: See `open_source`; or the grid of the labels is unknown.
    """
    path = expand_path(config.path, Path(), key="path")
    meaning = config.labels or labels or LabelConfig()
    if size_yx is not None:
        if not (path.is_file() and is_table(path)):
            raise ConfigError(
                f"--size was given, but {path} is no table of run lengths.",
                remedy="Leave it out; other labels have their own size.",
            )
        return _table(path, config, meaning, size_yx)
    try:
        source = open_source(config, labels)
    except DataError as error:
        if not accept_labels_alone or type(error) not in (DataError, LayoutError):
            raise
        if path.is_file() and is_table(path):
            remedy = (
                "Give the images with --images or, if there are none, their size with "
                "--size ROWSxCOLUMNS."
            )
        elif is_vector_file(path) and config.images is None:
            remedy = (
                "Give the images with --images; a predicted mask serves, too. Two layers of "
                "polygons without imagery: rooftrace compare NEW --reference MAP"
            )
        else:
            raise
        raise DataError(error.message, remedy=remedy) from error
    if source.kind == IMAGES.name and not source.entries and accept_labels_alone:
        return _masks(source, config, meaning)
    return source


def has_imagery(source: SceneSet) -> bool:
    """Return True if there are images that a model can predict."""
    return not isinstance(source.open_scene, _OpenWithoutImage)


@dataclass(frozen=True)
class _OpenWithoutImage:
    """Function that opens an entry as a scene on a blank image.

    Args:
        grid_of: Function that returns the grid of an entry.
        label_of: Function that returns the label of an entry on a grid.
        gsd_m: Metres per pixel; None for those of the grid.
    """

    grid_of: Callable[[SceneEntry], GeoGrid]
    label_of: Callable[[SceneEntry, GeoGrid], LabelReader]
    gsd_m: float | None = None

    def __call__(self, entry: SceneEntry) -> Scene:
        grid = self.grid_of(entry)
        image = BlankSource(grid, entry.id)
        label = self.label_of(entry, grid)
        return Scene(entry.id, image, label, entry.group, self.gsd_m or grid.gsd_m)


def _masks(source: SceneSet, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Open images without labels as labels."""
    _check_options(config, "glob", "part")
    entries = tuple(replace(entry, image=None, key=entry.image) for entry in source.unlabelled)
    note = f"{config.path} holds no labels beside images: its {len(entries)} rasters are labels."
    rule = labels.rule()
    opener = _OpenWithoutImage(
        lambda entry: open_image(entry.key).grid,
        lambda entry, grid: LabelFile(entry.key, rule, grid, entry.id),
        config.gsd_m,
    )
    return replace(
        source, kind="masks", entries=entries, unlabelled=(), reading="masks without images",
        open_scene=opener, notes=(*source.notes, note),
    )  # fmt: skip


def _table(
    path: Path, config: SourceConfig, labels: LabelConfig, size_yx: tuple[int, int]
) -> SceneSet:
    """Open a table of run lengths."""
    _check_options(config, "part", "order")
    table = RleTable.read(path)
    ids = {name: plain_name(name) for name in table.cells()}
    if len(set(ids.values())) < len(ids):
        ids = {name: name for name in ids}
    entries = [
        SceneEntry(ids[name], None, ids[name].rpartition("/")[0], cells)
        for name, cells in table.cells().items()
    ]
    kept = select(sorted(entries, key=lambda entry: entry.id), config.part)

    def opener(order: Order) -> _OpenWithoutImage:
        return _OpenWithoutImage(
            lambda _: GeoGrid(size_yx),
            lambda entry, grid: RunsLabel(entry.key, order, labels.building_class, grid),
            config.gsd_m,
        )

    order, note = config.order, ""
    if order is None:
        remedy = "Give it with --set order=row or --set order=column."
        cells = {entry.id: entry.key for entry in kept}
        order, note = deduce_order(table, cells, kept, opener("row"), remedy)
    return SceneSet(
        name=config.name or path.stem,
        kind="rle",
        classes=labels.classes,
        building_class=labels.building_class,
        entries=kept,
        open_scene=opener(order),
        reading=f"{len(table.rows)} rows without images",
        notes=(note,) if note else (),
    )


def _check_options(config: SourceConfig, *used: str) -> None:
    """Raise an error for options that would be ignored."""
    for name in _NO_IMAGERY:
        default = SourceConfig.model_fields[name].default
        if name not in used and getattr(config, name) != default:
            raise ConfigError(
                f"The option {name} was given, but {config.path} is labels without imagery, "
                "which do not use it.",
                remedy="Leave it out, or give the images with --images.",
            )
