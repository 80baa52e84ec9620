"""The images of a set: found, opened and written again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rooftrace.core.types import RasterSource
from rooftrace.data.tilenames import PlaceTile, TileName
from rooftrace.io.atomic import replacing
from rooftrace.io.export import write_raster
from rooftrace.io.placed import PlacedSource
from rooftrace.io.raster import NodataRule, RasterFile, open_raster

__all__ = ["image_name", "open_image", "relative_name", "write_image"]


def open_image(
    path: Path, *, nodata: NodataRule | None = None, tile: TileName | None = None
) -> RasterFile | PlacedSource:
    """An image of a set, which lies where its file says or else its name.

    Args:
        nodata: what counts as nodata besides what the file says.
        tile: where it lies, if the file does not say; default from a name such as
            `OAM-x-y-z.png`.
    """
    source = open_raster(path, nodata=nodata)
    tile = tile or TileName.parse(path, folders=False)
    return source if tile is None else PlacedSource(source, PlaceTile(tile))


def image_name(scene_id: str) -> str:
    """The name of a file for a scene: folders become part of the name."""
    return scene_id.replace("/", "__")


def write_image(image: RasterSource, file: Path | None, folder: Path, name: str) -> Path:
    """An image of a set into a folder: copied where it is a file that says all, else written.

    Args:
        file: what the image was opened from, None where it is a part of a scene.
        name: without an ending.

    Raises:
        DataError, ExportError: as in `io.export.write_raster`.
    """
    whole = isinstance(image, RasterFile) and image.says_all
    if file is None or not whole or not _stands_alone(file):
        return write_raster(folder, name, image)
    target = folder / (name + file.suffix)
    with replacing(target) as partial:
        shutil.copyfile(file, partial)
    return target


def _stands_alone(file: Path) -> bool:
    """Whether GDAL reads nothing else for it: a mask, a place, the files of a mosaic."""
    sidecars = (file.with_name(file.name + ending) for ending in (".msk", ".aux.xml"))
    return file.suffix.lower() != ".vrt" and not any(path.exists() for path in sidecars)


def relative_name(path: Path, base: Path) -> str:
    """How a file in the folder `base` names an image: by the way that leads to it.

    POSIX, so that a table made on one system is read on another.
    """
    try:
        return Path(os.path.relpath(path.resolve(), base.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()
