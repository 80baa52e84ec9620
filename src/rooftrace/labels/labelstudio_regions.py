"""Parse regions of a Label Studio result: shapes with labels, in percent of the image.

The format: https://labelstud.io/guide/task_format and the pages of the tags. Coordinates are those
of the image as its file has it: `image_rotation` only states how it was rotated on the screen.

A brush mask is encoded as run lengths, packed by the bit. It is the bit stream of @thi.ng/rle-pack,
which Label Studio's editor writes: https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack

    32 bits   number of words: 4 for each pixel, red, green, blue and alpha, row by row
     5 bits   bits of a word, minus one
    4×4 bits  bits of a count, minus one, for each of four sizes
    chunks    1 bit: whether one word is repeated; 2 bits: size of the count; the count minus one;
              then the one word, or as many words as the count

The mask is the alpha channel; the editor writes the same value into all four channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import affinity

from rooftrace.core.arrays import finite_array
from rooftrace.core.errors import LabelError
from rooftrace.core.text import reason_of, size_text
from rooftrace.core.types import BoolArray, Floats
from rooftrace.labels.label_files import REMEDY
from rooftrace.labels.shapes import ellipse


@dataclass(frozen=True, slots=True)
class OutlineShape:
    """A polygon, rectangle or ellipse, rotated clockwise about its origin.

    Args:
        origin: (x, y) in percent: the corner of a rectangle, the centre of an ellipse.
        points: Points (x, y) in percent from the origin, filled by the even-odd rule; None for an
            ellipse.
        radii: Radii of an ellipse along x and y in percent.
        rotation_deg: Angle in pixels, where angles are true.
    """

    origin: tuple[float, float]
    points: tuple[tuple[float, float], ...] | None = None
    radii: tuple[float, float] = (0.0, 0.0)
    rotation_deg: float = 0.0

    def outline(self, shape_yx: tuple[int, int]) -> shapely.Polygon:
        """Return the outline in pixels of an image of `shape_yx`."""
        across, down = shape_yx[1] / 100, shape_yx[0] / 100
        x, y = self.origin[0] * across, self.origin[1] * down
        if self.points is None:
            drawn = ellipse(x, y, self.radii[0] * across, self.radii[1] * down)
        else:
            drawn = shapely.Polygon(np.array(self.points) * (across, down) + (x, y))
        # y points down, so positive angles are clockwise.
        return affinity.rotate(drawn, self.rotation_deg, origin=(x, y))


@dataclass(frozen=True, slots=True)
class BrushShape:
    """A painted mask, packed as `decode_brush` reads it."""

    rle: bytes


Shape = OutlineShape | BrushShape


@dataclass(frozen=True, slots=True)
class Region:
    """A shape and its labels.

    Args:
        shape: Shape in percent of the image, or a mask of its pixels.
        labels: Names as the annotator saw them; may be empty.
        size_yx: Rows and columns of the image, or None if not stated.
        where: Location of the result for error messages.
    """

    shape: Shape
    labels: tuple[str, ...]
    size_yx: tuple[int, int] | None
    where: str


def find_regions(results: object, where: str) -> tuple[list[Region], list[str]]:
    """Return the regions of one annotation, in the order in which they were drawn.

    If the shape and the label of a region are separate results (`<Polygon>` beside `<Labels>`),
    they are merged.

    Args:
        results: `annotations[].result`, or the value of a control's name in JSON-MIN.
        where: Location of the annotation for error messages.

    Returns:
        The regions, and the types of the results that are not areas.
    """
    merged: dict[tuple[str, Shape], Region] = {}
    others: list[str] = []
    here = where
    try:
        if not isinstance(results, list):
            raise ValueError(f"{str(results)[:40]!r} is not a list of results")
        for number, result in enumerate(results, start=1):
            name = str(result.get("id") or "")
            here = f"{where}, result {name or number}"
            # In JSON-MIN, a result is its value.
            value = result.get("value", result)
            kind = _kind_of(result.get("type"), value)
            if kind not in _SHAPES:
                if kind.startswith("bitmask"):
                    raise ValueError(f"a {kind} is not read; paint it with <BrushLabels>")
                others.append(kind)
                continue
            shape = _shape_of(kind, value)
            before = merged[name, shape].labels if (name, shape) in merged else ()
            names = [one for key in _NAMES for one in value.get(key) or ()]
            labels = tuple(dict.fromkeys((*before, *map(str, names))))
            height, width = result.get("original_height"), result.get("original_width")
            size = None if height is None or width is None else (int(height), int(width))
            merged[name, shape] = Region(shape, labels, size, here)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise LabelError(f"{here} cannot be read: {reason_of(error)}.", remedy=REMEDY) from error
    return list(merged.values()), others


_SHAPES = ("polygon", "rectangle", "ellipse", "brush")
_NAMES = ("labels", *(f"{kind}labels" for kind in _SHAPES))
"""Keys of the names of a shape; they depend on the tag of the project."""

_MOST_PERCENT = 1e5
"""Maximum coordinate in percent, or angle."""


def _kind_of(given: object, value: Mapping[str, Any]) -> str:
    """Return the kind of a result: its type, or without one (JSON-MIN) inferred from its keys."""
    named = [key for key in value if key.endswith("labels") and key != "labels"]
    kind = str(given or (named or [""])[0]).casefold().removesuffix("labels")
    if kind:
        return kind
    for key, shape in (("rle", "brush"), ("points", "polygon"), ("radiusX", "ellipse")):
        if key in value:
            return shape
    return "rectangle" if {"x", "y", "width", "height"} <= set(value) else "other"


def _shape_of(kind: str, value: Mapping[str, Any]) -> Shape:
    """Return the shape of a result; raise KeyError, TypeError or ValueError if it has none."""
    if kind == "brush":
        rle = value["rle"]
        return BrushShape(rle if isinstance(rle, bytes) else bytes([*rle]))
    if kind == "polygon":
        corners = _numbers(value["points"]).tolist()
        if len(corners) < 3:
            raise ValueError("its polygon has fewer than three points")
        return OutlineShape((0.0, 0.0), tuple((x, y) for x, y in corners))
    keys = ("radiusX", "radiusY") if kind == "ellipse" else ("width", "height")
    given = [value["x"], value["y"], *(value[key] for key in keys), value.get("rotation") or 0]
    x, y, across, down, turn = _numbers(given).tolist()
    if kind == "ellipse":
        return OutlineShape((x, y), None, (across, down), turn)
    corners = ((0.0, 0.0), (across, 0.0), (across, down), (0.0, down))
    return OutlineShape((x, y), corners, rotation_deg=turn)


def _numbers(given: object) -> Floats:
    numbers = finite_array(given)
    if numbers is None or np.abs(numbers).max(initial=0) > _MOST_PERCENT:
        raise ValueError(f"{str(given)[:60]} are not numbers in percent of the image")
    return numbers


_HEADER_BITS = 32 + 5 + 4 * 4
_MOST_WORDS = 2**32 - 1
_CHANNELS = 4
_OPAQUE = 255

_SIZES = np.array([3, 4, 8, 16])
"""Numbers of bits of the counts that are written; the editor uses the same."""

_WORD_BITS = 8
_LONGEST_RUN = 1 << int(_SIZES[-1])


class BrushError(ValueError):
    """The bytes are not a brush mask of the expected size; the message states the reason."""


def encode_brush(mask: BoolArray) -> bytes:
    """Encode a mask (y, x) as the editor stores it, opaque white where it is True.

    Raises:
        BrushError: The mask has no pixel, or 2^30 pixels or more, which the format cannot count.
    """
    words = mask.size * _CHANNELS
    if words > _MOST_WORDS or not words:
        raise BrushError(f"it has {mask.size:,} pixels; a brush mask holds 1 to 2^30 - 1")
    flat = mask.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size) * _CHANNELS
    values = np.where(flat[starts], _OPAQUE, 0)
    # A run that is too long for one count is divided into several.
    full = (lengths - 1) // _LONGEST_RUN
    last = np.cumsum(full + 1) - 1
    counts = np.full(int(last[-1]) + 1, _LONGEST_RUN, dtype=np.int64)
    counts[last] = lengths - full * _LONGEST_RUN
    values = np.repeat(values, full + 1)
    which = np.searchsorted(1 << _SIZES, counts)
    code = ((0b100 | which) << _SIZES[which] | (counts - 1)) << _WORD_BITS | values
    width = 3 + _SIZES[which] + _WORD_BITS
    at = _HEADER_BITS + np.cumsum(width) - width
    bits = np.zeros(_HEADER_BITS + int(width.sum()), dtype=np.uint8)
    header = words << 5 | (_WORD_BITS - 1)
    for size in _SIZES.tolist():
        header = header << 4 | (size - 1)
    bits[:_HEADER_BITS] = [header >> shift & 1 for shift in reversed(range(_HEADER_BITS))]
    for index in range(len(_SIZES)):
        chosen = which == index
        span = np.arange(3 + _SIZES[index] + _WORD_BITS)
        bits[at[chosen][:, None] + span] = code[chosen][:, None] >> span[::-1] & 1
    return np.packbits(bits).tobytes()


def decode_brush(rle: bytes, shape_yx: tuple[int, int]) -> BoolArray:
    """Decode the mask (y, x) of a brush: True where alpha exceeds half of its maximum.

    The editor smooths the edge of a stroke, and some scripts write 1 instead of 255.
    """
    alpha = decode_alpha(rle, shape_yx)
    mask: BoolArray = alpha > alpha.max(initial=0) // 2
    return mask


def decode_alpha(rle: bytes, shape_yx: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode the alpha channel (y, x) of a brush.

    The size that the bytes state is checked before memory is allocated.

    Raises:
        BrushError: The bytes are for another size, are too few, or extend beyond the image.
    """
    pixels = shape_yx[0] * shape_yx[1]
    data = np.frombuffer(rle, dtype=np.uint8)
    if len(data) * 8 < _HEADER_BITS:
        raise BrushError(f"it has {len(data)} bytes, less than its header of {_HEADER_BITS} bits")
    header = int.from_bytes(rle[:7], "big") >> (56 - _HEADER_BITS)
    words = header >> 21
    word_bits = (header >> 16 & 31) + 1
    if words != pixels * _CHANNELS:
        raise BrushError(
            f"it is for {words:,} values, not for the {_CHANNELS} × {pixels:,} of "
            f"{size_text(shape_yx)}"
        )
    if word_bits > 8:
        raise BrushError(f"its values have {word_bits} bits; expected 8 or less")
    sizes = [(header >> shift & 15) + 1 for shift in (12, 8, 4, 0)]
    alpha = np.zeros(pixels, np.uint8)
    bits = np.unpackbits(data)
    bit, word = _HEADER_BITS, 0
    while word < words:
        # The next 40 bits hold the head of a chunk and its first word, at any of eight bits.
        byte = bit // 8
        ahead = int.from_bytes(rle[byte : byte + 5].ljust(5, b"\0"), "big") << bit % 8
        size = sizes[ahead >> 37 & 3]
        count = (ahead >> 37 - size & (1 << size) - 1) + 1
        repeated = ahead >> 39 & 1
        bit += 3 + size
        end_bit = bit + word_bits * (1 if repeated else count)
        if end_bit > len(bits):
            raise BrushError(f"it ends after {word:,} of {words:,} values")
        if word + count > words:
            raise BrushError(f"its last run goes {word + count - words:,} values beyond the image")
        # Every fourth word is alpha.
        chosen = slice(word // _CHANNELS, (word + count) // _CHANNELS)
        if repeated:
            alpha[chosen] = ahead >> 37 - size - word_bits & (1 << word_bits) - 1
        else:
            listed = bits[bit:end_bit].reshape(count, word_bits)[
                (3 - word) % _CHANNELS :: _CHANNELS
            ]
            alpha[chosen] = listed @ (1 << np.arange(word_bits - 1, -1, -1))
        bit, word = end_bit, word + count
    return alpha.reshape(shape_yx)
