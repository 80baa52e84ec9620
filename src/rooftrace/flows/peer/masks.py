"""Rasters that some tool has made: masks or probabilities, brought to the grids of the scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ConfigError, GeoreferenceError, LabelError, LayoutError
from rooftrace.core.types import GeoGrid, Raster, Window
from rooftrace.data.labels import LabelRule
from rooftrace.flows.peer.names import listed
from rooftrace.io.legend import NODATA
from rooftrace.io.raster import RasterFile, open_raster
from rooftrace.io.reproject import degrees_text, outline_bounds
from rooftrace.io.warp import warped

__all__ = ["MaskFiles", "Painted", "place_rasters", "same_grid"]

_LONLAT = CRS.from_epsg(4326)
_LOOKED_AT = 8
"""Files that are looked through to tell masks from probabilities in bytes."""

_SAME_PX = 0.01
"""How far the corners of two grids may lie apart that are one."""

_ROWS = 2048
_SHOWN = 6
_DEFAULT_THRESHOLD = 0.5

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Painted:
    """What rasters say of a scene.

    Args:
        classes: (y, x) uint8, the background where they say nothing.
        covered: (y, x) where they say something.
        probability: (y, x) uint8, of the building in 255ths; None of masks.
        moved: whether they were brought here from another grid.
    """

    classes: Bytes
    covered: Bools
    probability: Bytes | None
    moved: bool


@dataclass(frozen=True)
class MaskFiles:
    """Rasters by scene, all read alike.

    Args:
        files: of each scene, by its id; of several the later one counts where it says something.
        classes: names by index, the background first.
        colours: how masks in colours are read; None where there is no palette.
        building_class: whose probabilities they are.
        threshold: on probabilities; None of masks.
    """

    files: Mapping[str, tuple[Path, ...]]
    classes: tuple[str, ...]
    colours: LabelRule | None
    building_class: int
    threshold: float | None

    @classmethod
    def of(
        cls,
        files: Mapping[str, tuple[Path, ...]],
        classes: tuple[str, ...],
        rule: LabelRule,
        building_class: int,
        threshold: float | None,
    ) -> MaskFiles:
        """Look into a few of the files: fractions are probabilities, and so are shades of grey
        where a threshold is given.

        Raises:
            ConfigError: probabilities where there are more than two classes.
            DataError: a file cannot be read.
        """
        paths = list(dict.fromkeys(path for each in files.values() for path in each))
        chosen = sorted({i * len(paths) // _LOOKED_AT for i in range(min(_LOOKED_AT, len(paths)))})
        looked_at = [open_raster(paths[index], palette="indices") for index in chosen]
        shades = any(source.dtype.kind == "f" for source in looked_at)
        if not shades and threshold is not None and len(classes) == 2:
            shades = any(len(_buildings(_values(source))) > 1 for source in looked_at)
        if shades and len(classes) > 2:
            raise ConfigError(
                f"{paths[0]} holds probabilities of one class, but the labels tell "
                f"{', '.join(classes)} apart.",
                remedy="Give masks of class indices, or labels of buildings alone.",
            )
        least = (_DEFAULT_THRESHOLD if threshold is None else threshold) if shades else None
        colours = rule if rule.palette is not None else None
        return cls(files, classes, colours, building_class, least)

    def on(self, scene_id: str, grid: GeoGrid) -> Painted:
        """The rasters of a scene on its grid.

        Raises:
            DataError: a file cannot be read.
            LayoutError: one has another size, and no place by which it could be laid there.
            LabelError: its values are neither classes nor probabilities.
        """
        paths = self.files[scene_id]
        parts = [self._read(path, grid) for path in paths]
        first = parts[0]
        for part in parts[1:]:
            first.classes[part.covered] = part.classes[part.covered]
            if first.probability is not None and part.probability is not None:
                first.probability[part.covered] = part.probability[part.covered]
        covered = np.logical_or.reduce([part.covered for part in parts])
        moved = any(part.moved for part in parts)
        return Painted(first.classes, covered, first.probability, moved)

    def _read(self, path: Path, grid: GeoGrid) -> Painted:
        source = open_raster(path, palette="indices")
        if self.colours is not None and (source.bands > 1 or _has_palette(path)):
            source = open_raster(path)
        moved = not _lies_on(source, grid)
        if not moved:
            raster = source.read()
        else:
            _check_near(source, grid)
            raster = warped(source, grid, nearest=self.threshold is None)
        if self.threshold is not None:
            return _probable(raster, source.name, self.threshold, self.building_class, moved)
        classes, covered = self._classes(raster, source, moved)
        return Painted(classes, covered, None, moved)

    def _classes(self, raster: Raster, source: RasterFile, moved: bool) -> tuple[Bytes, Bools]:
        valid = raster.valid
        if self.colours is not None and len(raster.data) == 3:
            classes, known = self.colours.decode(raster.data, source.name, valid)
            return classes, valid if known is None else known
        if len(self.classes) > 2:
            rule = LabelRule(self.classes, None, (NODATA,) if len(self.classes) <= NODATA else ())
            classes, known = rule.decode(raster.data, source.name, valid)
            return classes, valid if known is None else known
        data = _one_band(raster, source.name)
        # A part of a file may lack the values that say what the others mean.
        found = _values(source) if moved else _occurring(data[valid], source.name)
        buildings = _buildings(found)
        if len(buildings) > 1:
            raise LabelError(
                f"{source.name} holds the values {', '.join(map(str, found[:_SHOWN]))}"
                f"{'…' if len(found) > _SHOWN else ''} besides 0; of a mask of buildings one was "
                "expected, and perhaps 255 where nothing is known.",
                remedy="If they are probabilities, add --threshold 0.5; if they are classes, make "
                "a mask of the buildings.",
            )
        covered = valid if NODATA in buildings else valid & (data != NODATA)
        drawn = np.isin(data, buildings) & covered
        return drawn * np.uint8(self.building_class), covered


def place_rasters(
    grids: Mapping[str, GeoGrid], rasters: Sequence[Path], what: str
) -> tuple[dict[str, tuple[Path, ...]], tuple[Path, ...]]:
    """The rasters that reach into each scene, and those that reach into none; headers are read.

    Args:
        grids: of the scenes, by id; all with a CRS.

    Raises:
        GeoreferenceError: a raster has no place, or a scene no raster; names them.
    """
    boxes = []
    for path in rasters:
        grid = open_raster(path).grid
        bounds = None if grid.crs is None else outline_bounds(grid, _LONLAT)
        if bounds is None:
            raise GeoreferenceError(
                f"{path} is called as no labelled scene is ({listed(list(grids))}), and has no "
                "georeference that would say where it lies.",
                remedy="Call predictions as the scenes that they are of.",
            )
        boxes.append(shapely.box(*bounds))
    tree = shapely.STRtree(boxes)
    files: dict[str, tuple[Path, ...]] = {}
    for scene_id, grid in grids.items():
        bounds = outline_bounds(grid, _LONLAT)
        near = [] if bounds is None else sorted(tree.query(shapely.box(*bounds), "intersects"))
        files[scene_id] = tuple(rasters[index] for index in near)
    empty = [scene_id for scene_id, found in files.items() if not found]
    if empty:
        raise GeoreferenceError(
            f"{what} lies elsewhere than {len(empty):,} of {len(grids):,} labelled scenes: "
            f"{listed(empty)}; nor is it called as they are.",
            remedy="Give predictions of these scenes, or choose scenes with --part or --split.",
        )
    used = {path for found in files.values() for path in found}
    return files, tuple(path for path in rasters if path not in used)


def same_grid(one: GeoGrid, other: GeoGrid) -> bool:
    """Whether two grids have the same pixels in the same places."""
    if one.shape != other.shape or one.crs is None or other.crs is None:
        return False
    if not one.crs.equals(other.crs, ignore_axis_order=True):
        return False
    height, width = one.shape
    cols, rows = np.array([0.0, width, 0.0, width]), np.array([0.0, 0.0, height, height])
    inverse = ~other.transform
    x, y = one.to_world(cols, rows)
    off = inverse.a * x + inverse.b * y + inverse.c - cols
    down = inverse.d * x + inverse.e * y + inverse.f - rows
    return bool(max(np.abs(off).max(), np.abs(down).max()) < _SAME_PX)


def _lies_on(source: RasterFile, grid: GeoGrid) -> bool:
    """Whether a raster has a scene's own pixels; else it lies elsewhere on the same ground."""
    own = source.grid
    if own.crs is not None and grid.crs is not None:
        return same_grid(own, grid)
    if own.shape == grid.shape:
        return True
    raise LayoutError(
        f"{source.name} has {own.height} rows × {own.width} columns, but its scene has "
        f"{grid.height} × {grid.width}, and "
        f"{'it' if own.crs is None else 'the scene'} has no georeference that would say how one "
        "lies on the other.",
        remedy="Give the prediction at the size of its scene.",
    )


def _check_near(source: RasterFile, grid: GeoGrid) -> None:
    """Refuse a raster that is called as a scene is, and shows other ground."""
    own, other = outline_bounds(source.grid, _LONLAT), outline_bounds(grid, _LONLAT)
    if own is None or other is None or not shapely.box(*own).intersects(shapely.box(*other)):
        places = ["nowhere" if one is None else degrees_text(one, _LONLAT) for one in (own, other)]
        raise GeoreferenceError(
            f"{source.name} lies at {places[0]}, but its scene at {places[1]}.",
            remedy="Correct its georeference, or call it as the scene that it shows.",
        )


def _probable(
    raster: Raster, name: str, threshold: float, building_class: int, moved: bool
) -> Painted:
    data = _one_band(raster, name)
    if data.dtype == np.uint8:
        share, is_building = np.asarray(data, np.uint8), data >= threshold * 255
    elif data.dtype.kind == "f":
        known = data[raster.valid]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        if low < 0 or high > 1:
            raise LabelError(
                f"{name} holds values from {low:g} to {high:g}; probabilities are fractions from "
                "0 to 1.",
                remedy="Divide it by its largest value, or give a mask of whole numbers.",
            )
        clean = np.where(raster.valid, data, 0)
        share, is_building = np.rint(clean * 255).astype(np.uint8), clean >= threshold
    else:
        raise LabelError(
            f"{name} holds {data.dtype} values; probabilities are fractions from 0 to 1, or bytes "
            "from 0 to 255.",
            remedy="Write all predictions in one of these forms.",
        )
    drawn = (is_building & raster.valid) * np.uint8(building_class)
    return Painted(drawn, raster.valid, np.where(raster.valid, share, np.uint8(0)), moved)


def _one_band(raster: Raster, name: str) -> NDArray[Any]:
    """(y, x) of a raster of one band, or of bands that are alike."""
    data = raster.data
    if len(data) > 1 and ((data[1:] != data[0]).any(axis=0) & raster.valid).any():
        raise LabelError(
            f"{name} is coloured: {len(data)} bands that differ. A prediction has one band, or "
            "bands that are alike.",
            remedy="If its colours are classes, say them with --set labels.palette.NAME=#RRGGBB.",
        )
    return np.asarray(data[0])


@lru_cache(maxsize=64)
def _values_of(path: Path, stamp: int) -> tuple[int, ...]:
    source = open_raster(path, palette="indices")
    found: set[int] = set()
    for window in Window.whole(source.grid.shape).strips(_ROWS):
        raster = source.read(window)
        found.update(_occurring(_one_band(raster, source.name)[raster.valid], source.name))
    return tuple(sorted(found))


def _values(source: RasterFile) -> tuple[int, ...]:
    """What a file holds besides 0, as `_occurring`."""
    return _values_of(source.path, source.path.stat().st_mtime_ns)


def _buildings(found: tuple[int, ...]) -> list[int]:
    """Which values of a mask are buildings, one if it is a mask: 255 beside another is nodata."""
    return [value for value in found if value != NODATA or len(found) == 1]


def _occurring(values: NDArray[Any], name: str) -> tuple[int, ...]:
    """The values besides 0, ascending.

    Raises:
        LabelError: fractions.
    """
    if values.dtype == np.uint8:
        found = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    elif values.dtype.kind in "iub":
        found = np.unique(values)
    else:
        raise LabelError(
            f"{name} holds fractions, but other predictions beside it are masks of whole numbers.",
            remedy="Write all predictions in one form.",
        )
    return tuple(int(value) for value in found.tolist() if value != 0)


def _has_palette(path: Path) -> bool:
    """Whether a file gives colours where they are asked for."""
    return open_raster(path).bands == 3
