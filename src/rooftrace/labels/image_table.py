"""Read images and masks that lie as bytes in Parquet files, as in data sets of Hugging Face.

Columns of images are structs of `bytes` and `path`:
https://huggingface.co/docs/datasets/image_dataset
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from rooftrace.core.errors import LabelError, LayoutError
from rooftrace.core.text import plural
from rooftrace.core.types import Mask, Scene
from rooftrace.io.georeferenced import ArraySource
from rooftrace.labels.config import LabelConfig, SourceConfig, nodata_rule
from rooftrace.labels.layouts import MASK_NAMES
from rooftrace.labels.mask_source import without_blur
from rooftrace.labels.mask_values import LabelRule
from rooftrace.labels.source import MaskLabel, SceneEntry, SceneSet, SourceKind

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
        IMAGE_TABLE.name, path, config, labels, entries, opener,
        reading=f"{plural(len(entries), 'row')} of {plural(len(files), 'Parquet file')}",
        label_file=files[0],
    )  # fmt: skip


def _image_and_mask(columns: Sequence[str], file: Path) -> tuple[str, str]:
    masks = [name for name in columns if name.casefold() in MASK_NAMES]
    others = [name for name in columns if name not in masks]
    if len(masks) != 1 or len(others) != 1:
        raise LayoutError(
            f"{file} has the columns of images {', '.join(columns)}; expected image, and one of "
            f"{', '.join(MASK_NAMES)}.",
            remedy="Rename the columns, or save the pictures as images/ and masks/.",
        )
    return others[0], masks[0]


IMAGE_TABLE = SourceKind(
    "parquet", "Parquet tables of images and masks", lambda path: bool(_files(path)), _read
)
