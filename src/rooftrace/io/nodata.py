"""Pixels that count as nodata: by a rule besides what a file declares, and fill that none declares.

A nodata value may occur on the ground, too: `without_specks` finds the pixels that only look like
nodata. `fill_at_edges` finds areas without data that the file does not declare.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter

from rooftrace.core.errors import DataError
from rooftrace.core.text import plural
from rooftrace.core.types import BoolArray, GeoGrid, Window


@dataclass(frozen=True)
class NodataRule:
    """Rule for pixels that count as nodata.

    Args:
        value: A pixel is nodata if every band has this value.
        colour: A pixel is nodata if it has exactly these values, one per band.
        declared: Whether what the file declares counts, too: a value, a mask, or alpha of zero.
            Alpha never counts as a band.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    value: float | None = None
    colour: tuple[float, ...] | None = None
    declared: bool = True

    def colours(self, data: NDArray[Any], name: str) -> tuple[tuple[float, ...], ...]:
        """Return the colours of nodata, one value for each band of (band, y, x) pixels.

        Raises:
            DataError: The pixels cannot have such a value, or have another number of bands.
        """
        for value in (self.value, *(self.colour or ())):
            if value is not None and data.dtype.kind in "ui" and not _fits(value, data.dtype):
                limits = np.iinfo(data.dtype)
                raise DataError(
                    f"The nodata value {value:g} does not occur in {name}, whose pixels are whole "
                    f"numbers from {limits.min} to {limits.max} ({data.dtype}).",
                    remedy="Give a value of this range, or leave it out.",
                )
        if self.colour is not None and len(self.colour) != len(data):
            raise DataError(
                f"The nodata colour is {self.colour}, but {name} has {plural(len(data), 'band')}.",
                remedy="Give the colour one value per band.",
            )
        by_value = () if self.value is None else ((self.value,) * len(data),)
        return by_value if self.colour is None else (*by_value, self.colour)


_RULE: TypeAdapter[NodataRule | None] = TypeAdapter(NodataRule | None)


def nodata_to_json(rule: NodataRule | None) -> dict[str, Any] | None:
    """Return a rule as plain data; NaN and infinity are texts, since JSON has neither."""
    plain: dict[str, Any] | None = json.loads(_RULE.dump_json(rule))
    return plain


def nodata_from_json(record: object) -> NodataRule | None:
    """Return the rule in the result of `nodata_to_json`; None if there is none."""
    return _RULE.validate_python(record)


def differs(data: NDArray[Any], colour: tuple[float | None, ...], within: int = 0) -> BoolArray:
    """Return (y, x), True where any band of (band, y, x) differs from its value in `colour`.

    Args:
        data: (band, y, x) pixels; of 8 bits if `within` is not 0.
        colour: Value of each band; None for a value that no pixel has.
        within: Largest difference that does not count.
    """
    compare: Callable[[NDArray[Any], float], BoolArray] = np.not_equal
    found = np.zeros(data.shape[1:], dtype=bool)
    for band, value in zip(data, colour):
        if value is None:
            found[:] = True
        elif np.isnan(value):
            found |= ~np.isnan(band)
        elif data.dtype.kind in "ui" and not _fits(value, data.dtype):
            found[:] = True
        elif within:
            found |= cv2.absdiff(band, np.full_like(band, value)) > within
        else:
            found |= compare(band, data.dtype.type(value))
    return found


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max


SPECK_M = 4.0
"""Side in metres of the square that an area of nodata must hold somewhere, lest it is a speck.
Overexposed roofs of a town with the nodata value 255 stay whole from 4 m."""

_SPECK_PX = 2, 16, 64
"""Side in pixels of that square: least, where metres per pixel are not known, and greatest."""


def speck_side_px(gsd_m: float | None) -> int:
    """Return the side of the square for `without_specks` in pixels, an odd number."""
    least, usual, most = _SPECK_PX
    side = usual if gsd_m is None else min(max(round(SPECK_M / gsd_m), least), most)
    return side | 1


def without_specks(valid: BoolArray, side_px: int) -> BoolArray:
    """Return the validity of pixels in which enclosed specks of nodata are valid.

    Nodata is a speck unless it lies in a square of nodata: such pixels have the nodata value by
    chance, such as white on a white roof. Ground outside of the array counts as nodata, so that
    narrow areas along an edge stay. A pixel depends on others at a distance below `side_px`.

    Args:
        valid: (y, x), False where nodata.
        side_px: Side of the square, see `speck_side_px`.
    """
    nodata = cv2.copyMakeBorder(
        (~valid).view(np.uint8), *(side_px,) * 4, cv2.BORDER_CONSTANT, value=1
    )
    opened = cv2.morphologyEx(nodata, cv2.MORPH_OPEN, np.ones((side_px, side_px), np.uint8))
    inside = np.asarray(opened)[side_px:-side_px, side_px:-side_px]
    return np.asarray(valid | (inside == 0))


BLUR_PX = 16
"""Distance in pixels to which lossy compression changes values: a block of JPEG whose colours are
stored at half the resolution."""

_BLUR = 32
"""Largest change of a value by lossy compression at the edge of nodata."""


def may_be_blurred(data: NDArray[Any], colours: Iterable[tuple[float | None, ...]]) -> BoolArray:
    """Return (y, x), True where 8-bit pixels are near a colour of nodata."""
    return np.asarray(~np.logical_and.reduce([differs(data, one, _BLUR) for one in colours]))


def without_blurred(valid: BoolArray, near: BoolArray) -> BoolArray:
    """Return the validity of pixels in which nodata that lossy compression has changed is nodata.

    These are pixels of nearly the colour of nodata that such pixels join to nodata; a pixel depends
    on others up to a distance of `BLUR_PX`.

    Args:
        valid: (y, x), False where nodata.
        near: (y, x), see `may_be_blurred`.
    """
    nodata = ~valid
    may_join = near | nodata
    for _ in range(BLUR_PX):
        nodata = widened(nodata) & may_join
    return ~nodata


def widened(area: BoolArray) -> BoolArray:
    """Return (y, x) with the neighbours of what is True."""
    wide = cv2.dilate(area.view(np.uint8), np.ones((3, 3), np.uint8))
    return np.asarray(wide).view(np.bool_)


def at_corners(area: BoolArray) -> BoolArray:
    """Return the pieces of (y, x) that reach a corner."""
    _, pieces = cv2.connectedComponents(area.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    corners = pieces[[0, 0, -1, -1], [0, -1, 0, -1]]
    return np.asarray(area & np.isin(pieces, corners))


def mended(
    window: Window,
    data: NDArray[Any],
    valid: BoolArray,
    read: Callable[[Window], tuple[NDArray[Any], BoolArray]],
    colours: Sequence[tuple[float | None, ...]],
    grid: GeoGrid,
    *,
    is_lossy: bool,
) -> BoolArray:
    """Return the validity of a window in which specks are valid and blurred nodata is not.

    Args:
        data, valid: Its (band, y, x) pixels, and (y, x), False where they have a colour of nodata.
        read: Returns the same of a larger window.
        colours: Colours of nodata, one value for each band.
        is_lossy: Whether nodata may be blurred, see `without_blurred`.
    """
    edges = (data[:, :1], data[:, -1:], data[:, :, :1], data[:, :, -1:]) if is_lossy else ()
    if valid.all() and not any(may_be_blurred(edge, colours).any() for edge in edges):
        return valid
    side = speck_side_px(grid.gsd_m)
    if min(window.shape_yx) >= side and not valid.any():
        return valid
    around = window.padded(side + BLUR_PX * is_lossy).intersection(Window.whole(grid.shape))
    around = around or window
    if around != window:
        data, valid = read(around)
    found = without_specks(valid, side)
    if is_lossy and not found.all():
        found = without_blurred(found, may_be_blurred(data, colours))
    return found[window.slices(around)]


EDGE_SHARE = 0.02
"""Least share of the pixels along the edge that have the colour; with fewer the search stops."""

LEAST_FILL = 0.05
"""Least share of an image of 8 bits or floats for fill that is reported. Less may be an overexposed
roof."""

_LEAST_SHARE = 0.005
"""Least area of a piece as a share of all pixels. White cars and overexposed roofs are smaller."""


def fill_at_edges(
    data: NDArray[Any], valid: BoolArray | None
) -> tuple[tuple[float, ...], BoolArray | None]:
    """Return the commonest colour of fill at the edge of an image, and its pixels there.

    Args:
        data: (band, y, x) pixels.
        valid: (y, x), False where nodata is marked; None if all pixels are valid.

    Returns:
        The colour, one value per band, and (y, x), True for valid pixels of that colour in pieces
        that reach the edge; ((), None) if there is no piece of sufficient size.
    """
    edge = np.concatenate([data[:, 0], data[:, -1], data[:, :, 0], data[:, :, -1]], axis=1)
    fill = is_fill(edge)
    if valid is not None:
        fill &= np.concatenate([valid[0], valid[-1], valid[:, 0], valid[:, -1]])
    if np.count_nonzero(fill) < max(EDGE_SHARE * fill.size, 1):
        return (), None
    colour = commonest_colour(edge[:, fill])
    here = ~differs(data, colour)
    if valid is not None:
        here &= valid
    count, labels = cv2.connectedComponents(here.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    at_edge = np.zeros(count, dtype=bool)
    for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        at_edge[line] = True
    areas = np.bincount(labels[here], minlength=count)
    pieces = at_edge & (areas >= _LEAST_SHARE * here.size)
    return (colour, pieces[labels]) if pieces.any() else ((), None)


def is_fill(pixels: NDArray[Any]) -> BoolArray:
    """Return for (band, …) pixels whether all bands have values with which fill is written.

    These are 0, the least and the greatest value of the type (floats: 1), and `is_certain_fill`.
    """
    values = {0, 1}
    if pixels.dtype.kind in "ui":
        limits = np.iinfo(pixels.dtype)
        values = {0, limits.min, limits.max}
    found = np.logical_or.reduce([pixels == value for value in values])
    return np.asarray(found.all(axis=0)) | is_certain_fill(pixels)


def is_certain_fill(pixels: NDArray[Any]) -> BoolArray:
    """Return for (band, …) pixels whether all bands have values of no picture: -9999, 1e38."""
    if pixels.dtype.kind == "u":
        return np.zeros(pixels.shape[1:], np.bool_)
    found = pixels <= -999
    if pixels.dtype.kind == "f":
        found |= pixels >= 1e20
    return np.asarray(found.all(axis=0))


def commonest_colour(pixels: NDArray[Any]) -> tuple[float, ...]:
    """Return the commonest colour of (band, n) pixels, one value per band."""
    colours, counts = np.unique(pixels, axis=1, return_counts=True)
    return tuple(colours[:, counts.argmax()].tolist())


def colour_name(colour: tuple[float, ...]) -> str:
    """Return the name of a colour of fill: `black`, `white`, `-9999`, `of the colour (…)`."""
    if not any(colour):
        return "black"
    if len(set(colour)) > 1:
        return f"of the colour ({', '.join(f'{value:g}' for value in colour)})"
    return f"{colour[0]:g}" if colour[0] < 0 or colour[0] > 2**16 else "white"
