"""From the pixels of a mask file, and from the names of labels, to class indices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.config import nearest
from rooftrace.core.errors import LabelError
from rooftrace.core.types import GeoGrid, Mask, Raster, Window
from rooftrace.io.raster import RasterFile, open_raster

__all__ = ["IGNORED", "LabelFile", "LabelRule", "NameRule"]

Colour = tuple[int, int, int]

IGNORED = -1
"""In place of a class index: what is under this label takes no part in loss or metrics."""

_SHOWN = 6
"""How many offending values an error lists."""

_FULL = 255
"""In a mask of two classes: the building, unless the file holds a 1."""

_ROWS = 1024
"""Rows of a mask that are looked at together."""


@dataclass(frozen=True)
class LabelRule:
    """How pixel values are read as classes.

    Args:
        classes: names; the index is the class. Index 0 is the background.
        palette: RGB colour to class index; None where the masks hold single values. A colour that
            several classes share cannot be.
        ignore: values (or, with a palette, colours) that take no part in loss or metrics.
        values: value to class index, where values are not the indices themselves.

    Without a palette or values and with two classes a file may hold 0/1 or 0/255, and where it
    holds a 1 anywhere, 255 is no class; with more classes, indices.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[Colour, int], ...] | None = None
    ignore: tuple[int, ...] | tuple[Colour, ...] = ()
    values: tuple[tuple[int, int], ...] | None = None

    @property
    def either_way(self) -> bool:
        """Whether 255 may be a class or not, as the rest of the file says."""
        return (
            self.palette is None
            and self.values is None
            and len(self.classes) == 2
            and _FULL not in self.ignore
        )

    def decode(
        self,
        data: NDArray[Any],
        name: str,
        valid: NDArray[np.bool_] | None = None,
        *,
        by_index: bool = False,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """Pixels (band, y, x) to classes (y, x) and validity (y, x), None if all are valid.

        Where a pixel is not valid its class is 0.

        Args:
            name: of the file, for errors.
            valid: (y, x), False where the file itself says that nothing is known, so that any
                value may be there; default all.
            by_index: whether 255 is no class, as the rest of the file tells.

        Raises:
            LabelError: a value or colour that is no class; names the file, the values, how many.
        """
        if self.palette is not None:
            return self._by_colour(data, name, valid)
        if len(data) > 1 and ((data[1:] != data[0]).any(axis=0) & _known(valid)).any():
            raise LabelError(
                f"The mask {name} is coloured ({len(data)} bands that differ), and no palette "
                "is given.",
                remedy="Give the colour of each class in the configuration: "
                '[data.labels] palette = { building = "#3C1098" }.',
            )
        return self._by_value(data[0], name, valid, by_index)

    def check_nodata(
        self, nodata: tuple[float | None, ...], name: str, *, by_index: bool = False
    ) -> None:
        """Refuse a file that calls one of the classes nodata.

        Tools that rasterise often mark the background so; taken at its word, such a file takes
        the class out of loss and metrics, and the model learns that everything is a building.

        Args:
            nodata: the file's own, per band.
            by_index: as in `decode`.

        Raises:
            LabelError: the value is a class and is not named under `ignore`.
        """
        if self.palette is not None:
            clash = nodata in {colour for colour, _ in self.palette} - set(self.ignore)
        else:
            clash = nodata[0] in set(self._known_values(by_index)) - set(self.ignore)
        if clash:
            raise LabelError(
                f"The mask {name} has the nodata value {nodata[0]:g}, which is a class.",
                remedy="If the class is meant, unset it: gdal_edit.py -unsetnodata FILE, or save "
                "a PNG without transparency. If nothing is known there, name the value under "
                "ignore.",
            )

    def _known_values(self, by_index: bool) -> dict[int, int]:
        """Value to class index, of every value that a file may hold."""
        if self.values is not None:
            return dict(self.values)
        known = {index: index for index in range(len(self.classes))}
        return known | {_FULL: 1} if len(self.classes) == 2 and not by_index else known

    def _by_value(
        self,
        values: NDArray[Any],
        name: str,
        valid: NDArray[np.bool_] | None,
        by_index: bool,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        if self.ignore:
            valid = ~np.isin(values, self.ignore) & _known(valid)
        seen = values if valid is None else values[valid]
        # Of the two ways to write a binary mask a file holds one.
        by_index |= self.values is None and len(_others(seen, (0, _FULL))) > 0
        known = self._known_values(by_index)
        # What holds nothing but 0 and 255 need not be looked through again.
        if by_index or self.values is not None or _FULL not in known:
            strange = _others(seen, known)
            if len(strange):
                raise self._no_classes(strange.tolist(), name)
        table = np.zeros(max(*known, _FULL) + 1, dtype=np.uint8)
        for value, index in known.items():
            table[value] = index
        if valid is None:
            return _looked_up(values, table), None
        classes = np.zeros(values.shape, dtype=np.uint8)
        classes[valid] = table[seen.astype(np.intp, copy=False)]
        return classes, valid

    def _no_classes(self, strange: list[Any], name: str) -> LabelError:
        if self.values is not None:
            allowed = ", ".join(str(value) for value, _ in self.values)
        elif len(self.classes) == 2:
            allowed = "0 and 1, or 0 and 255"
        else:
            allowed = f"0 to {len(self.classes) - 1}"
        shown = ", ".join(str(value) for value in strange[:_SHOWN])
        return LabelError(
            f"The mask {name} holds {len(strange)} values that are not classes "
            f"({shown}{'…' if len(strange) > _SHOWN else ''}); "
            f"expected {allowed} for the classes {', '.join(self.classes)}.",
            remedy="Correct the mask (a JPEG blurs it: save it as PNG or TIFF), give a palette or "
            "values, or name the value under ignore.",
        )

    def _by_colour(
        self, data: NDArray[Any], name: str, valid: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        if len(data) != 3 or data.dtype != np.uint8:
            raise LabelError(
                f"The mask {name} has {len(data)} bands of {data.dtype}; a palette is given, so "
                "8-bit RGB was expected.",
                remedy="Remove the palette from the configuration if the masks hold indices.",
            )
        assert self.palette is not None
        packed = _pack(data)
        classes = np.zeros(packed.shape, dtype=np.uint8)
        found = np.zeros(packed.shape, dtype=bool)
        for colour, index in self.palette:
            here = packed == _pack_one(colour)
            classes[here] = index
            found |= here
        if self.ignore:
            wanted = [_pack_one(colour) for colour in self.ignore if isinstance(colour, tuple)]
            left_out = np.isin(packed, wanted)
            valid = ~left_out & _known(valid) if left_out.any() else valid
        if valid is not None:
            classes[~valid] = 0
            found |= ~valid
        if not found.all():
            raise self._no_colours(packed[~found], name)
        return classes, valid

    def _no_colours(self, strange: NDArray[np.int64], name: str) -> LabelError:
        assert self.palette is not None
        colours, counts = np.unique(strange, return_counts=True)
        unknown = [f"#{colour:06X} ({count} px)" for colour, count in zip(colours, counts)]
        return LabelError(
            f"The mask {name} holds {len(unknown)} colours that are not in the palette: "
            f"{', '.join(unknown[:_SHOWN])}{'…' if len(unknown) > _SHOWN else ''}; known: "
            + ", ".join(f"#{_pack_one(c):06X} {self.classes[i]}" for c, i in self.palette)
            + ".",
            remedy="Add the colour to [data.labels] palette, or to ignore.",
        )


@dataclass(frozen=True)
class NameRule:
    """How the names of labels are read as classes.

    Args:
        classes: names; the index is the class.
        known: name to class index.
        dropped: names whose shapes are not drawn.
        ignored: names whose shapes take no part in loss or metrics.
    """

    classes: tuple[str, ...]
    known: tuple[tuple[str, int], ...]
    dropped: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()

    def index_of(self, name: str, where: str) -> int | None:
        """The class index of a label, IGNORED, or None where it is not to be drawn.

        Args:
            name: what the label is called; as given, or else in whatever case.
            where: what the error says of its place: a file, and what in it.

        Raises:
            LabelError: the name is no class, and nothing says what to do with it.
        """
        for convert in (str, str.casefold):
            wanted = convert(name)
            for known, index in self.known:
                if convert(known) == wanted:
                    return index
            if wanted in map(convert, self.ignored):
                return IGNORED
            if wanted in map(convert, self.dropped):
                return None
        raise LabelError(
            f"{where} has the label {name!r}, which is not a class; expected one of "
            f"{', '.join(known for known, _ in self.known)}. "
            + nearest(name, (known for known, _ in self.known)),
            remedy=f"Say what it is in the configuration: [labels.names] {self.classes[-1]} = "
            f'"{name}"; or leave it out with drop = ["{name}"].',
        )


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
        by_index = self._says_index(source, raster)
        self.rule.check_nodata(source.nodata, str(self.path), by_index=by_index)
        known = None if raster.valid.all() else raster.valid
        classes, valid = self.rule.decode(raster.data, str(self.path), known, by_index=by_index)
        grid = self.grid if window is None else self.grid.crop(window)
        return Mask(classes, raster.valid if valid is None else valid, grid)

    def _says_index(self, source: RasterFile, raster: Raster) -> bool:
        """Whether the whole file says that 255 is no class, whatever part of it is read."""
        if not self.rule.either_way:
            return False
        one, full = _holds(raster)
        if one or not (full or source.nodata[0] == _FULL):
            return one
        if raster.grid.shape != self.grid.shape:
            one, full = self._whole_holds
        # Where there is no 255 it does no harm that the file calls it nodata.
        return one or not full

    @cached_property
    def _whole_holds(self) -> tuple[bool, bool]:
        source = open_raster(self.path, palette="indices")
        height, width = self.grid.shape
        full = False
        for row in range(0, height, _ROWS):
            found = _holds(source.read(Window(row, 0, min(_ROWS, height - row), width)))
            full |= found[1]
            if found[0]:
                return True, full
        return False, full


def _holds(raster: Raster) -> tuple[bool, bool]:
    """Whether a binary mask holds a 1, and a 255."""
    one = (raster.data[0] == 1) & raster.valid
    return bool(one.any()), bool((raster.data[0] == _FULL).any())


def _others(values: NDArray[Any], known: Iterable[int]) -> NDArray[Any]:
    """What `values` holds that is not among `known`, sorted."""
    if values.dtype == np.uint8:
        strange = np.ones(256, dtype=np.uint8)
        strange[[value for value in known if value < len(strange)]] = 0
        if not _looked_up(values, strange).any():
            return values[:0].ravel()
        present: NDArray[Any] = np.bincount(values.ravel()).nonzero()[0]
    else:
        present = np.unique(values)
    return present[~np.isin(present, list(known))]


def _looked_up(values: NDArray[Any], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """table[values], for bytes several times faster than NumPy does it."""
    if values.dtype == np.uint8 and values.size:
        return np.asarray(cv2.LUT(values, table[:256]), dtype=np.uint8).reshape(values.shape)
    return table[values.astype(np.intp, copy=False)]


def _known(valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    return np.ones((), dtype=bool) if valid is None else valid


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]} rows × {shape[1]} columns"


def _pack(data: NDArray[Any]) -> NDArray[np.int64]:
    red, green, blue = data.astype(np.int64)
    packed: NDArray[np.int64] = (red << 16) | (green << 8) | blue
    return packed


def _pack_one(colour: Colour) -> int:
    return (colour[0] << 16) | (colour[1] << 8) | colour[2]
