"""Slippy tiles that are georeferenced by their names, with footprints drawn into them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

import shapely

from rooftrace.core.config import expand_path
from rooftrace.core.errors import ConfigError, DataError, LayoutError
from rooftrace.data.config import LabelConfig, SourceConfig
from rooftrace.data.ground.footprints import LONLAT, out_of_reach
from rooftrace.data.ground.layer import LayerFile, ShapeLayer
from rooftrace.data.ground.scenes import one_vector_file, placed_set, vector_files
from rooftrace.data.ground.tilewriter import write_tiles
from rooftrace.data.layout import is_image_file
from rooftrace.data.source import Entry, SceneSet, SourceKind
from rooftrace.data.tilenames import TileName
from rooftrace.io.mosaic import TileMosaic
from rooftrace.io.raster import NodataRule, open_raster
from rooftrace.io.reproject import outline_bounds

__all__ = ["TILES", "TileFolder", "find_tiles", "open_mosaic"]

_MOST_PX = 2**33
_LEAST_COVERED = 1000
"""Of a mosaic beyond so many pixels, one tile in so many places has to be there."""


@dataclass(frozen=True)
class TileFolder:
    """What a folder of tiles holds.

    Args:
        root: the folder that was given.
        top: where its images lie: `root/images`, or `root` itself.
        paths: by tile.
        others: images whose names are no tiles.
    """

    root: Path
    top: Path
    paths: dict[TileName, Path]
    others: tuple[Path, ...] = ()

    @cached_property
    def zooms(self) -> tuple[int, ...]:
        """Those that there are, the lowest first."""
        return tuple(sorted({tile.zoom for tile in self.paths}))

    def of_zoom(self, zoom: int) -> dict[TileName, Path]:
        """Only the tiles of one zoom.

        Raises:
            ConfigError: there are none.
        """
        if zoom not in self.zooms:
            raise ConfigError(
                f"zoom = {zoom} was asked for, but {self.top} has tiles of zoom "
                f"{_listed(self.zooms)}.",
                remedy="Choose one of them.",
            )
        return {tile: path for tile, path in self.paths.items() if tile.zoom == zoom}


def find_tiles(root: Path) -> TileFolder:
    """The images of `root/images` or else `root` whose names are `OAM-x-y-z.ext` or `z/x/y.ext`.

    Of the folders inside only those are entered that are called by a number.

    Raises:
        LayoutError: two images of one tile.
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
                f"Two images show the tile {tile}: {other} and {path}.",
                remedy="Keep one of them.",
            )
    return TileFolder(root, top, dict(sorted(paths.items())), tuple(others))


def open_mosaic(
    folder: Path, zoom: int | None = None, nodata: NodataRule | None = None
) -> TileMosaic:
    """A folder of tiles as one georeferenced scene; the header of one tile is read.

    Args:
        folder: as `find_tiles` takes it.
        zoom: of the tiles; may be left out where all have the same.
        nodata: what counts as nodata in a tile besides what it says.

    Raises:
        ConfigError: several zooms and none chosen, or one that is not there.
        DataError: no tiles, or so scattered that a scene would be all but empty.
    """
    found = find_tiles(folder) if folder.is_dir() else TileFolder(folder, folder, {})
    if not found.paths:
        raise DataError(
            f"{folder} holds no tiles: no image is called OAM-x-y-z.png or z/x/y.png.",
            remedy="Name the folder that holds the tiles or their zooms.",
        )
    if zoom is None and len(found.zooms) > 1:
        raise ConfigError(
            f"{folder} has tiles of zoom {_listed(found.zooms)}; a mosaic has one.",
            remedy=f"Choose one, for example --zoom {found.zooms[-1]}.",
        )
    tiles = found.of_zoom(found.zooms[0] if zoom is None else zoom)
    rows, cols = {tile.row for tile in tiles}, {tile.col for tile in tiles}
    first = TileName(next(iter(tiles)).zoom, min(rows), min(cols))
    count = (max(rows) - first.row + 1, max(cols) - first.col + 1)
    sources = {
        (tile.row - first.row, tile.col - first.col): open_raster(path, nodata=nodata)
        for tile, path in tiles.items()
    }
    height, width = next(iter(sources.values())).grid.shape
    shape = (count[0] * height, count[1] * width)
    if shape[0] * shape[1] > max(_MOST_PX, _LEAST_COVERED * len(tiles) * height * width):
        raise DataError(
            f"The {len(tiles)} tiles of {folder} lie scattered over {count[0]} × {count[1]} places "
            f"({shape[0]} × {shape[1]} pixels).",
            remedy="Put those of each place into a folder of its own.",
        )
    placed = first.grid((height, width)).resampled(shape, (1.0, 1.0))
    return TileMosaic(sources, (height, width), placed, str(folder))


def _files(folder: Path) -> Iterable[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name.isdecimal():
                yield from _files(path)
        elif not path.name.startswith("."):
            yield path


def _label_folders(root: Path) -> list[Path]:
    """Where the footprints of a folder of tiles may lie: in it or beside it.

    What lies beside a folder of images belongs to that one and to no other.
    """
    absolute = root.absolute()
    while absolute.name.isdecimal():
        absolute = absolute.parent
    parent = absolute.parent
    beside = absolute.name == "images" or not (parent / "images").is_dir()
    return list(dict.fromkeys([root, absolute, *([parent] if beside else [])]))


def _read(path: Path, config: SourceConfig, labels: LabelConfig, base: Path) -> SceneSet:
    """A folder of tiles and a vector file, or the vector file with `images`."""
    if path.is_dir():
        found, vector = find_tiles(path), one_vector_file(_label_folders(path))
    else:
        given = expand_path(config.images or "", base, key="images")
        if config.images is None or not given.is_dir():
            raise LayoutError(
                f"{path} is a file, and {'images is' if config.images else 'nothing says'} no "
                "folder of tiles.",
                remedy="Name the folder of its tiles with --images.",
            )
        found, vector = find_tiles(given), path
    tiles = found.paths if config.zoom is None else found.of_zoom(config.zoom)
    if config.globs:
        tiles = {t: p for t, p in tiles.items() if any(fnmatch(p.name, g) for g in config.globs)}
    if not tiles:
        raise DataError(
            f"{found.top} holds no tiles{f' that match {list(config.globs)}' * bool(config.globs)}:"
            " no such image is called OAM-x-y-z.png or z/x/y.png.",
            remedy="Name the folder that holds the tiles or their zooms.",
        )
    file = LayerFile.of(vector, labels, config.field)
    _check_reach(tiles, file)
    # The name of the ground is the same whatever zoom is chosen.
    lowest = found.zooms[0]
    entries = [
        Entry(
            image.relative_to(found.top).with_suffix("").as_posix(),
            image,
            str(tile.parent(lowest)),
            tile,
        )
        for tile, image in tiles.items()
    ]
    return placed_set(
        TILES.name,
        path.resolve().name if path.is_dir() else path.stem,
        entries,
        file,
        config,
        labels,
        notes=_notes(found, tiles),
    )


def _notes(found: TileFolder, tiles: dict[TileName, Path]) -> tuple[str, ...]:
    notes = []
    zooms = {tile.zoom for tile in tiles}
    if any(tile.parent(zoom) in tiles for tile in tiles for zoom in zooms if zoom < tile.zoom):
        notes.append(
            f"The same ground is there at zooms {_listed(sorted(zooms))}: count ground and not "
            "tiles, split with --by group, or choose one with zoom."
        )
    if found.others:
        names = ", ".join(path.name for path in found.others[:3])
        notes.append(f"{len(found.others)} images in {found.top} are no tiles by name: {names}.")
    return tuple(notes)


def _check_reach(tiles: dict[TileName, Path], file: LayerFile) -> None:
    layer = file.load()
    if not len(layer) or _reaches(tiles, layer):
        return
    bounds = [outline_bounds(tile.grid((1, 1)), LONLAT) for tile in tiles]
    remedy = ""
    if _reaches([tile.flipped() for tile in tiles], layer):
        remedy = (
            "They do where rows are counted from the south, as TMS does: rename each tile to row "
            "2^zoom - 1 - row."
        )
    known = [found for found in bounds if found is not None]
    raise out_of_reach(file.path, layer, known, "tiles", remedy)


def _reaches(tiles: Iterable[TileName], layer: ShapeLayer) -> bool:
    for tile in tiles:
        bounds = outline_bounds(tile.grid((1, 1)), layer.crs)
        if bounds is not None and len(layer.tree.query(shapely.box(*bounds), "intersects")):
            return True
    return False


def _listed(zooms: Iterable[int]) -> str:
    return ", ".join(map(str, zooms))


def _recognises(path: Path) -> bool:
    if not path.is_dir():
        return False
    top = path / "images" if (path / "images").is_dir() else path
    tiles = (file for file in _files(top) if TileName.parse(file.absolute()) is not None)
    return any(map(is_image_file, tiles)) and any(map(vector_files, _label_folders(path)))


TILES = SourceKind(
    "tiles",
    "slippy tiles by name, and the polygons of a vector file",
    _recognises,
    _read,
    write_tiles,
    frozenset({"images", "field", "zoom"}),
)
