"""What `rooftrace predict` is given: images, folders of them, and slippy tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.data.ground.tiles import find_tiles, open_mosaic
from rooftrace.data.images import image_name, open_image
from rooftrace.data.layout import is_image_file, is_sidecar
from rooftrace.data.tilenames import TileName
from rooftrace.io.mosaic import TileMosaic
from rooftrace.io.placed import PlacedSource
from rooftrace.io.raster import NodataRule, RasterFile, is_raster

__all__ = ["Job", "find_images", "find_jobs"]


@dataclass(frozen=True)
class Job:
    """One image to predict.

    Args:
        name: what its results are called after.
        path: as the person knows it.
    """

    name: str
    path: Path
    source: RasterFile | PlacedSource | TileMosaic


def find_jobs(
    inputs: Sequence[Path],
    nodata: NodataRule | None = None,
    *,
    mosaic: bool = False,
    zoom: int | None = None,
) -> tuple[list[Job], list[Path]]:
    """What is to be predicted, each by itself, and what was skipped in the folders.

    Slippy tiles lie where their names say: `OAM-x-y-z.png`, and `z/x/y.png` in a folder of zooms.

    Args:
        inputs: images and folders.
        nodata: what is nodata in the images besides what they say themselves.
        mosaic: whether each input is a folder of slippy tiles that is one scene.
        zoom: of the tiles of a mosaic, where there are several.

    Raises:
        ConfigError: a mosaic of several zooms, or a zoom without a mosaic.
        DataError: an input that does not exist, or holds nothing to predict.
    """
    if mosaic:
        scenes = [(folder, open_mosaic(folder, zoom, nodata)) for folder in inputs]
        return [Job(folder.resolve().name, folder, scene) for folder, scene in scenes], []
    if zoom is not None:
        raise ConfigError(
            f"--zoom {zoom} was given, but each image is predicted by itself.",
            remedy="Add --mosaic to predict the tiles of one zoom as one scene.",
        )
    jobs: dict[Path, Job] = {}
    skipped: list[Path] = []
    for given in inputs:
        tiles = _pyramid(given)
        images, others = (list(tiles), []) if tiles else find_images([given])
        skipped += others
        for path in images:
            tile = tiles.get(path)
            name = image_name(str(tile)) if tile and path.stem.isdecimal() else path.stem
            # A file may be named twice, by itself and by its folder.
            jobs.setdefault(path, Job(name, path, open_image(path, nodata=nodata, tile=tile)))
    return list(jobs.values()), skipped


def find_images(inputs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The images that are named, and what was skipped in the folders among them.

    Raises:
        DataError: an input that does not exist, or a folder without an image.
    """
    images: list[Path] = []
    skipped: list[Path] = []
    for given in inputs:
        if not given.is_dir():
            if not given.exists():
                raise DataError(f"There is no image at {given}.", remedy="Check the path.")
            images.append(given)
            continue
        files = [
            file
            for file in sorted(given.iterdir())
            if file.is_file() and not file.name.startswith(".") and not is_sidecar(file)
        ]
        found = [file for file in files if is_raster(file)]
        if not found:
            raise DataError(
                f"The folder {given} has no image among its {len(files)} files.",
                remedy="Name the folder that holds the images themselves.",
            )
        images += found
        skipped += sorted(set(files) - set(found))
    return list(dict.fromkeys(images)), skipped


def _pyramid(folder: Path) -> dict[Path, TileName]:
    """The tiles in a folder's folders, which are called by zoom and column."""
    if not folder.is_dir() or any(p.is_file() and is_image_file(p) for p in folder.iterdir()):
        return {}
    return {path: tile for tile, path in find_tiles(folder).paths.items()}
