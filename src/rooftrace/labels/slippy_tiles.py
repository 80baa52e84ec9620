"""Read slippy tiles with footprints; their names say where they lie."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rooftrace.core.errors import ConfigError, DataError, LayoutError
from rooftrace.io.companions import is_image_file, matches_glob
from rooftrace.io.mosaic import TileMosaic, check_dense, is_readable
from rooftrace.io.nodata import NodataRule
from rooftrace.io.raster import open_raster
from rooftrace.io.reproject import outline_boxes
from rooftrace.io.web_mercator import TileName
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.footprints import (
    check_reach,
    georeferenced_set,
    one_vector_file,
    vector_files,
)
from rooftrace.labels.shapes import LayerFile, ShapeLayer
from rooftrace.labels.source import SceneEntry, SceneSet, SourceKind

_TMS_RESOURCE = "tilemapresource.xml"

_MAX_SIDE_PX = 1024
"""Largest side of a tile: four times the usual one, for fine screens."""


@dataclass(frozen=True)
class TileFolder:
    """Contents of a folder of tiles."""

    top: Path
    paths: dict[TileName, Path]
    others: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def zooms(self) -> tuple[int, ...]:
        """Zooms of the tiles in ascending order."""
        return tuple(sorted({tile.zoom for tile in self.paths}))

    def of_zoom(self, zoom: int) -> dict[TileName, Path]:
        """Return the tiles of one zoom."""
        if zoom not in self.zooms:
            raise ConfigError(
                f"zoom = {zoom} was given, but {self.top} has tiles of zoom {_listed(self.zooms)}.",
                remedy="Choose one of them.",
            )
        return {tile: path for tile, path in self.paths.items() if tile.zoom == zoom}

    def flipped(self) -> TileFolder:
        """Return the folder whose rows are counted from the other side."""
        paths = {tile.flipped(): path for tile, path in self.paths.items()}
        return replace(self, paths=dict(sorted(paths.items())))


def find_tiles(root: Path, tms: bool | None = None) -> TileFolder:
    """Find the images of `root/images` or else `root` that are named as tiles, see `TileName`.

    Only subfolders whose name is a number are searched.

    Args:
        tms: Whether rows are counted from the south, as TMS does; default: if a
            `tilemapresource.xml` lies beside the tiles or their zoom, as gdal2tiles writes it.
    """
    top = root / "images" if (root / "images").is_dir() else root
    paths: dict[TileName, Path] = {}
    others: list[Path] = []
    for path in _files(top):
        tile = TileName.parse(path.absolute())
        if not is_image_file(path):
            continue
        if tile is None:
            others.append(path)
            continue
        other = paths.setdefault(tile, path)
        if other is not path:
            raise LayoutError(
                f"Two images show the tile {tile}: {other} and {path}.", remedy="Keep one of them."
            )
    if paths and not _may_be_tile(next(iter(paths.values()))):
        return TileFolder(top, {}, (*paths.values(), *others))
    folder = TileFolder(top, dict(sorted(paths.items())), tuple(others))
    places = [top, root]
    if root.absolute().name.isdecimal():
        places.append(root.absolute().parent)
    resource = next(filter(Path.is_file, (at / _TMS_RESOURCE for at in places)), None)
    if resource is not None and paths:
        text = resource.read_text(encoding="utf-8", errors="replace")
        if profile := re.search(r'profile="(?:global-)?(geodetic|raster|local)"', text):
            raise LayoutError(
                f"The tiles of {top} have the profile {profile[1]}, as {resource.name} says; tiles "
                "in Web Mercator were expected.",
                remedy="Predict the image that they were made from, or tile it in the profile "
                "mercator of gdal2tiles, which is the default.",
            )
        if tms is None:
            note = f"{top}: rows are counted from the south (TMS), as {resource.name} says."
            return replace(folder.flipped(), notes=(note,))
    return folder.flipped() if tms else folder


def _may_be_tile(image: Path) -> bool:
    """Return whether an image has the size of a tile; scans may lie in folders of numbers, too."""
    try:
        height, width = open_raster(image).grid.shape
    except DataError:
        return True
    return height == width <= _MAX_SIDE_PX


def open_mosaic(
    folder: Path, zoom: int | None = None, nodata: NodataRule | None = None, tms: bool | None = None
) -> TileMosaic:
    """Open a folder of tiles as one georeferenced scene; the header of one tile is read.

    Args:
        folder: Folder of tiles, see `find_tiles`.
        zoom: Zoom of the tiles; may be omitted if all have the same.
        nodata: Nodata rule besides each tile's own nodata.
        tms: See `find_tiles`.

    Raises:
        ConfigError: There are several zooms and none was chosen, or the chosen one does not exist.
        DataError: There are no tiles, or they are so scattered that the scene is almost empty.
    """
    found = find_tiles(folder, tms) if folder.is_dir() else TileFolder(folder, {})
    if not found.paths:
        raise DataError(
            f"{folder} has no tiles: no image is named OAM-x-y-z.png, z/x/y.png or QUADKEY.png.",
            remedy="Give the folder of the tiles or of their zooms.",
        )
    if zoom is None and len(found.zooms) > 1:
        raise ConfigError(
            f"{folder} has tiles of zoom {_listed(found.zooms)}; a mosaic has only one zoom.",
            remedy=f"Choose one, for example --zoom {found.zooms[-1]}.",
        )
    tiles = found.of_zoom(found.zooms[0] if zoom is None else zoom)
    rows, cols = {tile.row for tile in tiles}, {tile.col for tile in tiles}
    first = TileName(next(iter(tiles)).zoom, min(rows), min(cols))
    count = (max(rows) - first.row + 1, max(cols) - first.col + 1)
    sources = {
        (tile.row - first.row, tile.col - first.col): open_raster(path, nodata=nodata, trusted=True)
        for tile, path in tiles.items()
    }
    readable = next(filter(is_readable, sources.values()), next(iter(sources.values())))
    height, width = readable.grid.shape
    shape = (count[0] * height, count[1] * width)
    check_dense(shape, len(tiles) * height * width, f"The {len(tiles)} tiles of {folder}", "tiles")
    grid = first.grid((height, width)).resampled(shape, (1.0, 1.0))
    return TileMosaic(sources, (height, width), grid, str(folder), notes=found.notes)


def _files(folder: Path) -> Iterable[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name.isdecimal():
                yield from _files(path)
        elif not path.name.startswith("."):
            yield path


def _label_files(root: Path) -> list[Path]:
    """Return the vector files that may hold the footprints of a folder of tiles.

    These are the files of the first folder that has one: the given folder, then the folder of its
    zooms. Of the folder around that, only `labels.*` and files with the name of the folder of tiles
    count: other files there may be areas, results or labels of other images.
    """
    absolute = root.absolute()
    while absolute.name.isdecimal():
        absolute = absolute.parent
    for folder in dict.fromkeys([root, absolute]):
        if found := vector_files(folder):
            return found
    known = {"labels", absolute.name.casefold()}
    if absolute.name != "images" and (absolute.parent / "images").is_dir():
        # `labels.*` belongs to the folder `images`.
        known.discard("labels")
    return [path for path in vector_files(absolute.parent) if path.stem.casefold() in known]


def _read(path: Path, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Read a folder of tiles with a vector file, or the vector file with `images`."""
    if path.is_dir():
        found = find_tiles(path, config.tms)
        vector = one_vector_file(
            _label_files(path),
            f"There is no vector file of footprints in {path}, nor labels.geojson or labels.gpkg "
            "beside the folder of tiles.",
        )
    else:
        given = Path(config.images or "")
        if config.images is None or not given.is_dir():
            raise LayoutError(
                f"{path} is a file; images is {'not a folder' if config.images else 'not given'}.",
                remedy="Give the folder of its tiles with --images.",
            )
        found, vector = find_tiles(given, config.tms), path
    file = LayerFile.of(vector, labels, config.field, config.layer)
    if config.tms is None and not found.notes:
        found = _fitting_rows(found, file)
    tiles = found.paths if config.zoom is None else found.of_zoom(config.zoom)
    tiles = {tile: path for tile, path in tiles.items() if matches_glob(path, config.globs)}
    if not tiles:
        raise DataError(
            f"{found.top} has no tiles{f' that match {list(config.globs)}' * bool(config.globs)}:"
            " no matching image is named OAM-x-y-z.png, z/x/y.png or QUADKEY.png.",
            remedy="Give the folder of the tiles or of their zooms.",
        )
    reach_notes = check_reach(file, (tile.grid((1, 1)) for tile in tiles))
    # The group of a tile does not depend on the chosen zoom.
    lowest = found.zooms[0]
    entries = [
        SceneEntry(
            image.relative_to(found.top).with_suffix("").as_posix(),
            image,
            str(tile.parent(lowest)),
            tile,
        )
        for tile, image in tiles.items()
    ]
    return georeferenced_set(
        TILES.name, path, entries, file, config, labels, notes=(*_notes(found, tiles), *reach_notes)
    )


def _notes(found: TileFolder, tiles: dict[TileName, Path]) -> tuple[str, ...]:
    notes = [*found.notes]
    zooms = {tile.zoom for tile in tiles}
    if any(tile.parent(zoom) in tiles for tile in tiles for zoom in zooms if zoom < tile.zoom):
        notes.append(
            f"The same ground is present at zooms {_listed(sorted(zooms))}: divide it with "
            "rooftrace split --by group, or choose one zoom."
        )
    if found.others:
        names = ", ".join(path.name for path in found.others[:3])
        notes.append(f"{len(found.others)} images in {found.top} are not named as tiles: {names}.")
    return tuple(notes)


def _fitting_rows(found: TileFolder, file: LayerFile) -> TileFolder:
    """Return the tiles with rows from the side from which the polygons of a file lie in them."""
    layer = file.load()
    flipped = found.flipped()
    if not len(layer) or _reaches(found.paths, layer) or not _reaches(flipped.paths, layer):
        return found
    note = (
        f"{found.top}: rows are counted from the south (TMS), because the polygons of {file.path} "
        "lie in no tile otherwise."
    )
    return replace(flipped, notes=(note,))


def _reaches(tiles: Iterable[TileName], layer: ShapeLayer) -> bool:
    return any(
        layer.tree.query(outline_boxes(tile.grid((1, 1)), layer.crs), "intersects").size
        for tile in tiles
    )


def _listed(zooms: Iterable[int]) -> str:
    return ", ".join(map(str, zooms))


def _recognises(path: Path) -> bool:
    # Few folders have label files, and many have images.
    if not path.is_dir() or not _label_files(path):
        return False
    top = path / "images" if (path / "images").is_dir() else path
    tiles = (file for file in _files(top) if TileName.parse(file.absolute()) is not None)
    return any(map(is_image_file, tiles))


TILES = SourceKind(
    "tiles",
    "slippy tiles by name, and the polygons of a vector file",
    _recognises,
    _read,
    options=frozenset({"images", "field", "layer", "zoom", "tms"}),
)
