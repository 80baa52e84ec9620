"""What `rooftrace vectorize` is given: a mask of classes, or probabilities, from whatever tool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, DataError, LabelError
from rooftrace.core.types import GeoGrid, Raster, Window
from rooftrace.io.categories import read_categories
from rooftrace.io.legend import NODATA
from rooftrace.io.raster import RasterFile, open_raster

__all__ = ["MaskBlock", "MaskInput", "open_mask"]

Progress = Callable[[int], None]
"""Called with the pixels of each block that has been looked at."""

_BLOCK_PX = 2**24
_BAND_PX = 256
"""Rows of a block are a multiple of it, so that few tiles of a GeoTIFF are decoded twice."""

_SHOWN = 6
_MOST_CLASSES = 40
"""Without names; more are shades of grey."""

_BUILDING = ("building", "buildings")
_DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class MaskBlock:
    """A part of a mask.

    Args:
        window: of the raster.
        mask: (y, x) uint8, class indices; NODATA where nothing is known.
        score: (y, x) float32 in 0..1, or uint8 standing for 0..1 by 255ths; None where none is
            known.
        occurring: the values in `mask`.
    """

    window: Window
    mask: NDArray[np.uint8]
    score: NDArray[np.float32] | NDArray[np.uint8] | None
    occurring: list[int]


@dataclass(frozen=True)
class MaskInput:
    """A raster that is read as class indices.

    Args:
        source: of values.
        classes: the indices that are wanted.
        names: by index; empty where all are buildings.
        building: which of the classes is buildings; None where none is known to be.
        table: (256,) from value to class index; None of probabilities.
        threshold: on probabilities; None of a mask.
        score: probabilities beside a mask, if any.
        notes: what was assumed, for the person to see.
    """

    source: RasterFile
    classes: tuple[int, ...]
    names: tuple[str, ...]
    building: int | None
    table: NDArray[np.uint8] | None
    threshold: float | None
    score: RasterFile | None = None
    notes: tuple[str, ...] = ()

    @property
    def grid(self) -> GeoGrid:
        return self.source.grid

    def blocks(self) -> Iterator[MaskBlock]:
        """Windows of whole rows that partition the raster, from top to bottom.

        Raises:
            DataError: a file cannot be read.
            LabelError: a probability is not in 0..1.
        """
        for window, raster in _blocks(self.source):
            score = None
            if self.table is None:
                score = _probabilities(raster, self.source.name)
                mask = self._above(raster, score)
            else:
                mask = self.table[_indices(raster, self.source.name)]
                mask[~raster.valid] = NODATA
                if self.score is not None:
                    score = _probabilities(self.score.read(window), self.score.name)
            occurring = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
            yield MaskBlock(window, mask, score, occurring)

    def _above(self, raster: Raster, score: NDArray[np.float32] | NDArray[np.uint8]) -> Mask8:
        assert self.threshold is not None
        least = self.threshold * (255 if score.dtype == np.uint8 else 1)
        return np.where(raster.valid, score >= least, NODATA).astype(np.uint8)


Mask8 = NDArray[np.uint8]


def open_mask(
    path: Path,
    *,
    threshold: float | None = None,
    classes: Sequence[str] = (),
    score: Path | None = None,
    progress: Progress | None = None,
) -> MaskInput:
    """Finds out how a raster is to be read; a mask is looked through for that.

    Fractions, and bytes where a threshold is given, are probabilities. In a mask 0 is the
    background. A mask with one more value shows buildings; of a mask with several each value is a
    class, and 255 is nodata.

    Args:
        path: of the raster.
        threshold: from which on a probability is a building; default 0.5.
        classes: values or names that are wanted; default all.
        score: of a raster of probabilities beside a mask.
        progress: see `Progress`.

    Raises:
        DataError: a file cannot be read, or the two are not of one size.
        LabelError: the values are neither classes nor probabilities.
        ConfigError: options that have no use for such a raster; a class that is not in it.
    """
    source = open_raster(path, palette="indices")
    if source.dtype.kind == "f" or threshold is not None:
        for option, given in (("--class", classes), ("--score", score)):
            if given:
                raise ConfigError(
                    f"{option} was given, but {path} is read as probabilities of buildings.",
                    remedy=f"Leave out {option}, or give a mask without --threshold.",
                )
        return _probability_input(source, threshold)
    beside = None if score is None else open_raster(score)
    if beside is not None and beside.grid.shape != source.grid.shape:
        raise DataError(
            f"{score} has {_size(beside.grid)}, but the mask {path} has {_size(source.grid)}.",
            remedy="Give the probabilities that the mask was made from.",
        )
    found = _values(source, progress)
    return _mask_input(source, found, read_categories(path), classes, beside)


def _probability_input(source: RasterFile, threshold: float | None) -> MaskInput:
    if source.bands != 1 and source.dtype != np.uint8:
        raise LabelError(
            f"{source.name} has {source.bands} bands of {source.dtype}; probabilities of buildings "
            "are one band.",
            remedy="Pick the band of the buildings: gdal_translate -b 2 IN OUT",
        )
    if source.dtype.kind != "f" and source.dtype != np.uint8:
        raise LabelError(
            f"{source.name} holds {source.dtype} values; probabilities are fractions from 0 to 1, "
            "or bytes from 0 to 255.",
            remedy="Leave out --threshold if it is a mask.",
        )
    notes: tuple[str, ...] = ()
    if threshold is None:
        threshold = _DEFAULT_THRESHOLD
        notes = (f"{source.name} holds probabilities: buildings are where they reach 0.5.",)
    return MaskInput(source, (1,), (), 1, None, threshold, notes=notes)


def _mask_input(
    source: RasterFile,
    found: list[int],
    names: tuple[str, ...],
    wanted: Sequence[str],
    score: RasterFile | None,
) -> MaskInput:
    notes = []
    present = [value for value in found if value != 0]
    if not present and source.nodata[0]:
        notes.append(
            f"{source.name} has nothing but background, and by its own word {source.nodata[0]:g} "
            "is nodata; if that is a class, unset it: gdal_edit.py -unsetnodata FILE"
        )
    if len(present) > _MOST_CLASSES and not (names or wanted):
        raise LabelError(
            f"{source.name} has {len(present)} different values; of a mask without names of "
            f"classes at most {_MOST_CLASSES} were expected.",
            remedy="If they are probabilities, or JPEG has blurred black and white, add "
            "--threshold 0.5; if some are classes, name them: --class 3",
        )
    if len(present) > 1 and NODATA in present:
        present.remove(NODATA)
        notes.append(f"{source.name}: {NODATA} beside other classes is taken for nodata.")
    chosen = [_value_of(text, present, names, source.name) for text in wanted] or present
    table = np.zeros(256, np.uint8)
    if len(names) <= 2 and len(chosen) <= 1:
        # One thing on a background, whatever its value.
        table[chosen] = 1
        return MaskInput(source, (1,), (), 1, table, None, score, tuple(notes))
    table[chosen] = chosen
    called = tuple(
        names[value] if value < len(names) and names[value] else str(value)
        for value in range(max(chosen, default=1) + 1)
    )
    building = [value for value in chosen if called[value].casefold() in _BUILDING]
    if not building:
        notes.append(
            f"{source.name}: none of the classes {', '.join(called[v] for v in chosen)} is called "
            "building, so that none gets right angles."
        )
    return MaskInput(
        source, tuple(sorted(set(chosen))), called, next(iter(building), None), table, None, score,
        tuple(notes),
    )  # fmt: skip


def _value_of(text: str, present: list[int], names: tuple[str, ...], name: str) -> int:
    folded = [known.casefold() for known in names]
    value = folded.index(text.casefold()) if text.casefold() in folded else None
    if value is None and text.isdecimal():
        value = int(text)
    if value in present:
        return value
    shown = [f"{v} ({names[v]})" if v < len(names) else str(v) for v in present]
    raise ConfigError(
        f"--class received {text!r}, which is not in {name}; there are "
        f"{', '.join(shown) or 'no classes'}.",
        remedy="Give one of these, by its value or its name.",
    )


def _blocks(source: RasterFile) -> Iterator[tuple[Window, Raster]]:
    whole = Window.whole(source.grid.shape)
    rows = max(_BLOCK_PX // whole.width // _BAND_PX, 1) * _BAND_PX
    for window in whole.strips(rows):
        yield window, source.read(window)


def _values(source: RasterFile, progress: Progress | None) -> list[int]:
    """All values of a mask, ascending."""
    count = np.zeros(256, np.int64)
    for window, raster in _blocks(source):
        values = _indices(raster, source.name)
        count += np.bincount(values[raster.valid], minlength=256)
        if progress is not None:
            progress(window.area_px)
    return np.flatnonzero(count).tolist()


def _indices(raster: Raster, name: str) -> Mask8:
    """(y, x) values of a mask; anything where nothing is known.

    Raises:
        LabelError: it is coloured, or has values that are no bytes.
    """
    data = raster.data
    if len(data) > 1 and ((data[1:] != data[0]).any(axis=0) & raster.valid).any():
        raise LabelError(
            f"{name} is coloured: {len(data)} bands that differ. A mask has one band, or bands "
            "that are alike.",
            remedy="If its colours are classes, make a mask of values of it: rooftrace convert.",
        )
    values = data[0]
    if values.dtype == np.uint8:
        return np.asarray(values, np.uint8)
    strange = ((values < 0) | (values > NODATA)) & raster.valid
    if strange.any():
        shown = np.unique(values[strange])[:_SHOWN].tolist()
        raise LabelError(
            f"{name} holds values such as {', '.join(map(str, shown))}; classes are 0 to 254.",
            remedy="If the values are numbers of buildings, make a mask of 0 and 1 of it.",
        )
    return np.where(raster.valid, values, 0).astype(np.uint8)


def _probabilities(raster: Raster, name: str) -> NDArray[np.float32] | NDArray[np.uint8]:
    """(y, x); 0 where nothing is known.

    Raises:
        LabelError: they are not in 0..1.
    """
    if raster.data.dtype == np.uint8:
        return np.where(raster.valid, _indices(raster, name), np.uint8(0))
    values = raster.data[0]
    known = np.where(raster.valid, values, 0).astype(np.float32)
    low, high = float(known.min()), float(known.max())
    if low < 0 or high > 1:
        raise LabelError(
            f"{name} holds values from {low:g} to {high:g}; probabilities are fractions from 0 "
            "to 1.",
            remedy="Divide it by its largest value, or give a mask of whole numbers.",
        )
    return known


def _size(grid: GeoGrid) -> str:
    return f"{grid.height} rows × {grid.width} columns"
