"""Convert the pixels of mask files, and the names of labels, to class indices."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.config import did_you_mean
from rooftrace.core.errors import DataError, LabelError
from rooftrace.core.text import list_first, plural, reason_of, set_option, size_text
from rooftrace.core.types import BoolArray, GeoGrid, Ints, Mask, Raster, RasterSource, Window
from rooftrace.io.files import read_head
from rooftrace.io.georeferenced import ArraySource, WrappedSource
from rooftrace.io.legend import Colour
from rooftrace.io.raster import RasterFile, open_raster
from rooftrace.io.reproject import pixels_apart

IGNORED = -1
"""Value in place of a class index for pixels that are left out of loss and metrics."""

_MOST_CLASSES = 20
"""Maximum number of values of a mask that may be classes; more are numbers of buildings."""

_FULL = 255
"""Value of the building in a mask of two classes, unless the file contains a 1."""

_HALF = 127
"""Value above which a pixel of a smoothed mask of 0 and 255 is a building."""

_MOST_BLUR = 0.1
"""Maximum share of pixels far from both 0 and 255 in a smoothed mask of these two values."""

_LEAST_SHADES, _MOST_FLAT = 4, 0.05
"""Minimum number of values between 0 and 255 in a smoothed mask that is no JPEG, and maximum share
of their pixels whose neighbours have the same value: in masks of Rotterdam, Geneva and Nacala, at
most 0.004 after JPEG, antialiasing or resampling, and 0.33 or more if values are buildings."""

JPEG_SUFFIXES = (".jpg", ".jpeg")
_JPEG = b"\xff\xd8\xff"

_MOST_SHIFT_PX = 1.0
"""Maximum distance of a mask from its image by their georeferences, in pixels."""

_PLAIN = re.compile(r"(building|roof|rooftop|house)s?|building[ _-]?footprints?")
"""Names of labels, in lower case, that plainly mean building."""

_MISSPELT = 0.85
"""Minimum similarity of two names of which one may be a misspelling."""

_ROWS = 1024
"""Number of rows of a mask that are examined at a time."""


def check_size(where: str, stated: tuple[int, int] | None, grid: GeoGrid, image: str) -> None:
    """Raise LabelError for a label that was drawn on an image of another size."""
    if stated is not None and stated != grid.shape:
        raise LabelError(
            f"{where} is for an image of {size_text(stated)}, but {image} has "
            f"{size_text(grid.shape)}.",
            remedy="Give the image on which it was drawn, or export the label again.",
        )


def mask_of(indices: NDArray[np.int16], grid: GeoGrid) -> Mask:
    """Return class indices (y, x) as a mask in which pixels that are IGNORED are not valid."""
    valid = indices != IGNORED
    return Mask(np.where(valid, indices, 0).astype(np.uint8), valid, grid)


@dataclass(frozen=True)
class LabelRule:
    """Rule that reads pixel values as classes.

    Without a palette or values, and with two classes, a file may contain 0/1 or 0/255; if it
    contains a 1 anywhere, 255 is not a class. With more classes, values are class indices.

    Args:
        classes: Class names by class index. Index 0 is the background.
        palette: Pairs of RGB colour and class index; None for masks of single values. Each colour
            belongs to one class.
        ignore: Values (or, with a palette, colours) that are left out of loss and metrics.
        values: Pairs of value and class index, if values are not the indices themselves.
        instances: Whether every value above 0 is one building; bands are the bytes of a value.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[Colour, int], ...] | None = None
    ignore: tuple[int, ...] | tuple[Colour, ...] = ()
    values: tuple[tuple[int, int], ...] | None = None
    instances: bool = False

    @property
    def is_255_ambiguous(self) -> bool:
        """True if only the whole file can show that 255 is a class."""
        return (
            self.palette is None
            and self.values is None
            and not self.instances
            and len(self.classes) == 2
            and _FULL not in self.ignore
        )

    def decode(
        self,
        data: NDArray[Any],
        name: str,
        valid: BoolArray | None = None,
        *,
        by_index: bool = False,
    ) -> tuple[NDArray[np.uint8], BoolArray | None]:
        """Convert pixels (band, y, x) to classes (y, x) and validity (y, x).

        The validity is None if all pixels are valid. The class of an invalid pixel is 0.

        Args:
            name: Name of the file, for error messages.
            valid: (y, x) False where the file itself has nodata, where any value may occur;
                default all True.
            by_index: Whether 255 is not a class, as the rest of the file shows.

        Raises:
            LabelError: A value or colour is not a class. The message names the file, the values and
                their number.
        """
        if self.instances:
            numbers = instance_numbers(data)
            known = ~np.isin(numbers, [one for one in self.ignore if isinstance(one, int)])
            known &= _known(valid) | (numbers == 0)
            return ((numbers > 0) & known).astype(np.uint8), known
        if self.palette is not None:
            return self._by_colour(data, name, valid)
        is_whole = valid is None or valid.all()
        if len(self.classes) == 2 and len(data) == 3 and is_whole and not data[1:].any():
            data = data[:1]  # red on black
        if len(data) > 1 and ((data[1:] != data[0]).any(axis=0) & _known(valid)).any():
            colours = _commonest(_pack(data[:3])[_known(valid)].ravel()) if len(data) > 2 else []
            held = f"; it contains {list_first(colours)}" if colours else ""
            # Mostly ground is commoner, or transparent.
            shown = [one.split()[0] for one in colours[:5]]
            ground, building, *rest = shown if len(shown) > 1 else ["#000000", *shown, "#FF0000"]
            others = [ground, *rest] if len(shown) > 2 else ground
            remedy = (
                "Name the class of each of its colours, for instance "
                f"{set_option('labels.palette.building', building)} "
                f"{set_option('labels.palette.background', others)}."
            )
            if len(colours) > _MOST_CLASSES:
                remedy = (
                    "So many colours are those of a picture, or of a JPEG. Swap the two if images "
                    "were given as masks (IMAGES --truth MASKS); save masks as PNG or TIFF."
                )
            raise LabelError(
                f"The mask {name} is coloured ({len(data)} bands that differ), but no palette "
                f"is given{held}.",
                remedy=remedy,
            )
        return self._by_value(data[0], name, valid, by_index)

    def check_nodata(
        self, nodata: tuple[float | None, ...], name: str, *, by_index: bool = False
    ) -> None:
        """Refuse a file whose nodata value is one of the classes.

        Tools that rasterise often mark the background as nodata. Read literally, such a file leaves
        the class out of loss and metrics, and the model learns that everything is a building.

        Args:
            nodata: Nodata value of each band of the file.
            name: Name of the file, for error messages.
            by_index: See `decode`.

        Raises:
            LabelError: The nodata value is a class and is not named under `ignore`.
        """
        if self.instances:
            return
        if self.palette is not None:
            clash = (nodata * 3)[:3] in {colour for colour, _ in self.palette} - set(self.ignore)
        else:
            clash = nodata[0] in set(self._known_values(by_index)) - set(self.ignore)
        if clash:
            raise LabelError(
                f"The mask {name} has the nodata value {nodata[0]:g}, which is a class.",
                remedy="If the class is meant, unset nodata: gdal_edit.py -unsetnodata FILE, or "
                "save a PNG without transparency. If these pixels are unknown, name the value "
                "under ignore.",
            )

    def _known_values(self, by_index: bool) -> dict[int, int]:
        """Return the class index of every value that a file may contain."""
        if self.values is not None:
            return dict(self.values)
        known = {index: index for index in range(len(self.classes))}
        return known | {_FULL: 1} if len(self.classes) == 2 and not by_index else known

    def _by_value(
        self, values: NDArray[Any], name: str, valid: BoolArray | None, by_index: bool
    ) -> tuple[NDArray[np.uint8], BoolArray | None]:
        if self.ignore:
            valid = ~np.isin(values, self.ignore) & _known(valid)
        seen = values if valid is None else values[valid]
        # A file uses only one of the two ways to write a binary mask.
        if self.values is None:
            by_index |= len(_unknown_values(seen, (0, _FULL))) > 0
        known = self._known_values(by_index)
        # A mask of only 0 and 255 need not be examined again.
        if by_index or self.values is not None or _FULL not in known:
            invalid = _unknown_values(seen, known)
            if len(invalid):
                usual = np.isin((0, 1), seen).tolist()
                raise self._invalid_values(invalid.tolist(), name, usual)
        table = np.zeros(max(*known, _FULL) + 1, dtype=np.uint8)
        for value, index in known.items():
            table[value] = index
        if valid is None:
            return _looked_up(values, table), None
        classes = np.zeros(values.shape, dtype=np.uint8)
        classes[valid] = table[seen.astype(np.intp, copy=False)]
        return classes, valid

    def _invalid_values(self, invalid: list[Any], name: str, usual: list[bool]) -> LabelError:
        """Return the error for values of a mask; `usual` is whether it has 0, and 1."""
        if self.values is not None:
            allowed = ", ".join(str(value) for value, _ in self.values)
        elif len(self.classes) == 2:
            allowed = "0 and 1, or 0 and 255"
        else:
            allowed = f"0 to {len(self.classes) - 1}"
        shown = list_first(invalid)
        if name.lower().endswith(JPEG_SUFFIXES):
            remedy = "A JPEG blurs values: save the mask as PNG or TIFF."
        elif self.values is None and len(invalid) > _MOST_CLASSES:
            remedy = "If each value is one building, give --set labels.instances=true."
        else:
            known = dict(self.values or ())
            seen = [] if known else [value for value in (0, 1) if usual[value]]
            # Of several values without 1, the last stands for any: the user knows which is meant.
            likely = [1] if 1 in seen and len(seen) + len(invalid) > 2 else invalid[-1:]
            built = [value for value, index in known.items() if index == 1] or likely
            ground = {value for value, index in known.items() if not index}
            rest = sorted({*ground, *seen, *invalid} - {*built}) or [0]
            ignored = ""
            if _FULL in rest[1:]:
                rest.remove(_FULL)
                ignored = f" {set_option('labels.ignore', [_FULL])}"
            other, target = self.classes[:2]
            remedy = (
                f"Say which values are the {target}, and list the others as {other}, for "
                f"instance {set_option(f'labels.values.{target}', built)} "
                f"{set_option(f'labels.values.{other}', rest)}{ignored}, or --set "
                "labels.instances=true if each is one building. If they are further classes, name "
                "all in the order of the values: --set 'labels.classes=[…]'."
            )
        return LabelError(
            f"The mask {name} contains {plural(len(invalid), 'value')} not of a class "
            f"({shown}); expected {allowed} for the classes {', '.join(self.classes)}.",
            remedy=remedy,
        )

    def _by_colour(
        self, data: NDArray[Any], name: str, valid: BoolArray | None
    ) -> tuple[NDArray[np.uint8], BoolArray | None]:
        assert self.palette is not None
        if len(data) == 1:
            meant = (*dict(self.palette), *self.ignore)
            greys = [one[0] for one in meant if isinstance(one, tuple) and len({*one}) == 1]
            if not len(_unknown_values(data[0][_known(valid)], greys)):
                data = data[[0, 0, 0]]
        if len(data) != 3 or data.dtype != np.uint8:
            raise LabelError(
                f"The mask {name} has {plural(len(data), 'band')} of {data.dtype}; a palette is "
                "given, so 8-bit RGB was expected.",
                remedy="Remove the palette from the configuration if the masks hold class indices.",
            )
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
        if found.all():
            return classes, valid
        colours = _commonest(packed[~found])
        shown: dict[str, list[str]] = {}
        for colour, index in self.palette:
            shown.setdefault(self.classes[index], []).append(f"#{_pack_one(colour):06X}")
        shown.setdefault(self.classes[1], []).append(colours[0].split()[0])
        options = (set_option(f"labels.palette.{key}", held) for key, held in shown.items())
        raise LabelError(
            f"The mask {name} contains colours that are not in the palette: {list_first(colours)}.",
            remedy=f"Give every colour, for instance {' '.join(options)}; ignore leaves some out.",
        )


def _is_plain(name: str) -> bool:
    return _PLAIN.fullmatch(name.strip().casefold()) is not None


@dataclass(frozen=True)
class NameRule:
    """Rule that reads names of labels as classes."""

    classes: tuple[str, ...]
    known: tuple[tuple[str, int], ...]
    dropped: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()

    def fitted(
        self,
        names: Iterable[str],
        where: str,
        *,
        unsure: bool = False,
        declared: Iterable[str] = (),
    ) -> tuple[NameRule, tuple[str, ...]]:
        """Return the rule for the names that occur, and a note on those that it leaves out.

        With two classes, a name that plainly means building needs no definition where the class
        does: building(s), roof(s), rooftop(s) or house(s). Others are left out, unless one may be
        a misspelling. With more classes, those of a legend are left out alone.

        Args:
            where: Location of the labels for error messages.
            unsure: Whether the names need not occur, as in a legend.
            declared: Names of all labels, also of those that no shape of this file has.

        Raises:
            LabelError: Several names may mean building, or none does.
        """
        counts = Counter(names)
        several = len(self.classes) > 2
        if (several and not unsure) or self.dropped or not counts:
            return self, ()
        stated = {name for name, _ in self.known if name not in self.classes}
        folded = {name.strip().casefold(): name for name in counts}
        target = self.classes[1]
        means = _is_plain if _is_plain(target) else lambda one: one.casefold() == target.casefold()
        plain = [name for name in folded.values() if means(name) and not several]
        own = {name.casefold() for name, _ in self.known} | {n.casefold() for n in self.ignored}
        others = [name for key, name in folded.items() if key not in own]
        if stated:
            plain = [name for name in plain if name.strip().casefold() in own]
        elif len(plain) > 1 and others:
            listed = ", ".join(map(repr, plain))
            raise LabelError(
                f"{where} has the labels {listed}, each of which may mean building.",
                remedy="Say which are buildings; others are left out: --set "
                f"'labels.names.{target}={json.dumps(plain, ensure_ascii=False)}'",
            )
        elif not plain and others and not (several or any(map(means, declared))):
            # Several kinds of roofs or buildings are all meant.
            built = [name for name in others if _PLAIN.search(name.casefold())] or others[:1]
            raise LabelError(
                f"{where} has the labels {list_first([*map(repr, others)])}, none of "
                f"which plainly means {target}.",
                remedy=f"Say which mean {target}; others are left out: "
                f"{set_option(f'labels.names.{target}', built if len(built) > 1 else built[0])}",
            )
        building = [name for name in plain if name.strip().casefold() not in own]
        left_out = [name for name in others if name not in building]
        for name in left_out:
            close = difflib.get_close_matches(name.casefold(), own, 1, _MISSPELT)
            if close and not unsure:
                # The usual error names what is similar.
                self.index_of(name, where)
        rule = replace(
            self,
            known=(*self.known, *((name, 1) for name in building)),
            dropped=frozenset(left_out),
        )
        if not left_out or unsure:
            return rule, ()
        count = sum(counts[name] for name in left_out)
        listed = list_first([*map(repr, left_out)])
        return rule, (f"Left out: {plural(count, 'shape')} with other labels: {listed}.",)

    def index_of(self, name: str, where: str) -> int | None:
        """Return the class index of a label, IGNORED, or None if it is not drawn.

        Args:
            name: Name of the label. An exact match goes before one that differs in case.
            where: Location of the label for error messages.

        Raises:
            LabelError: The name is not a class, and the rule does not define it.
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
            + did_you_mean(name, (known for known, _ in self.known)),
            remedy=f"Define it: --set labels.names.{self.classes[-1]}={json.dumps(name)}; or leave "
            f"it out: --set 'labels.drop=[{json.dumps(name)}]'.",
        )


@dataclass(frozen=True)
class LabelFile:
    """The mask file of one scene (a `LabelReader`).

    Args:
        grid: Grid of the image; the mask must have its shape.
        image_name: Name of the image, for the message about a different shape.
        looked_at: Masks of the same set, whose values an error lists.
        is_of_smoothed: Whether masks of the same set are smoothed, see `count_smoothed`.
        gsd_m: Metres per pixel by a file beside the mask, for an image without a georeference.
    """

    path: Path
    rule: LabelRule
    grid: GeoGrid
    image_name: str
    looked_at: tuple[Path, ...] = ()
    is_of_smoothed: bool = False
    gsd_m: float | None = None

    def read(self, window: Window | None = None) -> Mask:
        """Return the classes inside `window` of the image.

        Raises:
            LabelError: The size differs from the image's, or a value is not a class.
            DataError: The file cannot be read.
        """
        source = self._source
        raster = self._sharp(source.read(window))
        by_index = self._is_indexed(source, raster)
        self.rule.check_nodata(_nodata(source), str(self.path), by_index=by_index)
        known = None if raster.valid.all() else raster.valid
        try:
            classes, valid = self.rule.decode(raster.data, str(self.path), known, by_index=by_index)
        except LabelError:
            self._check_all(raster, by_index)
            raise
        grid = self.grid if window is None else self.grid.crop(window)
        return Mask(classes, raster.valid if valid is None else valid, grid)

    def read_instances(self, window: Window | None = None) -> NDArray[np.int32] | None:
        """Return (y, x) the number of the building at each pixel; None if values are classes."""
        if not self.rule.instances:
            return None
        numbers = instance_numbers(self._source.read(window).data)
        return np.where(self.read(window).data, numbers, 0).astype(np.int32)

    def _sharp(self, raster: Raster) -> Raster:
        """Return pixels of this mask without shades between 0 and 255, if it is a smoothed one."""
        if not self.rule.is_255_ambiguous or raster.data.dtype != np.uint8:
            return raster
        shades = _unknown_values(raster.data[0], (0, _FULL)).tolist()
        # A part may have the first of many shades alone.
        is_part = raster.grid.shape != self.grid.shape
        if not shades or (shades == [1] and not is_part):
            return raster
        # A tile may have the edge of a building alone: others show what its shades are.
        is_blurred = (self.is_of_smoothed and shades != [1]) or is_smoothed(self.path)
        return _sharpened(raster) if is_blurred else raster

    def _check_all(self, raster: Raster, by_index: bool) -> None:
        """Raise the LabelError of this mask for the values of all that are looked at."""
        pixels = [raster.data[:, raster.valid]]
        for path in sorted({*self.looked_at} - {self.path}):
            with suppress(DataError):
                source = open_mask(path, colours=self.rule.palette is not None)
                other = _middle_of(source)
                if len(other.data) == len(raster.data):
                    pixels.append(other.data[:, other.valid])
        try:
            self.rule.decode(np.concatenate(pixels, 1)[:, None], str(self.path), by_index=by_index)
        except LabelError as error:
            many = f" These are the values of {len(pixels)} masks." if pixels[1:] else ""
            raise LabelError(error.message + many, remedy=error.remedy) from None

    @property
    def _source(self) -> RasterSource:
        """The opened mask, checked to lie on the grid of the image."""
        colours = self.rule.palette is not None
        source = open_mask(self.path, colours=colours, sharp=self.rule.is_255_ambiguous)
        check_size(f"The mask {self.path}", source.grid.shape, self.grid, self.image_name)
        placed = source.grid.crs is not None and self.grid.crs is not None
        shift_px = pixels_apart(source.grid, self.grid) if placed else 0.0
        if shift_px > _MOST_SHIFT_PX:
            raise LabelError(
                f"The mask {self.path} lies elsewhere on the ground than its image "
                f"{self.image_name}: by their georeferences, {shift_px:.1f} pixels away.",
                remedy="Give the mask that belongs to the image; or, if the pixels fit, remove its "
                "georeference: gdal_edit.py -unsetgt MASK.",
            )
        return source

    def _is_indexed(self, source: RasterSource, raster: Raster) -> bool:
        """Return whether the whole file shows that 255 is not a class, also if a part is read."""
        if not self.rule.is_255_ambiguous:
            return False
        one, full = _holds(raster)
        if one or not (full or _nodata(source)[0] == _FULL):
            return one
        if raster.grid.shape != self.grid.shape:
            one, full = self._whole_holds
        # If the file contains no 255, it may declare 255 as nodata.
        return one or not full

    @cached_property
    def _whole_holds(self) -> tuple[bool, bool]:
        source, full = self._source, False
        for strip in Window.whole(self.grid.shape).strips(_ROWS):
            one, here = _holds(self._sharp(source.read(strip)))
            full |= here
            if one:
                return True, full
        return False, full


class _SharpMask(WrappedSource):
    """A smoothed mask of 0 and 255 without the values between."""

    def read(self, window: Window | None = None) -> Raster:
        return _sharpened(self.source.read(window))


def _sharpened(raster: Raster) -> Raster:
    return replace(raster, data=np.where(raster.data > _HALF, np.uint8(_FULL), np.uint8(0)))


def without_blur(source: RasterSource, head: bytes) -> RasterSource:
    """Return a smoothed mask of 0 and 255 without the values between; another mask as it is."""
    return _SharpMask(source) if _is_blurred(source, head) else source


def _is_blurred(source: RasterSource, head: bytes) -> bool:
    """Return whether a mask is one of 0 and 255 with smoothed edges.

    A JPEG needs no other evidence than values near both; any other file has shades along edges.
    """
    if source.dtype != np.uint8:
        return False
    counts, flat = np.zeros(256, np.int64), 0
    around = np.ones((3, 3), np.uint8)
    for strip in Window.whole(source.grid.shape).strips(_ROWS):
        data = source.read(strip).data
        # NumPy's bincount takes eight bytes for each pixel.
        shades = cv2.calcHist([data.reshape(-1, data.shape[2])], [0], None, [256], [0, 256])
        counts += shades.ravel().astype(np.int64)
        if not head.startswith(_JPEG):
            band = data[0]
            alike = cv2.erode(band, around) == cv2.dilate(band, around)
            flat += len(data) * int((alike & (band > 0) & (band < _FULL)).sum())
    # Classes by index are near 0, and grey pictures lie between.
    middle, bright = counts[_HALF // 2 + 1 : _FULL - _HALF // 2], counts[_FULL - _HALF // 2 :]
    if middle.sum() > _MOST_BLUR * counts.sum():
        return False
    if head.startswith(_JPEG):
        return bool(counts[_HALF + 1 :].any() or not counts[1:].any())
    shades = counts[1:_FULL]
    is_edge = flat <= _MOST_FLAT * shades.sum() and 2 * middle.sum() <= bright.sum()
    # Without a bright pixel, heights of roofs in metres would all become ground.
    return bool(is_edge and bright.any() and np.count_nonzero(shades) >= _LEAST_SHADES)


def count_smoothed(paths: Iterable[Path]) -> int:
    """Return how many mask files have smoothed edges in their middle."""
    count = 0
    for path in paths:
        with suppress(DataError, OSError):
            middle = _middle_of(open_mask(path, sharp=False))
            count += _is_blurred(ArraySource(middle.data), read_head(path, 3))
    return count


def colours_in(paths: Iterable[Path]) -> set[str]:
    """Return the colours (`#RRGGBB`) in the middle of mask files; a grey one has single bands."""
    found: set[int] = set()
    for path in paths:
        with suppress(DataError, OSError):
            middle = _middle_of(open_mask(path, colours=True, sharp=False))
            data = middle.data[:3] if len(middle.data) > 2 else middle.data[[0, 0, 0]]
            found.update(np.unique(_pack(data)[middle.valid]).tolist())
    return {f"#{one:06X}" for one in found}


def _middle_of(source: RasterSource) -> Raster:
    """Return the middle of a mask, where buildings are likelier than at its edge."""
    return source.read(Window.middle(source.grid.shape, _ROWS))


def is_smoothed(path: Path) -> bool:
    """Return whether a file is a mask of 0 and 255 with smoothed edges, see `LabelFile`."""
    status = path.stat()
    return path.suffix.lower() != ".npy" and _is_blurred_file(
        path, status.st_mtime_ns, status.st_size
    )


@lru_cache(maxsize=1 << 17)
def _is_blurred_file(path: Path, mtime_ns: int, size: int) -> bool:
    """Return `_is_blurred` of a file, which takes as long as decoding it."""
    source = open_raster(path, palette="indices", trusted=True)
    return _is_blurred(source, read_head(path, 3))


def open_mask(path: Path, *, colours: bool = False, sharp: bool = True) -> RasterSource:
    """Open a mask file of any kind: an image, or an array of NumPy.

    Args:
        colours: Whether a palette is looked up.
        sharp: Whether a JPEG is read `without_blur`, which decodes it once.
    """
    if path.suffix.lower() != ".npy":
        source = open_raster(path, palette="colours" if colours else "indices", trusted=True)
        if not (sharp and read_head(path, 3).startswith(_JPEG)):
            return source
        return _SharpMask(source) if is_smoothed(path) else source
    try:
        # Mapped, so that a window of a large mask reads its own pixels alone.
        array = np.asarray(np.load(path, allow_pickle=False, mmap_mode="r"))
    except (OSError, ValueError, EOFError) as error:
        raise LabelError(
            f"The mask {path} cannot be read: {reason_of(error)}.", remedy="Save it again."
        ) from error
    if array.ndim == 3 and array.shape[-1] in (1, 3):
        array = np.moveaxis(array, -1, 0)
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    return ArraySource(array if array.ndim == 3 else array[None], name=str(path))


def _nodata(source: RasterSource) -> tuple[float | None, ...]:
    return source.nodata if isinstance(source, RasterFile) else (None,)


def instance_numbers(data: NDArray[Any]) -> Ints:
    """Return (y, x) one number for each value of a mask (band, y, x)."""
    if len(data) in (3, 4) and (data[1:3] != data[0]).any():
        return _pack(data[:3])
    return np.asarray(data[0], np.int64)


def _holds(raster: Raster) -> tuple[bool, bool]:
    """Return whether a binary mask contains a 1, and whether it contains a 255."""
    one = (raster.data[0] == 1) & raster.valid
    return bool(one.any()), bool((raster.data[0] == _FULL).any())


def _unknown_values(values: NDArray[Any], known: Iterable[int]) -> NDArray[Any]:
    """Return the sorted values that are not among `known`."""
    if values.dtype == np.uint8:
        invalid = np.ones(256, dtype=np.uint8)
        invalid[[value for value in known if value < len(invalid)]] = 0
        if not _looked_up(values, invalid).any():
            return values[:0].ravel()
        present: NDArray[Any] = np.bincount(values.ravel()).nonzero()[0]
    else:
        present = np.unique(values)
    return present[~np.isin(present, list(known))]


def _looked_up(values: NDArray[Any], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return table[values]; for bytes this is several times faster than NumPy."""
    if values.dtype == np.uint8 and values.size:
        return np.asarray(cv2.LUT(values, table[:256]), dtype=np.uint8).reshape(values.shape)
    return table[values.astype(np.intp, copy=False)]


def _known(valid: BoolArray | None) -> BoolArray:
    return np.ones((), dtype=bool) if valid is None else valid


def _commonest(packed: Ints) -> list[str]:
    """Return packed colours, each with its number of pixels, the commonest first."""
    colours, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [f"#{colours[i]:06X} ({counts[i]:,} px)" for i in order]


def _pack(data: NDArray[Any]) -> Ints:
    red, green, blue = data.astype(np.int64)
    packed: Ints = (red << 16) | (green << 8) | blue
    return packed


def _pack_one(colour: Colour) -> int:
    return (colour[0] << 16) | (colour[1] << 8) | colour[2]
