"""From the pixels of a mask file to class indices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import LabelError
from rooftrace.core.types import GeoGrid, Mask, Window
from rooftrace.io.raster import open_raster

__all__ = ["LabelFile", "LabelRule"]

Colour = tuple[int, int, int]

_SHOWN = 6
"""How many offending values an error lists."""


@dataclass(frozen=True)
class LabelRule:
    """How pixel values are read as classes.

    Args:
        classes: names; the index is the class. Index 0 is the background.
        palette: RGB colour to class index; None where the masks hold single values. A colour that
            several classes share cannot be.
        ignore: a value (or, with a palette, colours) that takes no part in loss or metrics.

    Without a palette and with two classes a file may hold 0/1 or 0/255; with more classes, indices.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[Colour, int], ...] | None = None
    ignore: tuple[int, ...] | tuple[Colour, ...] = ()

    def decode(
        self, data: NDArray[Any], name: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """Pixels (band, y, x) to classes (y, x) and, if some are to be ignored, validity (y, x).

        Raises:
            LabelError: a value or colour that is no class; names the file, the values, how many.
        """
        if self.palette is not None:
            return self._by_colour(data, name)
        if len(data) > 1 and not all(np.array_equal(data[0], band) for band in data[1:]):
            raise LabelError(
                f"The mask {name} is coloured ({len(data)} bands that differ), and no palette "
                "is given.",
                remedy="Give the colour of each class in the configuration: "
                '[data.palette] with building = "#3C1098".',
            )
        return self._by_value(data[0], name)

    def check_nodata(self, nodata: tuple[float | None, ...], name: str) -> None:
        """Refuse a file that calls one of the classes nodata.

        Tools that rasterise often mark the background so; taken at its word, such a file takes
        the class out of loss and metrics, and the model learns that everything is a building.

        Args:
            nodata: the file's own, per band.

        Raises:
            LabelError: the value is a class and is not named under `ignore`.
        """
        if self.palette is not None:
            clash = nodata in {colour for colour, _ in self.palette} - set(self.ignore)
        else:
            values = {*range(len(self.classes)), *([255] if len(self.classes) == 2 else [])}
            clash = nodata[0] in values - set(self.ignore)
        if clash:
            raise LabelError(
                f"The mask {name} has the nodata value {nodata[0]:g}, which is a class.",
                remedy="If the class is meant, unset it: gdal_edit.py -unsetnodata FILE. If "
                "nothing is known there, name the value under ignore.",
            )

    def _by_value(
        self, values: NDArray[Any], name: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        valid: NDArray[np.bool_] | None = None
        if self.ignore:
            valid = ~np.isin(values, np.array(self.ignore))
            values = np.where(valid, values, 0)
        present = np.unique(values)
        count = len(self.classes)
        if count == 2 and np.isin(present, (0, 255)).all():
            return (values != 0).astype(np.uint8), valid
        if np.isin(present, np.arange(count)).all():
            return values.astype(np.uint8), valid
        strange = present[~np.isin(present, np.arange(count))]
        allowed = "0 and 1, or 0 and 255" if count == 2 else f"0 to {count - 1}"
        raise LabelError(
            f"The mask {name} holds {len(strange)} values that are not classes "
            f"({', '.join(str(v) for v in strange[:_SHOWN])}{'…' if len(strange) > _SHOWN else ''})"
            f"; expected {allowed} for the classes {', '.join(self.classes)}.",
            remedy="Correct the mask (a JPEG blurs it: save it as PNG or TIFF), give a palette, or "
            "name the value under ignore.",
        )

    def _by_colour(
        self, data: NDArray[Any], name: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        if len(data) != 3 or data.dtype != np.uint8:
            raise LabelError(
                f"The mask {name} has {len(data)} bands of {data.dtype}; a palette is given, so "
                "8-bit RGB was expected.",
                remedy="Remove the palette from the configuration if the masks hold indices.",
            )
        assert self.palette is not None
        packed = _pack(data)
        colours, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
        known = {_pack_one(colour): index for colour, index in self.palette}
        ignored = {_pack_one(c) for c in self.ignore if isinstance(c, tuple)}
        table = np.zeros(len(colours), dtype=np.uint8)
        skipped = np.zeros(len(colours), dtype=bool)
        unknown = []
        for position, (colour, count) in enumerate(zip(colours.tolist(), counts.tolist())):
            if colour in ignored:
                skipped[position] = True
            elif colour in known:
                table[position] = known[colour]
            else:
                unknown.append(f"#{colour:06X} ({count} px)")
        if unknown:
            raise LabelError(
                f"The mask {name} holds {len(unknown)} colours that are not in the palette: "
                f"{', '.join(unknown[:_SHOWN])}{'…' if len(unknown) > _SHOWN else ''}; known: "
                + ", ".join(f"#{_pack_one(c):06X} {self.classes[i]}" for c, i in self.palette)
                + ".",
                remedy="Add the colour to [data.palette], or to ignore.",
            )
        inverse = inverse.reshape(packed.shape)
        return table[inverse], (~skipped)[inverse] if skipped.any() else None


@dataclass(frozen=True)
class LabelFile:
    """The mask file of one scene (a `LabelReader`).

    Args:
        path: of the mask.
        rule: how its values are read.
        grid: of the image; the mask must have its shape.
        image_name: for the message where it has not.
    """

    path: Path
    rule: LabelRule
    grid: GeoGrid
    image_name: str

    def read(self, window: Window | None = None) -> Mask:
        """The classes inside `window` of the image.

        Raises:
            LabelError: the size differs from the image's, or a value is no class.
            DataError: the file cannot be read.
        """
        source = open_raster(
            self.path, palette="indices" if self.rule.palette is None else "colours"
        )
        if source.grid.shape != self.grid.shape:
            raise LabelError(
                f"The mask {self.path} has {_size(source.grid.shape)}, "
                f"but its image {self.image_name} has {_size(self.grid.shape)}.",
                remedy="Export the mask again at the size of its image.",
            )
        raster = source.read(window)
        self.rule.check_nodata(source.nodata, str(self.path))
        # What the file itself leaves out may hold any value.
        filler = self.rule.palette[0][0] if self.rule.palette else (0,) * len(raster.data)
        data = raster.data
        if not raster.valid.all() and len(filler) == len(data):
            data = np.where(raster.valid, data, np.array(filler, data.dtype)[:, None, None])
        classes, valid = self.rule.decode(data, str(self.path))
        whole = raster.valid if valid is None else raster.valid & valid
        grid = self.grid if window is None else self.grid.crop(window)
        return Mask(classes, whole, grid)


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]} rows × {shape[1]} columns"


def _pack(data: NDArray[Any]) -> NDArray[np.int64]:
    red, green, blue = data.astype(np.int64)
    packed: NDArray[np.int64] = (red << 16) | (green << 8) | blue
    return packed


def _pack_one(colour: Colour) -> int:
    return (colour[0] << 16) | (colour[1] << 8) | colour[2]
