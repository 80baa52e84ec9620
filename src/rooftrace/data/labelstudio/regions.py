"""What an annotator drew: one region of a Label Studio result, in percent of its image.

https://labelstud.io/guide/task_format and the pages of the tags. Coordinates are those of the image
as its file has it: `image_rotation` says how it was turned on the screen, and moves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.errors import LabelError

__all__ = ["Brush", "Ellipse", "Polygon", "Rectangle", "Region", "Shape", "find_regions"]

_FARTHEST_PERCENT = 1e5
_MOST_PX = 2**31 - 1

_CHORD_PX = 0.02
"""How far the outline that stands for an ellipse may lie inside of it."""

_SHAPES = ("polygon", "rectangle", "ellipse", "brush")
_LABEL_KEYS = ("labels", *(f"{shape}labels" for shape in _SHAPES))


@dataclass(frozen=True, slots=True)
class Polygon:
    """A ring of points (x, y) in percent; where it crosses itself, even-odd."""

    points: tuple[tuple[float, float], ...]

    def outline(self, shape_yx: tuple[int, int]) -> shapely.Polygon:
        """In pixels of an image of `shape_yx`."""
        return shapely.Polygon(np.array(self.points) * _scale_xy(shape_yx))


@dataclass(frozen=True, slots=True)
class Rectangle:
    """From its corner (x, y), in percent, turned about that corner by degrees clockwise."""

    x: float
    y: float
    width: float
    height: float
    rotation_deg: float

    def outline(self, shape_yx: tuple[int, int]) -> shapely.Polygon:
        """In pixels of an image of `shape_yx`, where alone a right angle is one."""
        scale = _scale_xy(shape_yx)
        sides = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * (self.width, self.height) * scale
        return shapely.Polygon(np.array((self.x, self.y)) * scale + _turned(sides, self))


@dataclass(frozen=True, slots=True)
class Ellipse:
    """About its centre (x, y), in percent, turned about it by degrees clockwise."""

    x: float
    y: float
    radius_x: float
    radius_y: float
    rotation_deg: float

    def outline(self, shape_yx: tuple[int, int]) -> shapely.Polygon:
        """In pixels of an image of `shape_yx`."""
        scale = _scale_xy(shape_yx)
        radii = np.array((self.radius_x, self.radius_y)) * scale
        # The sagitta of one of n chords of a circle is r (1 - cos(pi / n)).
        longest = max(float(np.abs(radii).max()), 1.0)
        chords = min(max(math.ceil(math.pi / math.acos(1 - _CHORD_PX / longest)), 16), 720)
        turn = np.linspace(0, 2 * math.pi, chords, endpoint=False)
        ring = np.stack((np.cos(turn), np.sin(turn)), axis=1) * radii
        return shapely.Polygon(np.array((self.x, self.y)) * scale + _turned(ring, self))


@dataclass(frozen=True, slots=True)
class Brush:
    """A painted mask, packed as `data.labelstudio.brush` reads it."""

    rle: bytes


Shape = Polygon | Rectangle | Ellipse | Brush


@dataclass(frozen=True, slots=True)
class Region:
    """A shape and what it was called.

    Args:
        shape: in percent of the image, or a mask of its pixels.
        labels: its names, as the annotator saw them; empty where it has none.
        size_yx: rows and columns that the image had, or None where not said.
        where: the result's place, for errors.
    """

    shape: Shape
    labels: tuple[str, ...]
    size_yx: tuple[int, int] | None
    where: str


def find_regions(results: object, where: str) -> tuple[list[Region], list[str]]:
    """The regions of one annotation, in the order in which they were drawn.

    A region whose shape and name are results of their own (`<Polygon>` beside `<Labels>`) is one.

    Args:
        results: `annotations[].result`, or what stands under a control's name in JSON-MIN.
        where: the annotation's place, for errors.

    Returns:
        The regions, and the types of the results that are no areas.

    Raises:
        LabelError: a result that is not what Label Studio writes; names it.
    """
    if not isinstance(results, list):
        raise malformed(where, "its result", results, "a list")
    merged: dict[tuple[str, Shape], Region] = {}
    others: list[str] = []
    for number, result in enumerate(results):
        if not isinstance(result, Mapping):
            raise malformed(where, f"result {number + 1}", result, "an object")
        name = result.get("id")
        name = name if isinstance(name, str) else ""
        here = f"{where}, result {name or number + 1}"
        value = result.get("value", result)
        if not isinstance(value, Mapping):
            raise malformed(here, "its value", value, "an object")
        kind = _kind_of(result.get("type"), value)
        if kind not in _SHAPES:
            _check_no_area(kind, here)
            others.append(kind)
            continue
        shape = _parse_shape(kind, value, here)
        key = (name, shape)
        labels = _labels_of(value, here)
        if key in merged:
            before = merged[key]
            labels = tuple(dict.fromkeys((*before.labels, *labels)))
        merged[key] = Region(shape, labels, _size_of(result, here), here)
    return list(merged.values()), others


def malformed(where: str, what: str, received: object, expected: str) -> LabelError:
    """What is told of a part of a label file that is not as Label Studio writes it."""
    told = repr(received)
    told = f"{told[:40]}…" if len(told) > 40 else told
    return LabelError(
        f"{where}: {what} is {told}; expected {expected}.",
        remedy="Export it from Label Studio again, or mend that result.",
    )


def _kind_of(given: object, value: Mapping[str, Any]) -> str:
    """What a result is: by its type, or where it has none (JSON-MIN) by what it holds."""
    kind = given.casefold() if isinstance(given, str) else ""
    named = [key.casefold() for key in value if key.endswith("labels") and key != "labels"]
    if not kind and named:
        kind = named[0]
    kind = kind.removesuffix("labels")
    if kind:
        return kind
    for key, shape in (("rle", "brush"), ("points", "polygon"), ("radiusX", "ellipse")):
        if key in value:
            return shape
    return "rectangle" if {"x", "y", "width", "height"} <= set(value) else "other"


def _check_no_area(kind: str, where: str) -> None:
    if kind.startswith("bitmask"):
        raise LabelError(
            f"{where} is a {kind}, which cannot be read; expected one of {', '.join(_SHAPES)}.",
            remedy="Paint it with <BrushLabels> instead.",
        )


def _parse_shape(kind: str, value: Mapping[str, Any], where: str) -> Shape:
    if kind == "brush":
        return Brush(_rle_of(value, where))
    if kind == "polygon":
        return Polygon(_points_of(value, where))
    rotation = _number(value.get("rotation") or 0, "rotation", where)
    x, y = (_number(value.get(key), key, where) for key in ("x", "y"))
    if kind == "ellipse":
        radii = [_number(value.get(key), key, where) for key in ("radiusX", "radiusY")]
        return Ellipse(x, y, radii[0], radii[1], rotation)
    sides = [_number(value.get(key), key, where) for key in ("width", "height")]
    return Rectangle(x, y, sides[0], sides[1], rotation)


def _points_of(value: Mapping[str, Any], where: str) -> tuple[tuple[float, float], ...]:
    points = value.get("points")
    if not isinstance(points, list) or len(points) < 3:
        raise malformed(where, "points", points, "a list of three or more points")
    if not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise malformed(where, "points", points, "pairs of x and y")
    return tuple((_number(x, "x", where), _number(y, "y", where)) for x, y in points)


def _rle_of(value: Mapping[str, Any], where: str) -> bytes:
    form, rle = value.get("format", "rle"), value.get("rle")
    if form != "rle":
        raise malformed(where, "format", form, "'rle'")
    if isinstance(rle, bytes):
        return rle
    try:
        # bytes(5) would be five zeros.
        return bytes(rle if isinstance(rle, list) else None)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise malformed(where, "rle", rle, "a list of numbers from 0 to 255") from None


def _labels_of(value: Mapping[str, Any], where: str) -> tuple[str, ...]:
    found: list[str] = []
    for key in _LABEL_KEYS:
        names = value.get(key) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise malformed(where, key, names, "a list of names")
        found += names
    return tuple(dict.fromkeys(found))


def _size_of(result: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    height, width = result.get("original_height"), result.get("original_width")
    if height is None and width is None:
        return None
    sides = []
    for name, side in (("original_height", height), ("original_width", width)):
        if isinstance(side, float) and side.is_integer():
            side = int(side)
        if not isinstance(side, int) or isinstance(side, bool) or not 0 < side <= _MOST_PX:
            raise malformed(where, name, side, "a number of pixels")
        sides.append(side)
    return sides[0], sides[1]


def _number(given: object, name: str, where: str) -> float:
    if (
        isinstance(given, bool)
        or not isinstance(given, int | float)
        or not -_FARTHEST_PERCENT <= given <= _FARTHEST_PERCENT
    ):
        raise malformed(where, name, given, f"a number up to {_FARTHEST_PERCENT:g}")
    return float(given)


def _scale_xy(shape_yx: tuple[int, int]) -> NDArray[np.float64]:
    """Pixels of a percent, along x and y."""
    return np.array((shape_yx[1], shape_yx[0])) / 100


def _turned(xy: NDArray[np.float64], shape: Rectangle | Ellipse) -> NDArray[np.float64]:
    """About the origin; y points down, so that positive degrees go clockwise."""
    angle = math.radians(shape.rotation_deg)
    cos, sin = math.cos(angle), math.sin(angle)
    turned: NDArray[np.float64] = xy @ np.array([[cos, sin], [-sin, cos]])
    return turned
