"""Find, open and copy the image files of a set of labelled data."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pyproj import CRS

from rooftrace.core.errors import ConfigError
from rooftrace.core.types import LabelReader, RasterSource, Scene
from rooftrace.io.files import replacing
from rooftrace.io.georeferenced import in_crs, parse_crs
from rooftrace.io.raster import RasterFile, open_image, write_raster
from rooftrace.io.web_mercator import TileName
from rooftrace.labels.config import SourceConfig, nodata_rule
from rooftrace.labels.source import SceneEntry, WriteOptions, place_of


def image_name(scene_id: str) -> str:
    """Return the file name of a scene, in which folders become part of the name."""
    return scene_id.replace("/", "__")


def write_image(image: RasterSource, file: Path | None, folder: Path, name: str) -> Path:
    """Write an image of a set to a folder; copy its file if the file describes it fully.

    Args:
        file: File from which the image was opened; None if it is a part of a scene.
        name: File name without suffix.
    """
    whole = isinstance(image, RasterFile) and image.is_self_describing
    if file is None or not whole or not _stands_alone(file):
        return write_raster(folder, name, image)
    target = folder / (name + file.suffix)
    with replacing(target) as partial:
        shutil.copyfile(file, partial)
    return target


def _stands_alone(file: Path) -> bool:
    """Return whether GDAL reads no other file for it: a mask, a georeference or mosaic parts."""
    sidecars = (file.with_name(file.name + ending) for ending in (".msk", ".aux.xml"))
    return file.suffix.lower() != ".vrt" and not any(path.exists() for path in sidecars)


def images_folder(label_file: Path) -> Path:
    """Return the folder beside a label file for the images that belong only to that file."""
    return label_file.with_name(f"{label_file.stem}_images")


class LabelFileImages:
    """Images of a label file: used where they lie, or copied to `NAME_images/` beside it."""

    def __init__(self, label_file: Path, options: WriteOptions) -> None:
        self._folder = images_folder(label_file)
        self._copy = options.images == "copy"
        self._needs_rule = False

    def path_of(self, entry: SceneEntry, scene: Scene) -> Path:
        """Return the image file of a scene; copy or write the image if necessary."""
        if entry.image is None or self._copy:
            return write_image(scene.image, entry.image, self._folder, image_name(entry.id))
        if isinstance(scene.image, RasterFile):
            self._needs_rule |= not scene.image.is_self_describing
        return entry.image

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts about the images that a label file cannot hold."""
        note = "The nodata rule of the images must be given again: --nodata."
        return (note,) if self._needs_rule else ()


def check_single_file(out: Path, what: str, example: str) -> None:
    """Raise ConfigError if `out` does not have the suffix of the file name `example`."""
    suffix = Path(example).suffix
    if out.suffix.lower() != suffix:
        raise ConfigError(
            f"{what} written as one file, but {out} does not end in {suffix}.",
            remedy=f"Write -o {out / example}.",
        )


@dataclass(frozen=True)
class SceneOpener:
    """Opens the scene of an entry whose image is a file.

    Args:
        config: Nodata rule, metres per pixel and coordinate system of the images.
        read_label: Picklable function (entry, image) that returns the label, or None; None for
            images alone.
        tile_of: Picklable function that returns the tile that the image of an entry shows, or None.

    Raises:
        ConfigError: The coordinate system is not one.
    """

    config: SourceConfig
    read_label: Callable[[SceneEntry, RasterSource], LabelReader | None] | None = None
    tile_of: Callable[[SceneEntry], TileName | None] | None = None

    def __post_init__(self) -> None:
        _ = self.crs  # raises the error before an image is opened

    @cached_property
    def crs(self) -> CRS | None:
        """Coordinate system of images that have a position and state none."""
        return None if self.config.crs is None else parse_crs(self.config.crs)

    def __call__(self, entry: SceneEntry) -> Scene:
        assert entry.image is not None
        tile = None if self.tile_of is None else self.tile_of(entry)
        nodata = nodata_rule(self.config.nodata)
        image = open_image(entry.image, nodata=nodata, tile=tile, trusted=True)
        if self.crs is not None:
            image = in_crs(image, self.crs)
        label = None if self.read_label is None else self.read_label(entry, image)
        gsd_m = (
            self.config.gsd_m or entry.gsd_m or image.grid.gsd_m or getattr(label, "gsd_m", None)
        )
        return Scene(entry.id, image, label, entry.group, gsd_m)


def unique_names(images: Sequence[Path]) -> list[str]:
    """Return an id for each image: its name; with folders and its suffix only if that is needed."""
    top = os.path.commonpath([image.absolute().parent for image in images]) if images else ""
    paths = [image.absolute().relative_to(top) for image in images]
    forms = (
        [path.stem for path in paths],
        [path.with_suffix("").as_posix() for path in paths],
        [path.as_posix() for path in paths],
    )
    return next((ids for ids in forms if len(set(ids)) == len(ids)), forms[-1])


def entries_below(top: Path, files: Sequence[Path]) -> list[SceneEntry]:
    """Return entries for images; ids are paths below `top`, without suffix if still unique."""
    names = [path.relative_to(top).with_suffix("").as_posix() for path in files]
    if len(set(names)) < len(names):
        names = [path.relative_to(top).as_posix() for path in files]
    return [SceneEntry(name, path, place_of(name)) for name, path in zip(names, files)]
