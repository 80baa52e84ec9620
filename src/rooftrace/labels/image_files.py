"""Find, open and copy the image files of a set of labelled data.

Images and masks may also lie as bytes in Parquet files, as in the data sets of Hugging Face, whose
columns of images are structs of `bytes` and `path`:
https://huggingface.co/docs/datasets/image_dataset
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pyproj import CRS

from rooftrace.core.errors import ConfigError, LabelError, LayoutError
from rooftrace.core.text import plural
from rooftrace.core.types import LabelReader, Mask, RasterSource, Scene
from rooftrace.io.files import replacing
from rooftrace.io.georeferenced import ArraySource, in_crs, parse_crs
from rooftrace.io.nodata import NodataRule
from rooftrace.io.raster import RasterFile, open_image, write_raster
from rooftrace.io.web_mercator import TileName
from rooftrace.labels.config import LabelConfig, SourceConfig, nodata_rule
from rooftrace.labels.mask_values import LabelRule, without_blur
from rooftrace.labels.source import MaskLabel, SceneEntry, SceneSet, SourceKind, WriteOptions


def image_name(scene_id: str) -> str:
    """Return the file name of a scene, in which folders become part of the name."""
    return scene_id.replace("/", "__")


def write_image(image: RasterSource, file: Path | None, folder: Path, name: str) -> Path:
    """Write an image of a set to a folder; copy its file if the file describes it fully.

    Args:
        image: Image to write.
        file: File from which the image was opened; None if it is a part of a scene.
        folder: Folder to write to.
        name: File name without suffix.

    Raises:
        DataError, ExportError: See `io.raster.write_raster`.
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


def check_images(images: Path) -> None:
    """Raise LayoutError if there is nothing where images should be."""
    if not images.exists():
        raise LayoutError(f"{images} does not exist.", remedy="Check the path.")


class LabelFileImages:
    """Images of a label file: used where they lie, or copied to `NAME_images/` beside it.

    Args:
        label_file: Label file to write.
        options: Options, of which `images` is used.
    """

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


TileOf = Callable[[SceneEntry], TileName | None]


@dataclass(frozen=True)
class SceneOpener:
    """Opens the scene of an entry whose image is a file.

    Args:
        read_label: Picklable function (entry, image) that returns the label, or None.
        nodata: Nodata rule of the images.
        gsd_m: Metres per pixel that the user gave, or None.
        crs: Coordinate system of images that have a position and state none, or None.
        tile_of: Picklable function that returns the tile that the image of an entry shows, or None.
    """

    read_label: Callable[[SceneEntry, RasterSource], LabelReader | None]
    nodata: NodataRule
    gsd_m: float | None
    crs: CRS | None = None
    tile_of: TileOf | None = None

    @classmethod
    def of(
        cls,
        config: SourceConfig,
        read_label: Callable[[SceneEntry, RasterSource], LabelReader | None],
        *,
        tile_of: TileOf | None = None,
    ) -> SceneOpener:
        """Return an opener with the nodata rule and metres per pixel of a configuration."""
        crs = None if config.crs is None else parse_crs(config.crs)
        return cls(read_label, nodata_rule(config.nodata), config.gsd_m, crs, tile_of)

    def __call__(self, entry: SceneEntry) -> Scene:
        assert entry.image is not None
        tile = None if self.tile_of is None else self.tile_of(entry)
        image = open_image(entry.image, nodata=self.nodata, tile=tile, trusted=True)
        if self.crs is not None:
            image = in_crs(image, self.crs)
        gsd_m = self.gsd_m or entry.gsd_m or image.grid.gsd_m
        return Scene(entry.id, image, self.read_label(entry, image), entry.group, gsd_m)


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
    return [SceneEntry(name, path, name.rpartition("/")[0]) for name, path in zip(names, files)]


_MASKS = ("label", "labels", "mask", "masks", "annotation", "segmentation", "semantic_mask")
_PLACES = ("", "data", "train", "default")


def _files(path: Path) -> list[Path]:
    """Return the Parquet files at a path that have columns of images."""
    found = [path]
    if path.is_dir():
        found = [file for place in _PLACES for file in sorted((path / place).glob("*.parquet"))]
    return [file for file in found if file.suffix == ".parquet" and len(_columns(file)) > 1]


def _columns(file: Path) -> list[str]:
    """Return the columns of images of a Parquet file; none without pyarrow."""
    try:
        from pyarrow import ArrowException, parquet, types
    except ImportError:
        return []
    try:
        schema = parquet.read_schema(file)
    except (ArrowException, OSError):
        return []
    return [
        field.name
        for field in schema
        if types.is_struct(field.type) and {"bytes", "path"} <= {one.name for one in field.type}
    ]


@dataclass(frozen=True)
class _RowOpener:
    """Opens the scene of an entry whose key is (file, row group, row, image and mask column)."""

    rule: LabelRule
    gsd_m: float | None
    colour: tuple[float, ...] | None

    def __call__(self, entry: SceneEntry) -> Scene:
        file, number, row, columns = entry.key
        cells = [column[row] for column in _row_group(file, number, columns)]
        picture, mask = (_decoded(one, f"{file}, row {row} of group {number}") for one in cells)
        if self.rule.is_255_ambiguous:
            mask = without_blur(ArraySource(mask), cells[1]["bytes"]).read().data
        valid = None
        if self.colour is not None:
            valid = (picture != np.reshape(self.colour, (-1, 1, 1))).any(axis=0)
        image = ArraySource(picture, valid=valid, name=entry.id)
        if mask.shape[1:] != picture.shape[1:]:
            raise LabelError(
                f"{entry.id} has an image of {picture.shape[1:]} and a mask of {mask.shape[1:]}.",
                remedy="Correct the table.",
            )
        classes, known = self.rule.decode(mask, entry.id)
        known = np.ones(classes.shape, np.bool_) if known is None else known
        label = MaskLabel(Mask(classes, known, image.grid))
        return Scene(entry.id, image, label, entry.group, self.gsd_m)


# Scenes are opened one after another, and a group of rows holds about a hundred.
@lru_cache(maxsize=2)
def _row_group(file: Path, number: int, columns: tuple[str, str]) -> tuple[Any, Any]:
    from pyarrow import parquet

    table = parquet.ParquetFile(file).read_row_group(number, columns=list(columns))
    return table.column(columns[0]).to_pylist(), table.column(columns[1]).to_pylist()


def _decoded(cell: dict[str, Any], where: str) -> NDArray[np.uint8]:
    """Return the pixels (band, y, x) of a cell."""
    try:
        array = np.asarray(Image.open(io.BytesIO(cell["bytes"])))
    except (UnidentifiedImageError, OSError, TypeError) as error:
        raise LabelError(
            f"{where} has an image that cannot be read: {error}.", remedy="Download it again."
        ) from error
    bands = array[None] if array.ndim == 2 else np.moveaxis(array[..., :3], -1, 0)
    return bands.astype(np.uint8) if bands.dtype == np.bool_ else bands


def _read(path: Path, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Read the rows of Parquet files as scenes."""
    from pyarrow import parquet

    entries = []
    files = _files(path)
    for file in files:
        table, columns = parquet.ParquetFile(file), _image_and_mask(_columns(file), file)
        for number in range(table.num_row_groups):
            for row in range(table.metadata.row_group(number).num_rows):
                scene_id = f"{file.stem}/{number}_{row:05d}"
                entries.append(SceneEntry(scene_id, None, file.stem, (file, number, row, columns)))
    if not entries:
        raise LayoutError(f"{path} has no rows of images and masks.", remedy="Check the path.")
    opener = _RowOpener(labels.rule(), config.gsd_m, nodata_rule(config.nodata).colour)
    return SceneSet.of(
        IMAGE_TABLE.name, path.resolve().name, config, labels, entries, opener,
        reading=f"{plural(len(entries), 'row')} of {plural(len(files), 'Parquet file')}",
        label_file=files[0],
    )  # fmt: skip


def _image_and_mask(columns: Sequence[str], file: Path) -> tuple[str, str]:
    masks = [name for name in columns if name.casefold() in _MASKS]
    others = [name for name in columns if name not in masks]
    if len(masks) != 1 or len(others) != 1:
        raise LayoutError(
            f"{file} has the columns of images {', '.join(columns)}; expected image, and one of "
            f"{', '.join(_MASKS)}.",
            remedy="Rename the columns, or save the pictures as images/ and masks/.",
        )
    return others[0], masks[0]


IMAGE_TABLE = SourceKind(
    "parquet", "Parquet tables of images and masks", lambda path: bool(_files(path)), _read
)
