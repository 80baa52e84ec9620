"""Labels without imagery: masks, polygons or a table with which predictions are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS

from rooftrace.core.config import expand_path
from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError, LayoutError
from rooftrace.core.text import plural
from rooftrace.core.types import GeoGrid, LabelReader, Scene
from rooftrace.flows.evaluate.prediction_names import PredictionFiles, plain_name
from rooftrace.io.georeferenced import BlankSource
from rooftrace.io.remote_raster import open_image
from rooftrace.io.reproject import (
    bounds_of,
    degrees_text,
    joint_bounds,
    outline_bounds,
    outline_boxes,
    reprojected,
)
from rooftrace.io.vector_formats import is_vector_file
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.folders import IMAGES, select
from rooftrace.labels.footprints import out_of_reach
from rooftrace.labels.kinds import open_source
from rooftrace.labels.mask_values import LabelFile
from rooftrace.labels.rle import Order, RleTable, is_table
from rooftrace.labels.rle_source import RunsLabel, deduce_order
from rooftrace.labels.shapes import LayerFile
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
    predictions: Sequence[PredictionFiles],
    size_yx: tuple[int, int] | None = None,
) -> SceneSet:
    """Open labels with their imagery as `open_source` does, or without imagery.

    Without imagery, a mask has its own size. Polygons are drawn on the grid of the predicted
    rasters, or on a grid of `gsd_m` where there are none. The masks of a table have `size_yx`.

    Args:
        config: Location of the labels, and how they are read.
        labels: Meaning of the labels, unless `config` gives it; None: buildings, unless a card of
            the data gives it.
        predictions: Predictions to compare.
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
    polygons = is_vector_file(path) and config.images is None
    try:
        source = open_source(config, labels)
    except DataError as error:
        if polygons and any(files.rasters or files.vectors for files in predictions):
            return _polygons(path, config, meaning, predictions)
        no_images = type(error) in (DataError, LayoutError)
        if no_images and predictions and path.is_file() and is_table(path):
            raise DataError(
                error.message,
                remedy="Give the images with --images or, if there are none, their size with "
                "--size ROWSxCOLUMNS.",
            ) from error
        raise
    if polygons and _are_predictions(source, predictions):
        return _polygons(path, config, meaning, predictions)
    if source.kind == IMAGES.name and not source.entries and predictions:
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


def _are_predictions(source: SceneSet, predictions: Sequence[PredictionFiles]) -> bool:
    """Return True if the images beside polygons are the predictions themselves."""
    predicted = {file.resolve() for files in predictions for file in files.rasters}
    return any(entry.image and entry.image.resolve() in predicted for entry in source.entries)


def _polygons(
    path: Path, config: SourceConfig, labels: LabelConfig, predictions: Sequence[PredictionFiles]
) -> SceneSet:
    """Open polygons, drawn on the grids of predicted rasters or on a grid of their own."""
    _check_options(config, "part", "field", "layer")
    file = LayerFile.of(path, labels, config.field, config.layer)
    layer = file.load()
    predicted = next((files for files in predictions if files.rasters), None)
    if predicted is None:
        grids = {path.stem: _utm_grid(path, file, config.gsd_m)}
        place = f"a grid of {config.gsd_m:g} m around the labelled polygons"
    else:
        names = predicted.names(predicted.rasters)
        grids = {name: open_image(raster).grid for name, raster in zip(names, predicted.rasters)}
        place = f"the grid of the rasters of {predicted.path}"
        nowhere = [name for name, grid in grids.items() if grid.crs is None]
        if nowhere:
            raise GeoreferenceError(
                f"{path} is polygons on the ground, but the prediction {nowhere[0]} of "
                f"{predicted.path} has no georeference, so the polygons cannot be drawn on it.",
                remedy="Give predictions with a georeference, or the images with --images.",
            )
    reached: set[int] = set()
    for grid in grids.values():
        reached.update(layer.tree.query(outline_boxes(grid, layer.crs))[1].tolist())
    if len(layer) and not reached:
        bounds = [outline_bounds(grid, _LONLAT) for grid in grids.values()]
        known = [box for box in bounds if box is not None]
        raise out_of_reach(path, layer, known, "predictions")
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
        open_scene=_OpenWithoutImage(
            lambda entry: entry.key,
            lambda entry, grid: file.label(grid, entry.id),
            config.gsd_m if predicted is not None else None,
        ),
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
