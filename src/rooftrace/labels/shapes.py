"""Labels made of polygons, which are drawn on the image's grid when a window is read.

`ShapesLabel` has the polygons of one scene. `ShapeLayer` has those of a vector layer, which labels
every scene that it covers in part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from rooftrace.core.config import did_you_mean
from rooftrace.core.errors import ConfigError, GeoreferenceError
from rooftrace.core.text import PLACE_IMAGE
from rooftrace.core.types import BoolArray, Floats, GeoGrid, Ints, Mask, Polygons, Window
from rooftrace.io.gdal import rasterize, trace_values
from rooftrace.io.legend import BUILDING_NAMES
from rooftrace.io.make_valid import polygon_parts, valid_geometry
from rooftrace.io.reproject import crs_text, in_pixels, outline_boxes
from rooftrace.io.vector_read import PolygonLayer, VectorFile
from rooftrace.labels.config import LabelConfig
from rooftrace.labels.mask_values import IGNORED, NameRule, mask_of

V = TypeVar("V", np.int16, np.int32)
N = TypeVar("N", bound=np.integer)


class ShapesLabel:
    """The `LabelReader` of polygons. A pixel belongs to a shape if its centre lies inside.

    Args:
        geometry: (n,) shapely polygons or multipolygons in pixels of the image, x right and y
            down; 0 is the outer edge of the first pixel. They are drawn in `drawing_order`.
        classes: (n,) class index of each shape, or IGNORED.
        gsd_m: Metres per pixel by the shapes, for an image without a georeference.
    """

    def __init__(
        self,
        geometry: Polygons,
        classes: Sequence[int],
        grid: GeoGrid,
        gsd_m: float | None = None,
    ) -> None:
        given: NDArray[np.int16] = np.asarray(classes, dtype=np.int16)
        order = drawing_order(geometry, given)
        self.geometry, self.classes, self.grid = geometry[order], given[order], grid
        self.gsd_m = gsd_m
        self._bounds = shapely.bounds(self.geometry)

    def __len__(self) -> int:
        return len(self.geometry)

    def read(self, window: Window | None = None) -> Mask:
        """Return the classes inside `window` (default all), drawn from the shapes in it."""
        window = window or Window.whole(self.grid.shape)
        drawn = self._draw(self.classes, window)
        return mask_of(drawn, self.grid.crop(window))

    def read_instances(self, window: Window | None = None) -> NDArray[np.int32]:
        """Return (y, x) the number of the shape that gives each pixel its class, from 1; else 0."""
        numbers = np.where(self.classes > 0, np.arange(1, len(self) + 1), 0)
        return self._draw(numbers.astype(np.int32), window or Window.whole(self.grid.shape))

    def read_outlines(self) -> tuple[Polygons, NDArray[np.int16]]:
        """Return the shapes as drawn, clipped at the edges of the image, and their classes."""
        frame = shapely.box(0, 0, self.grid.width, self.grid.height)
        return clip_outlines(self.geometry, self.classes, frame)

    def _draw(self, values: NDArray[V], window: Window) -> NDArray[V]:
        """Return the value of the topmost shape at each pixel of `window`, 0 without a shape."""
        left, top, right, bottom = self._bounds.T
        meets = (left <= window.col_stop) & (right >= window.col) & (bottom >= window.row)
        chosen = np.flatnonzero(meets & (top <= window.row_stop))
        drawn = np.zeros(window.shape_yx, dtype=values.dtype)
        if len(chosen):
            rasterize(
                zip(self.geometry[chosen], values[chosen].tolist()),
                out=drawn,
                transform=Affine.translation(window.col, window.row),
            )
        return drawn


_HIDDEN = 0.9
"""Minimum share of a shape below a later one that would hide it."""


def drawing_order(geometry: Polygons, classes: NDArray[np.int16]) -> Ints:
    """Return the order in which shapes are drawn, the topmost last.

    It is the given one, except for a shape inside of a later and larger one of another class, such
    as a panel on a roof: it is drawn over that, as tools list both in any order.

    Args:
        geometry: (n,) polygons and multipolygons, valid or not.
        classes: (n,) class index of each, or IGNORED.
    """
    place = np.arange(len(classes))
    if len({*classes.tolist()} - {IGNORED}) < 2:
        return place
    valid = valid_geometry(geometry)
    area = shapely.area(valid)
    # Of a large shape, all shapes around would cost much; few have a point inside.
    pairs = shapely.STRtree(shapely.point_on_surface(valid)).query(valid, "contains")
    above, below = pairs[:, (pairs[0] > pairs[1]) & (area[pairs[0]] > area[pairs[1]])]
    hides = (classes[above] != classes[below]) & (np.minimum(classes[above], classes[below]) >= 0)
    above, below = above[hides], below[hides]
    hides = shapely.area(shapely.intersection(valid[above], valid[below])) >= _HIDDEN * area[below]
    for upper, lower in sorted(zip(above[hides].tolist(), below[hides].tolist()), reverse=True):
        place[lower] = max(place[lower], place[upper])
    return np.lexsort((-area, place))


def traced(bitmap: BoolArray, left: float = 0, top: float = 0) -> shapely.MultiPolygon:
    """Return the outline of a bitmap (y, x) along the edges of its pixels."""
    parts, _ = trace_values(bitmap.view(np.uint8), bitmap)
    whole = shapely.MultiPolygon(parts.tolist())
    return shapely.transform(whole, lambda xy: xy + np.array([left, top]))


def clip_outlines(
    geometry: Polygons, values: NDArray[N], frame: shapely.Geometry
) -> tuple[Polygons, NDArray[N]]:
    """Return the parts of (n,) shapes inside a frame, as (m,) valid polygons with (m,) values.

    A shape that has several parts, or is cut into several, becomes one polygon for each part.
    """
    # Invalid shapes can be drawn, but their intersection would fail.
    valid = valid_geometry(geometry)
    outside = ~shapely.covered_by(valid, frame)
    valid[outside] = shapely.intersection(valid[outside], frame)
    parts, owner = polygon_parts(valid)
    return parts, values[owner]


_MOST_COMPARED = 1 << 18
"""Maximum number of pairs of corners that are compared before an index of the corners is made."""


def bridged(polygon: shapely.Polygon) -> Floats:
    """Return the corners (n, 2) of a polygon as one ring, which goes to each hole and back.

    A pixel is inside such a ring if and only if it is inside the polygon.
    """
    corners = shapely.get_coordinates(polygon.exterior)
    order, tree, indexed = np.arange(len(corners)), None, 0
    for hole in polygon.interiors:
        inner = shapely.get_coordinates(hole)[:-1]
        if (len(corners) - indexed) * len(inner) > _MOST_COMPARED:
            indexed = len(corners) - 1
            tree = shapely.STRtree(np.asarray(shapely.points(corners[:indexed])))
        apart = np.hypot(*(corners[indexed:, None] - inner).transpose(2, 0, 1))
        at, start = divmod(int(apart.argmin()), len(inner))
        at += indexed
        if tree is not None:
            near = np.asarray(tree.nearest(np.asarray(shapely.points(inner))))
            far = np.hypot(*(corners[near] - inner).T)
            if far.min() < apart.min():
                start = int(far.argmin())
                at = int(near[start])
        round_trip = np.roll(np.arange(len(inner)), -start) + len(corners)
        after = int(np.flatnonzero(order == at)[0])
        order = np.concatenate([order[: after + 1], round_trip, round_trip[:1], order[after:]])
        corners = np.concatenate([corners, inner])
    return corners[order][:-1]


_CHORD_PX = 0.02
"""Maximum distance in pixels between an ellipse and the polygon that replaces it."""


def ellipse(x: float, y: float, rx: float, ry: float) -> shapely.Polygon:
    """Return an ellipse in pixels, by its centre and radii, as a polygon."""
    # The sagitta of one of n chords of a circle is r (1 - cos(pi / n)).
    longest = max(abs(rx), abs(ry), 1.0)
    chords = min(max(math.ceil(math.pi / math.acos(1 - _CHORD_PX / longest)), 16), 720)
    turn = np.linspace(0, 2 * math.pi, chords, endpoint=False)
    return shapely.Polygon(np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1))


OWN_FIELDS = ("id", "class", "scene")
"""Attributes of a layer that rooftrace wrote: order, class name, and one scene or null."""

IGNORE_NAME = "ignore"
"""Class name of unknown areas in a layer that rooftrace wrote."""


@dataclass(frozen=True)
class LayerFile:
    """A vector file and the meaning of its attribute.

    It is small to pickle, and each process reads the file once.

    Args:
        building: Class index of every polygon, if no attribute names the class.
        field: Attribute that names the class, or None.
        own: Whether the layer has `OWN_FIELDS` and is read by them.
        stamp: Modification time and size of the file, so that a changed file is read again.
        layer: Layer or layers that are read, see `VectorFile`.
    """

    path: Path
    building: int
    field: str | None
    rule: NameRule
    own: bool
    stamp: tuple[int, int]
    layer: str | None = None

    @classmethod
    def of(
        cls, path: Path, labels: LabelConfig, field: str | None = None, layer: str | None = None
    ) -> LayerFile:
        """Examine the attributes of a file.

        With `field` None, `VectorFile` tells buildings from other polygons, or else the attribute
        `class` where it names the class that is looked for.

        Raises:
            ConfigError: There is no such attribute.
            DataError: The file cannot be read, or does not have exactly one layer of polygons.
        """
        file = VectorFile(path, layer)
        own = field is None and set(OWN_FIELDS) <= set(file.fields)
        name = labels.building
        if field is None and name not in BUILDING_NAMES and name in file.distinct("class"):
            field = "class"
        # A GeoJSON without features has no attributes.
        if field is not None and field not in file.fields and len(file.read()):
            raise ConfigError(
                f"{path} has no attribute {field!r}; it has "
                f"{', '.join(file.fields) or 'none'}. {did_you_mean(field, file.fields)}".strip(),
                remedy="Correct field, or leave it out: then every polygon is a building.",
            )
        status = path.stat()
        return cls(
            path,
            labels.building_class,
            "class" if own else field if field in file.fields else None,
            labels.name_rule(),
            own,
            (status.st_mtime_ns, status.st_size),
            layer,
        )

    def load(self) -> ShapeLayer:
        """Return its polygons, from memory if this process has read them before.

        Raises:
            LabelError: A name is not a class.
        """
        return _load(self)

    def label(self, grid: GeoGrid, name: str, scene_id: str | None = None) -> ShapesLabel:
        """Return `ShapeLayer.label` of an image; that of a scene is cached for all its chips."""
        if grid.crs is None:
            raise GeoreferenceError(
                f"The image {name} has no coordinate system, so the footprints of "
                f"{self.path} cannot be placed in it.",
                remedy="Choose the images that have one with --glob, or assign it: " + PLACE_IMAGE,
            )
        return _label(self, grid, scene_id)


@dataclass(frozen=True, eq=False)
class ShapeLayer(PolygonLayer):
    """The polygons of a layer and their classes.

    Args:
        classes: (n,) int16 class index of each, or IGNORED.
        scenes: (n,) id of the one scene to which each polygon belongs, or "".
        notes: Assumptions, repairs and omissions that the user should see.
    """

    classes: NDArray[np.int16]
    scenes: NDArray[np.object_]
    notes: tuple[str, ...] = ()

    def label(self, grid: GeoGrid, scene_id: str | None = None) -> ShapesLabel:
        """Return the polygons that intersect an image, in its pixels; see `on`."""
        geometry, chosen = self.on(grid, scene_id)
        return ShapesLabel(geometry, self.classes[chosen].tolist(), grid)

    def on(self, grid: GeoGrid, scene_id: str | None = None) -> tuple[Polygons, Ints]:
        """Return the (m,) polygons that intersect an image, in its pixels, and the index of each.

        Args:
            grid: Grid of the image; it has a CRS.
            scene_id: Scene of the image; polygons of other scenes are left out. None keeps all.
        """
        assert grid.crs is not None
        chosen = self.near(grid)
        if scene_id is not None:
            chosen = chosen[np.isin(self.scenes[chosen].astype(str), ["", scene_id])]
        pixels = in_pixels(self.geometry[chosen], self.crs, grid)
        if not np.isfinite(shapely.get_coordinates(pixels)).all():
            raise GeoreferenceError(
                f"Footprints in {crs_text(self.crs)} cannot be transformed to "
                f"{crs_text(grid.crs)}, the system of an image that they intersect.",
                remedy="Reproject the footprints with ogr2ogr -t_srs, or correct those that are "
                "far away.",
            )
        inside = shapely.intersects(pixels, shapely.box(0, 0, grid.width, grid.height))
        return pixels[inside], chosen[inside]

    def near(self, grid: GeoGrid) -> Ints:
        """Return the indices, ascending, of the polygons that may overlap an image."""
        return np.unique(self.tree.query(outline_boxes(grid, self.crs))[1])

    @cached_property
    def tree(self) -> shapely.STRtree:
        """Spatial index of `geometry`."""
        return shapely.STRtree(self.geometry)


# One layer serves a whole set; a training run may have one layer for each place.
@lru_cache(maxsize=16)
def _load(file: LayerFile) -> ShapeLayer:
    fields = OWN_FIELDS if file.own else () if file.field is None else (file.field,)
    vector = VectorFile(file.path, file.layer)
    layer = vector.read(fields, buildings=file.field is None)
    count = len(layer)
    classes: NDArray[np.int16] = np.full(count, file.building, np.int16)
    drawn = np.ones(count, np.bool_)
    if file.field is not None:
        names = layer.values[file.field]
        for name in sorted(set(names.tolist())):
            where = f"{file.path}, attribute {file.field!r},"
            unknown = file.own and name == IGNORE_NAME
            index = IGNORED if unknown else file.rule.index_of(name, where)
            chosen = names == name
            if index is None:
                drawn[chosen] = False
            else:
                classes[chosen] = index
    order = np.flatnonzero(drawn)
    if file.own:
        # FlatGeobuf reorders features, but the later of two overlapping polygons must win.
        ids = [int(text) if text.isdecimal() else count for text in layer.values["id"].tolist()]
        order = order[np.argsort(np.array(ids)[order], kind="stable")]
    empty = np.full(count, "", np.object_)
    scenes = layer.values["scene"] if file.own else empty
    notes = vector.notes(layer.counts)
    return ShapeLayer(layer.geometry[order], layer.crs, classes[order], scenes[order], notes)


# The chips of a scene are read one after another; labels may be large, so few are kept.
@lru_cache(maxsize=8)
def _label(file: LayerFile, grid: GeoGrid, scene_id: str | None) -> ShapesLabel:
    return file.load().label(grid, scene_id)
