"""Georeferenced scenes written as slippy tiles."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path
from statistics import median

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError
from rooftrace.core.types import Raster, RasterSource
from rooftrace.data.ground.footprints import DIGITS, LONLAT
from rooftrace.data.ground.outlines import Outlines, scene_crs
from rooftrace.data.source import Entry, Progress, SceneSet, WriteOptions, Written
from rooftrace.data.tilenames import WORLD_M, TileName, tiles_over, web_mercator
from rooftrace.io.atomic import replacing
from rooftrace.io.export import write_raster
from rooftrace.io.memory import ArraySource
from rooftrace.io.placed import PlacedSource
from rooftrace.io.raster import RasterFile
from rooftrace.io.reproject import reprojected
from rooftrace.io.vector import write_polygons
from rooftrace.io.warp import warped

__all__ = ["write_tiles"]

_TILE_PX = 256
_MOST_FINER = 3
"""Zooms beyond that of the scenes: each shows the same pixels in four times as many tiles."""

_KEPT_OPEN = 16
_BEND = 1e-7
"""Degrees: a centimetre along the edge of a scene."""


def write_tiles(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> Written:
    """`OUT/images/z/x/y.png` of 256 px, RGBA where partly covered, and `OUT/labels.geojson`.

    Scenes that are tiles of the zoom already are copied as they are. Of scenes that show the same
    ground, the one whose pixels are nearest to the zoom's goes first. Images that PNG does not
    hold (more bands, other types) become GeoTIFFs.

    Args:
        options: `zoom`, by default the one that is nearest to the scenes' metres per pixel; where
            all scenes are tiles the finest of theirs, and the others are left out.

    Raises:
        GeoreferenceError: a scene has no CRS, or no place in Web Mercator.
        ConfigError: a zoom that is much finer than the scenes.
        DataError: scenes of different bands or types fall into one tile.
        ExportError: a file cannot be written.
    """
    grounds = [_Ground.of(source, entry) for entry in source.entries]
    zoom = _zoom(grounds, options.zoom)
    notes = []
    exact = [g for g in grounds if g.tile is not None and g.tile.zoom == zoom]
    if exact and len(exact) < len(grounds) and all(g.tile is not None for g in grounds):
        others = len(grounds) - len(exact)
        notes.append(f"{others} scenes are tiles of other zooms than {zoom}, and are left out.")
        grounds = exact
    grounds.sort(key=lambda g: (g.tile is None or g.tile.zoom != zoom, abs(g.zoom - zoom)))
    plan = _plan(grounds, zoom)
    images = _OpenImages(source)
    written = copied = 0
    for number, (tile, over) in enumerate(sorted(plan.items())):
        path = out / "images" / str(tile.zoom) / str(tile.col) / str(tile.row)
        if over[0].tile == tile and _copied(images.of(over[0].entry), over[0].entry, path):
            copied += 1
            written += 1
        else:
            written += _written(tile, [images.of(ground.entry) for ground in over], path)
        if progress is not None:
            progress(number + 1, len(plan))
    outlines = Outlines(source.classes, LONLAT)
    for ground, within in zip(grounds, _shares(grounds)):
        scene = source.open_scene(ground.entry)
        outlines.add(scene, scene_id=None, within=within)
    geometry, columns = outlines.layer()
    write_polygons(out / "labels.geojson", geometry, columns, LONLAT, digits=DIGITS)
    kept = f", {copied} of them copied as they are" if copied else ""
    notes.append(f"{len(grounds)} scenes became {written} tiles of zoom {zoom}{kept}.")
    return Written(out, written, tuple(notes))


@dataclass(frozen=True)
class _Ground:
    """Where a scene lies.

    Args:
        polygon: of its outline, in EPSG:3857.
        zoom: at which tiles of 256 px have its pixels, not a whole number.
        tile: that it shows exactly, or None.
    """

    entry: Entry
    polygon: shapely.Polygon
    zoom: float
    tile: TileName | None

    @classmethod
    def of(cls, source: SceneSet, entry: Entry) -> _Ground:
        scene = source.open_scene(entry)
        crs, grid = scene_crs(scene), scene.image.grid
        corners = np.array([[0, 0], [grid.width, 0], [grid.width, grid.height], [0, grid.height]])
        xs, ys = grid.to_world(corners[:, 0].astype(float), corners[:, 1].astype(float))
        frame = np.empty(1, np.object_)
        frame[0] = shapely.Polygon(np.stack([xs, ys], axis=1))
        polygon = reprojected(frame, crs, web_mercator(), 0.01)[0]
        # Written so that what is no number is outside as well.
        if not np.abs(shapely.get_coordinates(polygon)).max() <= WORLD_M / 2 + 1:
            raise GeoreferenceError(
                f"{scene.image.name} has no place in Web Mercator, where slippy tiles lie.",
                remedy="Leave out what reaches beyond 85° north or south, or correct its "
                "coordinate system.",
            )
        pixel = (polygon.area / (grid.height * grid.width)) ** 0.5
        return cls(entry, polygon, log2(WORLD_M / _TILE_PX / pixel), TileName.of(grid))


def _zoom(grounds: Sequence[_Ground], asked: int | None) -> int:
    tiles = [ground.tile.zoom for ground in grounds if ground.tile is not None]
    if asked is None and len(tiles) == len(grounds):
        return max(tiles)
    native = max(0, round(median(ground.zoom for ground in grounds)))
    finest = round(max(ground.zoom for ground in grounds))
    if asked is not None and asked > finest + _MOST_FINER:
        raise ConfigError(
            f"zoom = {asked} was asked for, but the pixels of the scenes are those of zoom "
            f"{native}.",
            remedy=f"Choose a zoom up to {finest + _MOST_FINER}, or leave it out.",
        )
    return native if asked is None else asked


def _plan(grounds: Sequence[_Ground], zoom: int) -> dict[TileName, list[_Ground]]:
    """Which scenes each tile is made from, in the order in which they go."""
    plan: dict[TileName, list[_Ground]] = {}
    for ground in grounds:
        if ground.tile is not None and ground.tile.zoom == zoom:
            plan.setdefault(ground.tile, []).append(ground)
            continue
        shapely.prepare(ground.polygon)
        for tile in tiles_over(ground.polygon.bounds, zoom):
            if ground.polygon.intersects(shapely.box(*tile.bounds_xy)):
                plan.setdefault(tile, []).append(ground)
    return plan


class _OpenImages:
    """The images that were used last stay open."""

    def __init__(self, source: SceneSet) -> None:
        self._source = source
        self._open: OrderedDict[str, RasterSource] = OrderedDict()

    def of(self, entry: Entry) -> RasterSource:
        if entry.id not in self._open:
            self._open[entry.id] = self._source.open_scene(entry).image
            if len(self._open) > _KEPT_OPEN:
                _, old = self._open.popitem(last=False)
                if isinstance(old, (RasterFile, PlacedSource)):
                    old.close()
        self._open.move_to_end(entry.id)
        return self._open[entry.id]


def _copied(image: RasterSource, entry: Entry, path: Path) -> bool:
    """Whether the file of a tile says all by itself, and is copied."""
    file = image.source if isinstance(image, PlacedSource) else image
    if entry.image is None or not (isinstance(file, RasterFile) and file.says_all):
        return False
    with replacing(path.with_name(path.name + entry.image.suffix.lower())) as partial:
        shutil.copyfile(entry.image, partial)
    return True


def _written(tile: TileName, images: Sequence[RasterSource], path: Path) -> bool:
    """Whether a tile had a valid pixel, and is written."""
    grid = tile.grid((_TILE_PX, _TILE_PX))
    whole = warped(images[0], grid)
    for image in images[1:]:
        if whole.valid.all():
            break
        more = warped(image, grid)
        if (more.data.shape, more.data.dtype) != (whole.data.shape, whole.data.dtype):
            raise DataError(
                f"{images[0].name} has {images[0].bands} bands of {images[0].dtype} and "
                f"{image.name} has {image.bands} of {image.dtype}; both fall into the tile {tile}.",
                remedy="Write them into different folders, chosen by --glob.",
            )
        fill = more.valid & ~whole.valid
        whole.data[:, fill] = more.data[:, fill]
        whole.valid[fill] = True
    if not whole.valid.any():
        return False
    if whole.data.dtype == np.uint8 and len(whole.data) in (1, 3):
        with replacing(path.with_name(path.name + ".png")) as partial:
            _picture(whole).save(partial, format="PNG")
    else:
        write_raster(path.parent, path.name, ArraySource(whole.data, grid, whole.valid))
    return True


def _picture(raster: Raster) -> Image.Image:
    bands: list[NDArray[np.uint8]] = [*raster.data]
    if not raster.valid.all():
        bands.append(np.where(raster.valid, np.uint8(255), np.uint8(0)))
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[len(bands)]
    return Image.merge(mode, [Image.fromarray(band) for band in bands])


def _shares(grounds: Sequence[_Ground]) -> list[shapely.Geometry | None]:
    """What of each scene is its own and not that of a scene before it; None: all.

    In degrees. Ground that two scenes show has one label, that of the one that goes first.
    """
    polygons = np.array([ground.polygon for ground in grounds], np.object_)
    shares: list[shapely.Geometry | None] = []
    tree = shapely.STRtree(polygons)
    for index, polygon in enumerate(polygons):
        near = np.sort(tree.query(polygon, predicate="intersects"))
        before = polygons[near[near < index]]
        # Neighbours share an edge.
        before = before[shapely.area(shapely.intersection(before, polygon)) > polygon.area * 1e-6]
        if not len(before):
            shares.append(None)
            continue
        own = np.empty(1, np.object_)
        own[0] = polygon.difference(shapely.union_all(before))
        shares.append(reprojected(own, web_mercator(), LONLAT, _BEND)[0])
    return shares
