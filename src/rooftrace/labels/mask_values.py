"""Convert the values of masks, and the names of labels, to class indices."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.config import did_you_mean
from rooftrace.core.errors import LabelError
from rooftrace.core.text import list_first, plural, set_option, size_text
from rooftrace.core.types import BoolArray, GeoGrid, Ints, Mask
from rooftrace.io.legend import Colour

IGNORED = -1
"""Value in place of a class index for pixels that are left out of loss and metrics."""

_MOST_CLASSES = 20
"""Maximum number of values of a mask that may be classes; more are numbers of buildings."""

FULL = 255
"""Value of the building in a mask of two classes, unless the file contains a 1."""

JPEG_SUFFIXES = (".jpg", ".jpeg")
_PLAIN = re.compile(r"(building|roof|rooftop|house)s?|building[ _-]?footprints?")
"""Names of labels, in lower case, that plainly mean building."""

_MISSPELT = 0.85
"""Minimum similarity of two names of which one may be a misspelling."""


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
            and FULL not in self.ignore
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
            colours = (
                _commonest(pack_colours(data[:3])[_known(valid)].ravel()) if len(data) > 2 else []
            )
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
        return known | {FULL: 1} if len(self.classes) == 2 and not by_index else known

    def _by_value(
        self, values: NDArray[Any], name: str, valid: BoolArray | None, by_index: bool
    ) -> tuple[NDArray[np.uint8], BoolArray | None]:
        if self.ignore:
            valid = ~np.isin(values, self.ignore) & _known(valid)
        seen = values if valid is None else values[valid]
        # A file uses only one of the two ways to write a binary mask.
        if self.values is None:
            by_index |= len(unknown_values(seen, (0, FULL))) > 0
        known = self._known_values(by_index)
        # A mask of only 0 and 255 need not be examined again.
        if by_index or self.values is not None or FULL not in known:
            invalid = unknown_values(seen, known)
            if len(invalid):
                usual = np.isin((0, 1), seen).tolist()
                raise self._invalid_values(invalid.tolist(), name, usual)
        table = np.zeros(max(*known, FULL) + 1, dtype=np.uint8)
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
            if FULL in rest[1:]:
                rest.remove(FULL)
                ignored = f" {set_option('labels.ignore', [FULL])}"
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
            if not len(unknown_values(data[0][_known(valid)], greys)):
                data = data[[0, 0, 0]]
        if len(data) != 3 or data.dtype != np.uint8:
            raise LabelError(
                f"The mask {name} has {plural(len(data), 'band')} of {data.dtype}; a palette is "
                "given, so 8-bit RGB was expected.",
                remedy="Remove the palette from the configuration if the masks hold class indices.",
            )
        packed = pack_colours(data)
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


def instance_numbers(data: NDArray[Any]) -> Ints:
    """Return (y, x) one number for each value of a mask (band, y, x)."""
    if len(data) in (3, 4) and (data[1:3] != data[0]).any():
        return pack_colours(data[:3])
    return np.asarray(data[0], np.int64)


def unknown_values(values: NDArray[Any], known: Iterable[int]) -> NDArray[Any]:
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


def pack_colours(data: NDArray[Any]) -> Ints:
    """Return the colours (y, x) of three bands, each as one number."""
    red, green, blue = data.astype(np.int64)
    packed: Ints = (red << 16) | (green << 8) | blue
    return packed


def _pack_one(colour: Colour) -> int:
    return (colour[0] << 16) | (colour[1] << 8) | colour[2]
