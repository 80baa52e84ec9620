"""Labels without imagery: the masks, the polygons or the table alone that predictions are held
against.
"""

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
from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError, RooftraceError
from rooftrace.core.types import GeoGrid, Scene
from rooftrace.data.config import LabelConfig, SourceConfig
from rooftrace.data.folders import IMAGES
from rooftrace.data.ground.footprints import out_of_reach
from rooftrace.data.ground.layer import LayerFile
from rooftrace.data.images import open_image
from rooftrace.data.kinds import open_source
from rooftrace.data.labels import LabelFile, LabelRule
from rooftrace.data.layout import select
from rooftrace.data.rle.read import RunsLabel, told_order
from rooftrace.data.rle.table import RleTable, is_table
from rooftrace.data.runs import Order, is_empty, parse_runs
from rooftrace.data.source import Entry, SceneSet
from rooftrace.flows.peer.found import Found
from rooftrace.flows.peer.names import match_names, plain_name
from rooftrace.io.blank import BlankSource
from rooftrace.io.raster import open_raster
from rooftrace.io.reproject import degrees_text, outline_bounds, reprojected
from rooftrace.io.vector_read import is_vector_file

__all__ = ["has_imagery", "open_truth"]

_LONLAT = CRS.from_epsg(4326)
_MOST_PX = 2**30
"""Of a grid that is made up for polygons: more would hardly fit into memory."""

_RIM_PX = 8
"""Around polygons on such a grid: what its edge cuts is not judged as an outline."""

_SAMPLED = 64
_NO_IMAGERY = ("glob", "chip_px", "label_shift_px", "min_built_up", "max_built_up", "nodata")
"""Fields of `SourceConfig` that have no meaning where there is no imagery."""


def open_truth(
    config: SourceConfig,
    labels: LabelConfig | None,
    predictions: Sequence[Found],
    size_yx: tuple[int, int] | None = None,
) -> SceneSet:
    """Labels with their imagery as `open_source` finds them, or else without.

    Without imagery a mask says its own size; polygons are drawn on the grid of the predicted
    rasters, or on one of `gsd_m` where there are none; and a table's masks have `size_yx`, or the
    size of the predicted raster of the same name.

    Args:
        config: where the labels lie and how they are read.
        labels: what they mean, unless `config` says so; None: buildings, unless a card of the data
            says so.
        predictions: what is held against them.
        size_yx: rows and columns of the images of a table.

    Raises:
        ConfigError: options that are of no use for such labels.
        DataError and its kinds: as `open_source`; or nothing tells on which grid labels lie.
    """
    path = expand_path(config.path, Path(), key="path")
    meant = config.labels or labels or LabelConfig()
    table = path.is_file() and is_table(path)
    if size_yx is not None and not table:
        raise ConfigError(
            f"--size was given, but {path} is no table of run lengths.",
            remedy="Leave it out; other labels say their own size.",
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
            remedy="Say where the images lie with --images; or, if there are none, how large they "
            "are with --size ROWSxCOLUMNS.",
        ) from error
    if polygons and _shows(source, predictions):
        return _polygons(path, config, meant, predictions)
    if source.kind == IMAGES.name and not source.entries and predictions:
        return _masks(source, config, meant)
    return source


def has_imagery(source: SceneSet) -> bool:
    """Whether there is something that a model could be shown."""
    return not isinstance(source.open_scene, _OpenBare)


@dataclass(frozen=True)
class _OpenBare:
    """From an entry to its scene, which lies on a blank image."""

    gsd_m: float | None

    def __call__(self, entry: Entry) -> Scene:
        grid = self.grid(entry)
        image = BlankSource(grid, entry.id)
        return Scene(
            entry.id, image, self.label(entry, grid), entry.group, self.gsd_m or grid.gsd_m
        )

    def grid(self, entry: Entry) -> GeoGrid:
        raise NotImplementedError

    def label(self, entry: Entry, grid: GeoGrid) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class _OpenMask(_OpenBare):
    """Its key is the mask."""

    rule: LabelRule

    def grid(self, entry: Entry) -> GeoGrid:
        return open_image(entry.key).grid

    def label(self, entry: Entry, grid: GeoGrid) -> LabelFile:
        return LabelFile(entry.key, self.rule, grid, entry.id)


@dataclass(frozen=True)
class _OpenRuns(_OpenBare):
    """Its key is the size, and the cells of its rows."""

    order: Order
    building_class: int

    def grid(self, entry: Entry) -> GeoGrid:
        return GeoGrid(entry.key[0])

    def label(self, entry: Entry, grid: GeoGrid) -> RunsLabel:
        return RunsLabel(entry.key[1], self.order, self.building_class, grid)


@dataclass(frozen=True)
class _OpenDrawn(_OpenBare):
    """Its key is the grid."""

    file: LayerFile

    def grid(self, entry: Entry) -> GeoGrid:
        grid: GeoGrid = entry.key
        return grid

    def label(self, entry: Entry, grid: GeoGrid) -> Any:
        return self.file.label(grid)


def _masks(source: SceneSet, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Images that have no labels are the labels themselves."""
    _refuse(config, "glob", "part")
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
    predictions: Sequence[Found],
    size_yx: tuple[int, int] | None,
) -> SceneSet:
    _refuse(config, "part", "order")
    table = RleTable.read(path)
    cells: dict[str, list[tuple[str, str]]] = {}
    for row in table.rows:
        cells.setdefault(table.image_id(row), []).append((table.where(row), table.runs(row)))
    ids = {name: plain_name(name) for name in cells}
    if len(set(ids.values())) < len(ids):
        ids = {name: name for name in cells}
    sizes = _raster_sizes(list(ids.values()), predictions) if size_yx is None else {}
    entries = [
        Entry(one, None, one.rpartition("/")[0], (size_yx or sizes[one], tuple(cells[name])))
        for name, one in ids.items()
    ]
    kept = select(sorted(entries, key=lambda entry: entry.id), config.part)
    opener = _OpenRuns(config.gsd_m, config.order or "row", labels.building_class)
    notes: list[str] = []
    if config.order is None:
        opener, notes = _ordered(table, kept, opener)
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


def _raster_sizes(ids: Sequence[str], predictions: Sequence[Found]) -> dict[str, tuple[int, int]]:
    """Rows and columns of each image of a table, as the first predicted rasters have them."""
    found = next(one for one in predictions if one.rasters)
    names = found.names(found.rasters)
    matched = match_names(ids, names, str(found.path))
    matched.check(str(found.path), len(names), chosen=True)
    return {name: open_raster(found.rasters[at]).grid.shape for name, at in matched.number.items()}


def _ordered(
    table: RleTable, entries: Sequence[Entry], opener: _OpenRuns
) -> tuple[_OpenRuns, list[str]]:
    drawn = [one for one in entries if not all(is_empty(text) for _, text in one.key[1])]
    if not drawn:
        return replace(opener, order=table.columns.custom or "row"), []
    scenes = []
    for index in sorted({i * len(drawn) // _SAMPLED for i in range(_SAMPLED)}):
        entry = drawn[index]
        where, text = next(cell for cell in entry.key[1] if not is_empty(cell[1]))
        try:
            scenes.append((opener(entry), parse_runs(text, entry.key[0], where=where)))
        except RooftraceError:
            # Told when its turn comes.
            continue
    order, note = told_order(table, scenes, "Say which it is: --set order=row, or order=column.")
    return replace(opener, order=order), [note]


def _shows(source: SceneSet, predictions: Sequence[Found]) -> bool:
    """Whether images that lie beside polygons are the predictions themselves."""
    predicted = {file.resolve() for found in predictions for file in found.rasters}
    return any(entry.image and entry.image.resolve() in predicted for entry in source.entries)


def _polygons(
    path: Path, config: SourceConfig, labels: LabelConfig, predictions: Sequence[Found]
) -> SceneSet:
    _refuse(config, "part", "field")
    file = LayerFile.of(path, labels, config.field)
    layer = file.load()
    found = next((one for one in predictions if one.rasters), None)
    if found is None:
        grids = {path.stem: _made_up(path, file, config.gsd_m)}
        told = f"a grid of {config.gsd_m:g} m around the labelled polygons"
    else:
        grids = {
            name: open_image(raster).grid
            for name, raster in zip(found.names(found.rasters), found.rasters)
        }
        told = f"the grid of the rasters of {found.path}"
        nowhere = [name for name, grid in grids.items() if grid.crs is None]
        if nowhere:
            raise GeoreferenceError(
                f"{path} is polygons on the ground, but the prediction {nowhere[0]} of "
                f"{found.path} has no georeference, so they have no place in it.",
                remedy="Give predictions with a georeference, or the images as --images.",
            )
    reached: set[int] = set()
    bounds = []
    for grid in grids.values():
        box = outline_bounds(grid, layer.crs)
        reached.update([] if box is None else layer.tree.query(shapely.box(*box)).tolist())
        degrees = outline_bounds(grid, _LONLAT)
        bounds += [] if degrees is None else [degrees]
    if len(layer) and not reached:
        raise out_of_reach(path, layer, bounds, "predictions")
    notes = [f"There is no imagery: labels are judged on {told}."]
    outside = len(layer) - len(reached)
    if outside:
        notes.append(
            f"{outside:,} of {len(layer):,} polygons of {path} lie outside of it, and are not "
            "judged."
        )
    entries = tuple(Entry(name, None, "", grid) for name, grid in sorted(grids.items()))
    return SceneSet(
        name=config.name or path.stem,
        kind="footprints",
        classes=labels.classes,
        building_class=labels.building_class,
        entries=select(entries, config.part),
        open_scene=_OpenDrawn(config.gsd_m if found is not None else None, file),
        reading=f"{len(layer)} footprints in {layer.crs.name}, without images",
        notes=(*layer.notes, *notes),
    )


def _made_up(path: Path, file: LayerFile, gsd_m: float | None) -> GeoGrid:
    """A grid of square pixels around polygons, in their zone of UTM."""
    if gsd_m is None:
        raise ConfigError(
            f"{path} and the predictions are polygons, and nothing says how large a pixel is.",
            remedy="Say in what detail they are compared, in metres: --gsd 0.3",
        )
    layer = file.load()
    if not len(layer):
        raise DataError(
            f"{path} holds no polygon, and there is no imagery that would say what was looked at.",
            remedy="Say where the images lie with --images.",
        )
    corners = reprojected(
        np.array([shapely.box(*layer.bounds_xy)], np.object_), layer.crs, _LONLAT, 1e-3
    )
    west, south, east, north = shapely.total_bounds(corners).tolist()
    lon, lat = (west + east) / 2, (south + north) / 2
    if not (math.isfinite(lon) and abs(lat) < 84 and east - west < 6):
        where = degrees_text(layer.bounds_xy, layer.crs)
        raise GeoreferenceError(
            f"{path} reaches over {where}, too far for one grid of pixels.",
            remedy="Judge it region by region.",
        )
    crs = CRS.from_epsg((32600 if lat >= 0 else 32700) + int((lon + 180) // 6) % 60 + 1)
    placed = reprojected(layer.geometry, layer.crs, crs, gsd_m / 10)
    left, bottom, right, top = shapely.total_bounds(placed).tolist()
    left = (math.floor(left / gsd_m) - _RIM_PX) * gsd_m
    top = (math.ceil(top / gsd_m) + _RIM_PX) * gsd_m
    shape = (
        math.ceil((top - bottom) / gsd_m) + _RIM_PX,
        math.ceil((right - left) / gsd_m) + _RIM_PX,
    )
    if shape[0] * shape[1] > _MOST_PX:
        raise ConfigError(
            f"{path} would be {shape[0]:,} × {shape[1]:,} pixels of {gsd_m:g} m; at most "
            f"{_MOST_PX:,} in all were expected.",
            remedy="Give a larger --gsd, or judge it region by region.",
        )
    return GeoGrid(shape, Affine(gsd_m, 0, left, 0, -gsd_m, top), crs)


def _refuse(config: SourceConfig, *taken: str) -> None:
    """Options that would be passed over."""
    for name in (*_NO_IMAGERY, "part", "order", "field", "layout", "annotator", "zoom"):
        default = SourceConfig.model_fields[name].default
        if name not in taken and getattr(config, name) != default:
            raise ConfigError(
                f"The option {name} was given, but {config.path} is labels without imagery, "
                "for which it has no use.",
                remedy="Leave it out, or say where the images lie with --images.",
            )
