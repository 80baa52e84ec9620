"""Labels without imagery: masks, polygons or a table with which predictions are compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS

from rooftrace.core.config import expand_path
from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError
from rooftrace.core.text import plural
from rooftrace.core.types import GeoGrid, Scene
from rooftrace.flows.evaluate.external.files import PredictionFiles, match_scene_names, plain_name
from rooftrace.io.raster import open_raster
from rooftrace.io.remote_raster import open_image
from rooftrace.io.reproject import (
    bounds_of,
    degrees_text,
    joint_bounds,
    outline_bounds,
    outline_boxes,
    reprojected,
)
from rooftrace.io.sources import BlankSource
from rooftrace.io.vector_read import is_vector_file
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.folders import IMAGES, select
from rooftrace.labels.footprints import out_of_reach
from rooftrace.labels.kinds import open_source
from rooftrace.labels.mask_values import LabelFile, LabelRule
from rooftrace.labels.rle.codec import Bounds, Order, is_empty
from rooftrace.labels.rle.order import MOST_SCENES, deduce_order, doubt_size, scenes_with_runs
from rooftrace.labels.rle.source import RunsLabel
from rooftrace.labels.rle.table import RleTable, is_table
from rooftrace.labels.shapes import LayerFile
from rooftrace.labels.source import SceneEntry, SceneSet

_LONLAT = CRS.from_epsg(4326)
_MAX_PX = 2**30
"""Maximum number of pixels of a grid made for polygons; a larger one would hardly fit into
memory."""

_MARGIN_PX = 8
"""Margin in pixels around polygons on such a grid; outlines cut by the edge of a grid do
not count."""

_NO_IMAGERY = ("glob", "chip_px", "label_shift_px", "min_built_up", "max_built_up", "nodata")
"""Fields of `SourceConfig` without a meaning where there is no imagery."""


def open_truth(
    config: SourceConfig,
    labels: LabelConfig | None,
    predictions: Sequence[PredictionFiles],
    size_yx: tuple[int, int] | None = None,
) -> SceneSet:
    """Open labels with their imagery as `open_source` does, or without imagery.

    Without imagery, a mask has its own size. Polygons are drawn on the grid of the predicted
    rasters, or on a grid of `gsd_m` where there are none. The masks of a table have `size_yx`, or
    the size of the predicted raster of the same name.

    Args:
        config: Location of the labels, and how they are read.
        labels: Meaning of the labels, unless `config` gives it; None: buildings, unless a card of
            the data gives it.
        predictions: Predictions to compare.
        size_yx: Rows and columns of the images of a table.

    Raises:
        ConfigError: An option has no use for such labels.
        DataError and its kinds: See `open_source`; or the grid of the labels is unknown.
    """
    path = expand_path(config.path, Path(), key="path")
    meant = config.labels or labels or LabelConfig()
    table = path.is_file() and is_table(path)
    if size_yx is not None and not table:
        raise ConfigError(
            f"--size was given, but {path} is no table of run lengths.",
            remedy="Leave it out; other labels have their own size.",
        )
    if size_yx is not None:
        return _table(path, config, meant, predictions, size_yx)
    polygons = path.is_file() and is_vector_file(path) and config.images is None
    try:
        source = open_source(config, labels)
    except DataError as error:
        if polygons and any(found.rasters or found.vectors for found in predictions):
            return _polygons(path, config, meant, predictions)
        if type(error) is not DataError or not (table and predictions):
            raise
        if any(found.rasters for found in predictions):
            return _table(path, config, meant, predictions, None)
        raise DataError(
            error.message,
            remedy="Give the images with --images or, if there are none, their size with --size "
            "ROWSxCOLUMNS.",
        ) from error
    if polygons and _are_predictions(source, predictions):
        return _polygons(path, config, meant, predictions)
    if source.kind == IMAGES.name and not source.entries and predictions:
        return _masks(source, config, meant)
    return source


def has_imagery(source: SceneSet) -> bool:
    """Return True if there are images that a model can predict."""
    return not isinstance(source.open_scene, _OpenWithoutImage)


@dataclass(frozen=True)
class _OpenWithoutImage:
    """Function that opens an entry as a scene on a blank image."""

    gsd_m: float | None

    def __call__(self, entry: SceneEntry) -> Scene:
        grid = self.grid(entry)
        image = BlankSource(grid, entry.id)
        return Scene(
            entry.id, image, self.label(entry, grid), entry.group, self.gsd_m or grid.gsd_m
        )

    def grid(self, entry: SceneEntry) -> GeoGrid:
        raise NotImplementedError

    def label(self, entry: SceneEntry, grid: GeoGrid) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class _OpenMask(_OpenWithoutImage):
    """Opener of masks; the key of an entry is the mask."""

    rule: LabelRule

    def grid(self, entry: SceneEntry) -> GeoGrid:
        return open_image(entry.key).grid

    def label(self, entry: SceneEntry, grid: GeoGrid) -> LabelFile:
        return LabelFile(entry.key, self.rule, grid, entry.id)


@dataclass(frozen=True)
class _OpenRuns(_OpenWithoutImage):
    """Opener of run lengths; the key of an entry is the size and the cells of its rows."""

    order: Order
    building_class: int

    def grid(self, entry: SceneEntry) -> GeoGrid:
        return GeoGrid(entry.key[0])

    def label(self, entry: SceneEntry, grid: GeoGrid) -> RunsLabel:
        return RunsLabel(entry.key[1], self.order, self.building_class, grid)


@dataclass(frozen=True)
class _OpenDrawn(_OpenWithoutImage):
    """Opener of polygons; the key of an entry is the grid."""

    file: LayerFile

    def grid(self, entry: SceneEntry) -> GeoGrid:
        grid: GeoGrid = entry.key
        return grid

    def label(self, entry: SceneEntry, grid: GeoGrid) -> Any:
        return self.file.label(grid)


def _masks(source: SceneSet, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Open images without labels as labels."""
    _check_options(config, "glob", "part")
    entries = tuple(replace(entry, image=None, key=entry.image) for entry in source.unlabelled)
    note = f"{config.path} holds no labels beside images: its {len(entries)} rasters are labels."
    return replace(
        source, kind="masks", entries=entries, unlabelled=(), reading="masks without images",
        open_scene=_OpenMask(config.gsd_m, labels.rule()), notes=(*source.notes, note),
    )  # fmt: skip


def _table(
    path: Path,
    config: SourceConfig,
    labels: LabelConfig,
    predictions: Sequence[PredictionFiles],
    size_yx: tuple[int, int] | None,
) -> SceneSet:
    _check_options(config, "part", "order")
    table = RleTable.read(path)
    cells = table.cells()
    ids = {name: plain_name(name) for name in cells}
    if len(set(ids.values())) < len(ids):
        ids = {name: name for name in cells}
    sizes = _raster_sizes(list(ids.values()), predictions) if size_yx is None else {}
    entries = [
        SceneEntry(one, None, one.rpartition("/")[0], (size_yx or sizes[one], cells[name]))
        for name, one in ids.items()
    ]
    kept = select(sorted(entries, key=lambda entry: entry.id), config.part)
    opener = _OpenRuns(config.gsd_m, config.order or "row", labels.building_class)
    drawn = [one for one in kept if not all(is_empty(text) for _, text in one.key[1])]
    spread = sorted({i * len(drawn) // MOST_SCENES for i in range(MOST_SCENES)}) if drawn else []
    some = [drawn[index] for index in spread]
    scenes = list(scenes_with_runs(some, opener, lambda entry: entry.key[1]))
    notes: list[str] = []
    if config.order is None:
        opener, notes = _ordered(table, scenes, opener, is_empty_table=not drawn)
    if size_yx is not None:
        masks = [bounds for _, bounds in scenes]
        if doubt := doubt_size(masks, size_yx, opener.order):
            notes.append(f"{path}: the size {size_yx[0]}x{size_yx[1]} is probably wrong. {doubt}")
    return SceneSet(
        name=config.name or path.stem,
        kind="rle",
        classes=labels.classes,
        building_class=labels.building_class,
        entries=kept,
        open_scene=opener,
        reading=f"{len(table.rows)} rows without images",
        notes=tuple(notes),
    )


def _raster_sizes(
    ids: Sequence[str], predictions: Sequence[PredictionFiles]
) -> dict[str, tuple[int, int]]:
    """Return rows and columns of each image of a table, from the first predicted rasters."""
    found = next(one for one in predictions if one.rasters)
    names = found.names(found.rasters)
    matched = match_scene_names(ids, names, str(found.path))
    matched.check(str(found.path), len(names), chosen=True)
    return {name: open_raster(found.rasters[at]).grid.shape for name, at in matched.number.items()}


def _ordered(
    table: RleTable,
    scenes: Sequence[tuple[Scene, Bounds]],
    opener: _OpenRuns,
    *,
    is_empty_table: bool,
) -> tuple[_OpenRuns, list[str]]:
    if is_empty_table:
        return replace(opener, order=table.columns.custom or "row"), []
    order, note = deduce_order(table, scenes, "Give it with --set order=row or --set order=column.")
    return replace(opener, order=order), [note]


def _are_predictions(source: SceneSet, predictions: Sequence[PredictionFiles]) -> bool:
    """Return True if the images beside polygons are the predictions themselves."""
    predicted = {file.resolve() for found in predictions for file in found.rasters}
    return any(entry.image and entry.image.resolve() in predicted for entry in source.entries)


def _polygons(
    path: Path, config: SourceConfig, labels: LabelConfig, predictions: Sequence[PredictionFiles]
) -> SceneSet:
    _check_options(config, "part", "field")
    file = LayerFile.of(path, labels, config.field)
    layer = file.load()
    found = next((one for one in predictions if one.rasters), None)
    if found is None:
        grids = {path.stem: _utm_grid(path, file, config.gsd_m)}
        place = f"a grid of {config.gsd_m:g} m around the labelled polygons"
    else:
        grids = {
            name: open_image(raster).grid
            for name, raster in zip(found.names(found.rasters), found.rasters)
        }
        place = f"the grid of the rasters of {found.path}"
        nowhere = [name for name, grid in grids.items() if grid.crs is None]
        if nowhere:
            raise GeoreferenceError(
                f"{path} is polygons on the ground, but the prediction {nowhere[0]} of "
                f"{found.path} has no georeference, so the polygons cannot be drawn on it.",
                remedy="Give predictions with a georeference, or the images with --images.",
            )
    reached: set[int] = set()
    bounds = []
    for grid in grids.values():
        reached.update(layer.tree.query(outline_boxes(grid, layer.crs))[1].tolist())
        degrees = outline_bounds(grid, _LONLAT)
        bounds += [] if degrees is None else [degrees]
    if len(layer) and not reached:
        raise out_of_reach(path, layer, bounds, "predictions")
    notes = [f"There is no imagery: labels are compared on {place}."]
    outside = len(layer) - len(reached)
    if outside:
        notes.append(
            f"{outside:,} of {len(layer):,} polygons of {path} lie outside of it and are left out."
        )
    entries = tuple(SceneEntry(name, None, "", grid) for name, grid in sorted(grids.items()))
    return SceneSet(
        name=config.name or path.stem,
        kind="footprints",
        classes=labels.classes,
        building_class=labels.building_class,
        entries=select(entries, config.part),
        open_scene=_OpenDrawn(config.gsd_m if found is not None else None, file),
        reading=f"{plural(len(layer), 'footprint')} in {layer.crs.name}, without images",
        notes=(*layer.notes, *notes),
    )


def _utm_grid(path: Path, file: LayerFile, gsd_m: float | None) -> GeoGrid:
    """Return a grid of square pixels around polygons, in their UTM zone."""
    if gsd_m is None:
        raise ConfigError(
            f"{path} and the predictions are polygons, and the size of a pixel is unknown.",
            remedy="Give the metres per pixel for the comparison: --gsd 0.3",
        )
    layer = file.load()
    if not len(layer):
        raise DataError(
            f"{path} holds no polygon, and there is no imagery that would show the covered area.",
            remedy="Give the images with --images.",
        )
    bounds = joint_bounds(bounds_of(layer.geometry, layer.crs), layer.crs)
    corners = reprojected(np.array([shapely.box(*bounds)], np.object_), layer.crs, _LONLAT, 1e-3)
    west, south, east, north = bounds_of(corners, _LONLAT)[0].tolist()
    lon, lat = (west + east) / 2, (south + north) / 2
    if not (math.isfinite(lon) and abs(lat) < 84 and east - west < 6):
        where = degrees_text(layer.bounds_xy, layer.crs)
        raise GeoreferenceError(
            f"{path} covers {where}, which is too large for one grid of pixels.",
            remedy="Evaluate it region by region.",
        )
    crs = CRS.from_epsg((32600 if lat >= 0 else 32700) + int((lon + 180) // 6) % 60 + 1)
    placed = reprojected(layer.geometry, layer.crs, crs, gsd_m / 10)
    left, bottom, right, top = shapely.total_bounds(placed).tolist()
    left = (math.floor(left / gsd_m) - _MARGIN_PX) * gsd_m
    top = (math.ceil(top / gsd_m) + _MARGIN_PX) * gsd_m
    shape = (
        math.ceil((top - bottom) / gsd_m) + _MARGIN_PX,
        math.ceil((right - left) / gsd_m) + _MARGIN_PX,
    )
    if shape[0] * shape[1] > _MAX_PX:
        raise ConfigError(
            f"{path} would be {shape[0]:,} × {shape[1]:,} pixels of {gsd_m:g} m; at most "
            f"{_MAX_PX:,} in all were expected.",
            remedy="Give a larger --gsd, or evaluate it region by region.",
        )
    return GeoGrid(shape, Affine(gsd_m, 0, left, 0, -gsd_m, top), crs)


def _check_options(config: SourceConfig, *taken: str) -> None:
    """Raise an error for options that would be ignored."""
    for name in (*_NO_IMAGERY, "part", "order", "field", "layout", "annotator", "zoom"):
        default = SourceConfig.model_fields[name].default
        if name not in taken and getattr(config, name) != default:
            raise ConfigError(
                f"The option {name} was given, but {config.path} is labels without imagery, "
                "which do not use it.",
                remedy="Leave it out, or give the images with --images.",
            )
